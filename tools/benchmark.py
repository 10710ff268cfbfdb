"""What a model costs: python tools/benchmark.py CONFIG [CHECKPOINT] [--against mmseg|CONFIG] [--precision bf16] ..."""

import argparse
import json

import torch
from mmengine.config import DictAction

from mmseg_ext.checkpoints.fit_arguments import add_fit_arguments, fit_from_args
from mmseg_ext.cli import run_tool
from mmseg_ext.engine.benchmark import benchmark_models, format_results
from mmseg_ext.engine.config import load_config
from mmseg_ext.engine.fast_form import add_form_arguments, form_from_args
from mmseg_ext.engine.measure import print_table
from mmseg_ext.files import written_whole


def _size(text: str) -> tuple[int, int]:
    height, width = text.lower().split('x')
    return int(height), int(width)


def main(argv: list[str] | None = None) -> dict[str, dict]:
    parser = argparse.ArgumentParser(description='Time, memory and arithmetic of prediction and training step')
    parser.add_argument('config', help="config file, or the name of one that mmseg ships: 'mmseg::...'")
    parser.add_argument('checkpoint', nargs='?', help='trained weights: file, URL or name (default: random)')
    parser.add_argument('--upgrade', action='store_true', help="use our classes in place of mmseg's of the same name")
    parser.add_argument(
        '--against', metavar='CONFIG', help="another config to take turns with; 'mmseg': this one with mmseg's classes"
    )
    add_fit_arguments(parser)
    add_form_arguments(parser)
    parser.add_argument('--size', type=_size, metavar='HxW', help="of the images (default: the config's crops)")
    parser.add_argument('--images', metavar='DIR', help='images to predict and compare labels on (default: random)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='config values to replace: key=value ...')
    parser.add_argument('--batch', type=int, default=1, help='images at once; a training step has two at least')
    parser.add_argument('--repeats', type=int, default=10, help='rounds that count')
    parser.add_argument('--threads', type=int, help='threads of torch')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', metavar='FILE', help='write the figures as JSON')
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    against = None
    if args.against == 'mmseg':
        against = load_config(args.config, {**(args.cfg_options or {}), 'default_scope': 'mmseg'})
    elif args.against:
        against = load_config(args.against)
    results = benchmark_models(
        load_config(args.config, args.cfg_options, args.upgrade),
        args.checkpoint,
        against,
        size=args.size,
        batch=args.batch,
        repeats=args.repeats,
        device=args.device,
        images=args.images,
        **fit_from_args(args),
        **form_from_args(args),
    )
    header, *rows = format_results(results)
    print_table(header, rows)
    for name, share in results['label_agreement'].items():
        print(f'labels equal to those of {"the plain form" if name == "plain" else name}: {100 * share:.3f}%')
    if args.out:
        with written_whole(args.out) as part:
            part.write_text(json.dumps(results, indent=2))
    return results


if __name__ == '__main__':
    run_tool(main)
