"""Test a model: python tools/test.py CONFIG CHECKPOINT [--show-dir DIR] [--tta] [--output-stride N] [--upgrade] ..."""

import argparse

from mmseg_ext.engine.fast_form import add_form_arguments, form_from_args
from mmseg_ext.engine.run import add_arguments, config_from_args, evaluate_model


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description='Test a segmentation model')
    add_arguments(parser)
    parser.add_argument('checkpoint', help='file with the trained weights')
    parser.add_argument('--out', metavar='DIR', help='write the predictions as index PNGs')
    parser.add_argument('--show-dir', metavar='DIR', help='write panels image | truth | prediction')
    parser.add_argument('--tta', action='store_true', help='average over flips and scales')
    parser.add_argument('--output-stride', type=int, metavar='N', help='evaluate at this one, atrous rates rescaled')
    parser.add_argument('--crf', action='store_true', help='refine the predictions by the dense CRF')
    add_form_arguments(parser)
    args = parser.parse_args(argv)
    cfg = config_from_args(args)
    return evaluate_model(
        cfg, args.checkpoint, args.out, args.show_dir, args.tta, args.output_stride, form_from_args(args), args.crf
    )


if __name__ == '__main__':
    main()
