"""Convert a checkpoint of another project: python tools/convert_checkpoint.py SRC DST [--config CONFIG] ...

SRC is a file, a URL or a name like resnest://resnest50. With --config, the result is compared with that model first.
"""

import argparse

from mmseg_ext.checkpoints.conversion import convert_file
from mmseg_ext.checkpoints.fit_arguments import add_fit_arguments, fit_from_args
from mmseg_ext.cli import run_tool


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Convert a checkpoint of another project to mmseg's keys")
    parser.add_argument('source', metavar='SRC', help='path, URL, or name of published weights')
    parser.add_argument('target', metavar='DST', help='file to write')
    parser.add_argument('--config', help='the result has to fit the model in this config, or its backbone')
    parser.add_argument('--upgrade', action='store_true', help="use our classes in place of mmseg's of the same name")
    add_fit_arguments(parser)
    args = parser.parse_args(argv)
    print(convert_file(args.source, args.target, args.config, args.upgrade, **fit_from_args(args)))


if __name__ == '__main__':
    run_tool(main)
