"""Train a model: python tools/train.py CONFIG [--work-dir DIR] [--resume [PATH]] [--amp] [--channels-last] ..."""

import argparse

from mmseg_ext.engine.run import add_arguments, config_from_args, train_model


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description='Train a segmentation model')
    add_arguments(parser)
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='PATH', help='go on from a checkpoint (default: the latest one)'
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision; bfloat16 on a CPU')
    parser.add_argument('--channels-last', action='store_true', help='channels innermost in memory; faster with --amp')
    args = parser.parse_args(argv)
    train_model(config_from_args(args), args.resume, args.amp, args.channels_last)


if __name__ == '__main__':
    main()
