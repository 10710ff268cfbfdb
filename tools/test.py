"""Test a model: python tools/test.py CONFIG CHECKPOINT [--show-dir DIR] [--tta] [--output-stride N] [--upgrade] ..."""

import argparse

from mmseg_ext.cli import run_tool
from mmseg_ext.engine.fast_form import add_form_arguments, form_from_args
from mmseg_ext.engine.run import add_arguments, config_from_args, evaluate_model
from mmseg_ext.engine.switches import add_switch_arguments, switches_from_args


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description='Test a segmentation model')
    add_arguments(parser)
    parser.add_argument('checkpoint', help='file with the trained weights')
    parser.add_argument('--out', metavar='DIR', help='write the predictions as index PNGs')
    parser.add_argument('--show-dir', metavar='DIR', help='write panels image | truth | prediction')
    add_switch_arguments(parser)
    add_form_arguments(parser)
    args = parser.parse_args(argv)
    cfg = config_from_args(args)
    return evaluate_model(
        cfg, args.checkpoint, args.out, args.show_dir, form=form_from_args(args), **switches_from_args(args)
    )


if __name__ == '__main__':
    run_tool(main)
