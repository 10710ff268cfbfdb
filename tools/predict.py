"""Predict images and videos: python tools/predict.py CONFIG CHECKPOINT INPUT... --out DIR [--outputs side] ..."""

import argparse

from mmengine.config import DictAction

from mmseg_ext.checkpoints.fit_arguments import add_fit_arguments, fit_from_args
from mmseg_ext.cli import run_tool
from mmseg_ext.engine.config import load_config
from mmseg_ext.engine.fast_form import add_form_arguments, form_from_args
from mmseg_ext.engine.switches import add_switch_arguments, switches_from_args
from mmseg_ext.inference import OUTPUTS, predict_files


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='Predict images, folders, globs and videos; write pictures and labels')
    parser.add_argument('config', help="config file, or the name of one that mmseg ships: 'mmseg::...'")
    parser.add_argument('checkpoint', help='file, URL or name of the trained weights')
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help="image, folder, video, or a glob: 'a/**/*.jpg'")
    parser.add_argument('--out', metavar='DIR', required=True, help='folder for the results')
    parser.add_argument(
        '--outputs', nargs='+', choices=OUTPUTS, default=['overlay'],
        help='image under the colours; index PNGs; image and overlay with a legend (default: overlay)',
    )  # fmt: skip
    parser.add_argument('--opacity', type=float, default=0.5, help='of the colours (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='images of one size at once')
    parser.add_argument('--workers', type=int, default=2, metavar='N', help='threads that read (default: %(default)s)')
    parser.add_argument('--device', help='cpu or cuda (default: cuda where there is one)')
    add_switch_arguments(parser)
    parser.add_argument('--upgrade', action='store_true', help="use our classes in place of mmseg's of the same name")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='config values to replace: key=value ...')
    add_fit_arguments(parser)
    add_form_arguments(parser)
    args = parser.parse_args(argv)
    failed = predict_files(
        load_config(args.config, args.cfg_options, args.upgrade),
        args.checkpoint,
        args.inputs,
        args.out,
        outputs=args.outputs,
        opacity=args.opacity,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
        form=form_from_args(args),
        **switches_from_args(args),
        **fit_from_args(args),
    )
    return 1 if failed else 0


if __name__ == '__main__':
    run_tool(main)
