"""Check a config's datasets and count their classes: python tools/check_dataset.py CONFIG [--cfg-options ...]"""

import argparse
import sys

from mmengine.config import DictAction

from mmseg_ext.datasets.config_check import SPLITS, check_config
from mmseg_ext.datasets.dataset_problems import describe
from mmseg_ext.engine.config import load_config


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check a config's datasets and count their classes")
    parser.add_argument('config', help="config file, or the name of one that mmseg ships: 'mmseg::...'")
    parser.add_argument('--splits', nargs='+', choices=SPLITS, default=SPLITS, help='which to check (default: all)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='replace config values: key.subkey=value ...'
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    check = check_config(load_config(args.config, args.cfg_options), tuple(args.splits))
    for split, scan in check.scans.items():
        if scan.name != split:
            print(f'{split}: the same dataset as {scan.name}\n')
            continue
        print(scan.summary())
        if scan.num_labels:
            print(scan.table())
        for note in scan.notes:
            print(f'note: {note}')
        print()
    for note in check.notes:
        print(f'note: {note}')
    if check.problems:
        print(describe(check.problems), file=sys.stderr)
        return 1
    print('no problems')
    return 0


if __name__ == '__main__':
    sys.exit(main())
