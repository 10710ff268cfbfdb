"""Draw a Cityscapes-like data set: python tools/make_street_scenes.py OUT --train 400 --val 100 --size 256x512"""

import argparse
import re
import time
from pathlib import Path

from mmseg_ext.street_scenes import write_street_scenes


def parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'(\d+)x(\d+)', text)
    if match is None:
        raise argparse.ArgumentTypeError(f'{text!r} is not HEIGHTxWIDTH, such as 256x512')
    return int(match[1]), int(match[2])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description='Draw street scenes in the layout of Cityscapes, with trainIds')
    parser.add_argument('out', type=Path, help='folder to write to; kept as it is if it already holds this data set')
    parser.add_argument('--train', type=int, default=400, help='number of training images (default: %(default)s)')
    parser.add_argument('--val', type=int, default=100, help='number of validation images (default: %(default)s)')
    parser.add_argument('--size', type=parse_size, default='256x512', metavar='HxW', help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same files (default: %(default)s)')
    parser.add_argument('--workers', type=int, help='number of processes (default: one per core)')
    args = parser.parse_args(argv)
    start = time.perf_counter()
    try:
        write_street_scenes(args.out, args.train, args.val, args.size, args.seed, args.workers)
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    print(f'{args.out}: {args.train} training and {args.val} validation images, {time.perf_counter() - start:.1f} s')


if __name__ == '__main__':
    main()
