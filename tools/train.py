"""Train a model: python tools/train.py CONFIG [--work-dir DIR] [--resume [PATH]] [--load-from CKPT] [--replay N] ..."""

import argparse

from mmseg_ext.cli import run_tool
from mmseg_ext.engine.distributed import start_processes
from mmseg_ext.engine.replay import replay_batch
from mmseg_ext.engine.run import add_arguments, config_from_args, train_model


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description='Train a segmentation model')
    add_arguments(parser)
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='PATH',
        help='go on from a checkpoint (default: the latest one; where there is none, begin)',
    )  # fmt: skip
    parser.add_argument('--load-from', metavar='CKPT', help='begin from the weights in a checkpoint')
    parser.add_argument('--reset-head', action='store_true', help='with --load-from: all weights but the classifier')
    parser.add_argument('--amp', action='store_true', help='mixed precision; bfloat16 on a CPU')
    parser.add_argument('--channels-last', action='store_true', help='channels innermost in memory; faster with --amp')
    parser.add_argument(
        '--replay', type=int, metavar='N', help='no training: write the batch of iteration N as pictures'
    )
    args = parser.parse_args(argv)
    cfg = config_from_args(args)
    if args.replay is not None:
        start_processes(args.launcher, cfg.get('env_cfg', {}))
        replay_batch(cfg, args.replay)
        return
    if args.reset_head:
        cfg.reset_head = True
    train_model(cfg, args.resume, args.amp, args.channels_last, args.load_from)


if __name__ == '__main__':
    run_tool(main)
