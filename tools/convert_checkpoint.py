"""Convert a checkpoint of another project: python tools/convert_checkpoint.py SRC DST [--config CONFIG] ...

SRC is a file, a URL or a name like resnest://resnest50. With --config, the result is loaded into that model as a check.
"""

import argparse

from mmseg_ext.checkpoints.conversion import convert_file


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Convert a checkpoint of another project to mmseg's keys")
    parser.add_argument('source', metavar='SRC', help='path, URL, or name of published weights')
    parser.add_argument('target', metavar='DST', help='file to write')
    parser.add_argument('--config', help='check that all weights of the model in this config are there')
    parser.add_argument('--upgrade', action='store_true', help="use our classes in place of mmseg's of the same name")
    parser.add_argument(
        '--allow-missing', nargs='+', default=(), metavar='PREFIX', help='with --config: weights that need not be there'
    )
    args = parser.parse_args(argv)
    print(convert_file(args.source, args.target, args.config, args.upgrade, args.allow_missing))


if __name__ == '__main__':
    main()
