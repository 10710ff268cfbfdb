"""What mmseg offers around a model takes our segmentor's results: inference functions, visualizer, metric."""

import mmseg.evaluation
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.visualization import SegLocalVisualizer

CLASSES = tuple('abcde')
PALETTE = [[40 * i, 0, 0] for i in range(5)]
META = dict(classes=CLASSES, palette=PALETTE)


@pytest.fixture
def cfg() -> Config:
    backbone = dict(type='ResNetV1c', depth=18, base_channels=8, stem_channels=8)
    head = dict(type='FCNHead', channels=8, num_convs=1, num_classes=5, norm_cfg=dict(type='BN'))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 48)), dict(type='PackSegInputs')]
    return Config(
        dict(
            custom_imports=dict(imports=['mmseg_ext']),
            default_scope='mmseg_ext',
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor', mean=[120.0] * 3, std=[50.0] * 3),
                backbone=backbone,
                decode_head=head,
                test_cfg=dict(mode='whole'),
            ),
            test_pipeline=pipeline,
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
            visualizer=dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'),
        )
    )


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def test_init_model_and_inference_model(cfg, image):
    model = init_model(cfg, device='cpu')
    assert type(model).__module__.startswith('mmseg_ext.')
    labels = inference_model(model, image).pred_sem_seg.data
    assert labels.shape == (1, 60, 80)
    assert labels.dtype == torch.uint8


def test_inferencer_predicts_and_draws(cfg, image, tmp_path):
    torch.save(dict(state_dict=init_model(cfg, device='cpu').state_dict()), tmp_path / 'x.pth')
    inferencer = MMSegInferencer(cfg, str(tmp_path / 'x.pth'), CLASSES, PALETTE, device='cpu', scope='mmseg_ext')
    result = inferencer(image, return_vis=True)
    assert result['predictions'].shape == (60, 80)
    assert result['visualization'].shape == image.shape


def test_visualizer_and_metric_of_mmseg_take_our_labels(cfg, image, tmp_path):
    sample = inference_model(init_model(cfg, device='cpu'), image)
    visualizer = SegLocalVisualizer(vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path), alpha=1.0)
    visualizer.dataset_meta = META
    visualizer.add_datasample('x', image, sample, draw_gt=False, with_labels=False)
    drawn = visualizer.get_image()
    expected = np.array(PALETTE, dtype=np.uint8)[sample.pred_sem_seg.data[0].numpy()]
    assert (drawn == expected).all()
    metric = mmseg.evaluation.IoUMetric()
    metric.dataset_meta = META
    truth = sample.pred_sem_seg.data.clone().long()
    truth[0, :10] = 255
    metric.process({}, [dict(pred_sem_seg=dict(data=sample.pred_sem_seg.data), gt_sem_seg=dict(data=truth))])
    assert metric.evaluate(size=1)['aAcc'] == 100
