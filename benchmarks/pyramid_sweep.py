"""Time ``pyramid_conv2d`` against the plain form on random shapes, to see whether its choice of levels is right.

    python -m benchmarks.pyramid_sweep [--cases 100] [--seed 0] [--threads 1] [--clock cpu] [--train]

One to three levels of random sizes beside a full one, kernels 1 and 3, contiguous and channels_last.
"""

import random
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.options import parser
from mmseg_ext.engine.measure import print_table, time_alternating
from mmseg_ext.layers import pyramid_conv2d

_WORST = 12
# Cases that would take longer than this many multiply-adds are left out.
_LARGEST = 40e9


def plain(levels: list[Tensor], weight: Tensor) -> Tensor:
    """Upsample, concatenate, convolve."""
    size = levels[0].shape[2:]
    maps = [x if x.shape[2:] == size else F.interpolate(x, size=size, mode='bilinear') for x in levels]
    return F.conv2d(torch.cat(maps, dim=1), weight, padding=weight.shape[2] // 2)


def forward(run: Callable, levels: list[Tensor], weight: Tensor) -> None:
    """Run without gradients."""
    with torch.no_grad():
        run(levels, weight)


def step(run: Callable, levels: list[Tensor], weight: Tensor) -> None:
    """Run and compute all gradients."""
    out = run(levels, weight)
    torch.autograd.grad(out, [*levels, weight], torch.ones_like(out))


def random_case(device: str) -> tuple[str, list[Tensor], Tensor] | None:
    """Return a description, levels and weight; None for one that is too large."""
    height = random.choice((16, 32, 48, 64, 96, 128))
    width = height * random.choice((1, 2))
    channels, out_channels = random.choice((32, 64, 128, 256, 512)), random.choice((64, 128, 256, 512))
    kernel_size = random.choice((1, 3))
    ratios = [random.choice((1.2, 1.5, 2, 3, 4, 8, 16)) for _ in range(random.randint(1, 3))]
    memory_format = random.choice((torch.contiguous_format, torch.contiguous_format, torch.channels_last))
    total = channels * (1 + len(ratios))
    if height * width * kernel_size**2 * total * out_channels > _LARGEST:
        return None
    sizes = [(height, width), *((max(1, int(height / r)), max(1, int(width / r))) for r in ratios)]
    levels = [torch.randn(1, channels, *size, device=device).contiguous(memory_format=memory_format) for size in sizes]
    weight = torch.randn(out_channels, total, kernel_size, kernel_size, device=device)
    layout = ' channels_last' if memory_format == torch.channels_last else ''
    return f'{height}x{width}, 1/{ratios}, {channels} -> {out_channels}, kernel {kernel_size}{layout}', levels, weight


def main() -> None:
    options = parser('Time the choice of levels on random shapes.', [], size=0, repeats=5)
    options.add_argument('--cases', type=int, default=100)
    options.add_argument('--seed', type=int, default=0)
    options.add_argument('--train', action='store_true', help='with gradients')
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(options.seed)
    torch.manual_seed(options.seed)
    measure = step if options.train else forward
    rows = []
    while len(rows) < options.cases:
        case = random_case(options.device)
        if case is None:
            continue
        name, levels, weight = case
        for x in (*levels, weight):
            x.requires_grad_(options.train)
        sides = {
            side: lambda run=run, levels=levels, weight=weight: measure(run, levels, weight)
            for side, run in (('ours', pyramid_conv2d), ('plain', plain))
        }
        times = time_alternating(sides, options.repeats, torch.device(options.device), options.clock)
        rows.append((times['plain'].ratio, times['ours'].seconds * 1e3, times['plain'].seconds * 1e3, name))
    rows.sort()
    ratios = [row[0] for row in rows]
    over_a_millisecond = [row[0] for row in rows if row[2] >= 1]
    print(
        f'{options.cases} cases, plain / ours: median {ratios[len(ratios) // 2]:.2f}, largest {ratios[-1]:.2f}; of the '
        f'{len(over_a_millisecond)} of a millisecond and more: least {over_a_millisecond[0]:.2f}, '
        f'{sum(ratio < 0.95 for ratio in over_a_millisecond)} below 0.95. The least ones:'
    )
    table = [[name, f'{ratio:.2f}', f'{ours:.2f}', f'{other:.2f}'] for ratio, ours, other, name in rows[:_WORST]]
    print_table(['', 'plain / ours', 'ours ms', 'plain ms'], table)


if __name__ == '__main__':
    main()
