"""From nothing to a trained, tested, visible segmentation: python tools/demo.py OUT

Draws street scenes, trains a small PSPNet on them from random weights, tests it and leaves pictures. Every step is a
command that is printed before it runs. Finished steps are kept: a second call goes on where the first one stopped.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).parent
CONFIG = TOOLS.parent / 'configs/psp_r18v1c_cityscapes.py'
HEIGHT, WIDTH = 128, 256


def options(data: Path, iterations: int) -> list[str]:
    """Shorten the Cityscapes config: small images, AdamW from random weights, few iterations."""
    size, scale = f'({HEIGHT},{WIDTH})', f'({WIDTH},{HEIGHT})'
    return [
        f'train_dataloader.dataset.data_root={data}',
        f'val_dataloader.dataset.data_root={data}',
        f'test_dataloader.dataset.data_root={data}',
        f'train_dataloader.dataset.pipeline.2.scale={scale}',
        f'train_dataloader.dataset.pipeline.3.crop_size={size}',
        f'val_dataloader.dataset.pipeline.1.scale={scale}',
        f'test_dataloader.dataset.pipeline.1.scale={scale}',
        f'model.data_preprocessor.size={size}',
        'model.backbone.init_cfg=None',
        'train_dataloader.batch_size=8',
        'optim_wrapper.optimizer._delete_=True',
        'optim_wrapper.optimizer.type=AdamW',
        'optim_wrapper.optimizer.lr=0.001',
        f'param_scheduler.0.end={iterations}',
        'param_scheduler.0.eta_min=1e-6',
        f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={iterations // 4}',
        f'default_hooks.checkpoint.interval={iterations // 4}',
        'default_hooks.logger.interval=20',
        'randomness.seed=0',
    ]


def run(*command: object) -> None:
    words = [str(word) for word in command]
    print('\n$ python ' + shlex.join(words), flush=True)
    subprocess.run([sys.executable, *words], check=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description='Draw street scenes, train PSPNet on them, test it, leave pictures')
    parser.add_argument('out', type=Path, help='folder for everything that this makes')
    parser.add_argument('--train', type=int, default=400, help='training images (default: %(default)s)')
    parser.add_argument('--val', type=int, default=57, help='validation images (default: %(default)s)')
    parser.add_argument('--iterations', type=int, default=600, help='training iterations (default: %(default)s)')
    args = parser.parse_args(argv)

    data, work_dir, panels = args.out / 'street_scenes', args.out / 'psp_r18v1c', args.out / 'panels'
    checkpoint = work_dir / f'iter_{args.iterations}.pth'
    size = f'{HEIGHT}x{WIDTH}'
    run(TOOLS / 'make_street_scenes.py', data, '--train', args.train, '--val', args.val, '--size', size)
    settings = ['--work-dir', work_dir, '--cfg-options', *options(data, args.iterations)]
    if not checkpoint.is_file():
        run(TOOLS / 'train.py', CONFIG, '--amp', '--resume', *settings)
    run(TOOLS / 'test.py', CONFIG, checkpoint, '--show-dir', panels, *settings)
    print(f'\nPictures: {panels}/*.png (image | truth | prediction), {work_dir}/curves.png (training)')


if __name__ == '__main__':
    main()
