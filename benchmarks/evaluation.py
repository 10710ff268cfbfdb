"""Compare a whole evaluation of PSPNet-R18 on CamVid with mmseg's: data loading, prediction, metric.

    python -m benchmarks.evaluation CHECKPOINT [--data data/camvid] [--repeats 3] [--threads 2]

The checkpoint is one of ``configs/psp_r18v1c_camvid.py``, its backbone dilated as mmseg dilates a ResNet-18. Ours is
that config; mmseg's is the same with mmseg's segmentor, heads, backbone and metric. Both run mmengine's test loop in
this process, in turn.
"""

import argparse
import tempfile
import warnings

import torch
from mmengine.config import Config

from mmseg_ext.engine.config import load_config
from mmseg_ext.engine.measure import peak_memory, print_table, time_alternating
from mmseg_ext.engine.runner import build_runner

CONFIG = 'configs/psp_r18v1c_camvid.py'


def configs(data: str) -> dict[str, Config]:
    """Return the config of each side."""
    options = {'test_dataloader.dataset.data_root': data, 'test_dataloader.num_workers': 0}
    options['test_dataloader.persistent_workers'] = False
    ours = load_config(CONFIG, options)
    theirs = load_config(CONFIG, {**options, 'default_scope': 'mmseg'})
    for cfg in (ours, theirs):
        cfg.model.backbone.pop('output_stride')
        cfg.model.backbone.update(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)
    theirs.model.decode_head.in_channels = 512
    theirs.model.auxiliary_head.in_channels = 256
    theirs.test_dataloader.dataset.type = 'mmseg_ext.CamVidDataset'
    return {'mmseg_ext': ours, 'mmseg': theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', help=f'trained by {CONFIG}')
    parser.add_argument('--data', default='data/camvid')
    parser.add_argument('--repeats', type=int, default=3, help='rounds that count')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of torch')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(args.threads)
    runs, results = {}, {}
    with tempfile.TemporaryDirectory() as work_dir:
        for side, cfg in configs(args.data).items():
            cfg.update(work_dir=work_dir, load_from=args.checkpoint, log_level='ERROR', experiment_name=side)
            cfg.custom_hooks = []
            runner = build_runner(cfg)
            results[side] = runner.test()
            runs[side] = runner.test_loop.run
        device = torch.device('cpu')
        times = time_alternating(runs, args.repeats, device)
        rows = [
            [
                side,
                f'{times[side].seconds:.2f}',
                f'{times[side].ratio:.2f}',
                f'{peak_memory(run, device) / 2**20:.0f}',
                f'{results[side]["mIoU"]:.2f}',
                f'{results[side]["aAcc"]:.2f}',
            ]
            for side, run in runs.items()
        ]
    print_table(['', 'seconds', 'ratio to ours', 'peak MiB', 'mIoU', 'aAcc'], rows)


if __name__ == '__main__':
    main()
