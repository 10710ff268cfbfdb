"""Test a model: python tools/test.py CONFIG CHECKPOINT [--show-dir DIR] [--out DIR] [--tta] [--upgrade] ..."""

import argparse

from mmseg_ext.engine.run import add_arguments, config_from_args, evaluate_model


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description='Test a segmentation model')
    add_arguments(parser)
    parser.add_argument('checkpoint', help='file with the trained weights')
    parser.add_argument('--out', metavar='DIR', help='write the predictions as index PNGs')
    parser.add_argument('--show-dir', metavar='DIR', help='write panels image | truth | prediction')
    parser.add_argument('--tta', action='store_true', help='average over flips and scales')
    args = parser.parse_args(argv)
    return evaluate_model(config_from_args(args), args.checkpoint, args.out, args.show_dir, args.tta)


if __name__ == '__main__':
    main()
