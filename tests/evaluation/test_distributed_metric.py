"""Two gloo processes on the CPU."""

import json

import pytest
import torch
from torch import distributed, multiprocessing

from mmseg_ext.evaluation import IoUMetric

from .samples import evaluate

METRICS = ['mIoU', 'mFscore', 'mBoundaryIoU']


def run(rank: int, folder, shares: list[list[dict]], size: int) -> None:
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    picture = folder / f'{rank}.png'
    metrics = evaluate(IoUMetric(iou_metrics=METRICS, nan_to_num=0, confusion_matrix=picture), shares[rank], size)
    (folder / f'{rank}.json').write_text(json.dumps({name: float(value) for name, value in metrics.items()}))
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    ('size', 'shares'),
    [
        (3, [[0, 2], [1, 0]]),  # DefaultSampler repeats an image to fill up the last batch
        (3, [[0, 2], [1]]),  # with round_up=False it does not
        (1, [[0], [0]]),  # nothing is left for the second process
    ],
)
def test_two_processes_give_the_results_of_one(samples, tmp_path, size, shares):
    shares = [[samples[i] for i in share] for share in shares]
    multiprocessing.start_processes(run, (tmp_path, shares, size), nprocs=2, start_method='fork')
    expected = evaluate(IoUMetric(iou_metrics=METRICS, nan_to_num=0), samples[:size])
    for rank in range(2):
        assert json.loads((tmp_path / f'{rank}.json').read_text()) == {k: float(v) for k, v in expected.items()}
    assert [(tmp_path / f'{rank}.png').exists() for rank in range(2)] == [True, False]


def test_what_is_kept_does_not_grow_with_the_number_of_images(samples):
    def held(number: int) -> int:
        metric = IoUMetric()
        metric.dataset_meta = dict(classes='abcde')
        metric.process({}, samples[:1] * number)
        return sum(x.untyped_storage().nbytes() for x in vars(metric).values() if isinstance(x, torch.Tensor))

    assert held(2) == held(20)
    assert not IoUMetric().results
