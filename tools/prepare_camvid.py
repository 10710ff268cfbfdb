"""Convert the original CamVid download: python tools/prepare_camvid.py SRC DST --classes 11 [--size 360x480]"""

import argparse
import re
import sys
from pathlib import Path

from mmseg_ext.datasets.camvid_prepare import prepare_camvid


def parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
    if match is None:
        raise argparse.ArgumentTypeError(f'{text!r} is not HEIGHTxWIDTH, such as 360x480')
    return int(match[1]), int(match[2])


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Turn the original CamVid download into index labels')
    parser.add_argument('source', type=Path, help='the download: NAME.png and NAME_L.png, in any folders below')
    parser.add_argument('target', type=Path, help='gets train, trainannot, val, ...; must be empty or not exist')
    parser.add_argument('--classes', type=int, choices=[11, 32], required=True, help='the usual 11, or all 32')
    parser.add_argument('--splits', type=Path, help='folder with train.txt, val.txt, test.txt (default: as SegNet)')
    parser.add_argument('--size', type=parse_size, metavar='HxW', help='resize; SegNet uses 360x480')
    return parser.parse_args(argv)


def show_progress(done: int, total: int) -> None:
    print(f'\r{done}/{total} images', end='' if done < total else '\n', file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        result = prepare_camvid(args.source, args.target, args.classes, args.splits, args.size, show_progress)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    for label, strays in result.strays.items():
        print(f'warning: {label}: {sum(strays.values())} pixels of unknown colours count as void', file=sys.stderr)
    if result.left_out:
        print(f'left out: {len(result.left_out)} images that no list names, such as {result.left_out[0]}')
    print(f'{args.target}: ' + ', '.join(f'{split} {count}' for split, count in result.counts.items()))
    return 0


if __name__ == '__main__':
    sys.exit(main())
