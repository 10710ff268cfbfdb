"""Train a model: python tools/train.py CONFIG [--work-dir DIR] [--resume [PATH]] [--amp] [--upgrade] ..."""

import argparse
import os
from pathlib import Path

from mmengine.config import DictAction

from mmseg_ext.checkpoints import install_safe_loading
from mmseg_ext.engine.config import load_config
from mmseg_ext.engine.runner import adapt_to_device, build_runner, enable_amp, find_latest_checkpoint


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a segmentation model')
    parser.add_argument('config', help="config file, or the name of one that mmseg ships: 'mmseg::...'")
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='go on from a checkpoint (default: the latest in work_dir)',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision; bfloat16 on a CPU')
    parser.add_argument('--upgrade', action='store_true', help="use our classes in place of mmseg's of the same name")
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='replace config values: key.subkey=value ...'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    install_safe_loading()
    cfg = load_config(args.config, args.cfg_options, args.upgrade)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(cfg.filename).stem))
    adapt_to_device(cfg)
    if args.amp:
        enable_amp(cfg)
    if args.resume:
        checkpoint = find_latest_checkpoint(cfg.work_dir) if args.resume == 'auto' else args.resume
        cfg.resume = checkpoint is not None
        cfg.load_from = str(checkpoint) if checkpoint else None
    build_runner(cfg).train()


if __name__ == '__main__':
    main()
