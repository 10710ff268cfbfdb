"""What the benchmark commands share on their command lines."""

import argparse
from collections.abc import Sequence

import torch

from mmseg_ext.engine.measure import CLOCKS


def parser(description: str, names: Sequence[str], size: int, repeats: int) -> argparse.ArgumentParser:
    """Return the options that all benchmark commands share."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument('--only', choices=names, action='append', help='run this comparison alone; can be repeated')
    options.add_argument('--size', type=int, default=size, help='height and width of the image')
    options.add_argument('--batch', type=int, default=1, help='images in a batch')
    options.add_argument('--repeats', type=int, default=repeats, help='rounds of each measurement')
    options.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of torch')
    options.add_argument('--precision', choices=('fp32', 'bf16'), default='fp32', help='bf16: under autocast')
    options.add_argument('--clock', choices=list(CLOCKS), default='wall', help='cpu: processor time of all threads')
    options.add_argument('--device', default='cpu', help='cpu or cuda')
    return options
