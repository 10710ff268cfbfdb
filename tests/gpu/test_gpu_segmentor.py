"""A small segmentor on a device: training in half precision, prediction, and what it may wait for."""

import copy
from contextlib import contextmanager, nullcontext

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.structures import SegDataSample

from mmseg_ext.layers import streamed_cross_entropy
from tests.gpu.heads import HEADS, autocast, distance, pair_on, samples_of
from tests.reference.segmentors import backbone, head, segmentor

SIZE = (64, 96)
MODES = dict(whole=dict(mode='whole'), slide=dict(mode='slide', crop_size=(40, 48), stride=(24, 28), batch=3))


@contextmanager
def no_waiting(device: torch.device):
    """Let every wait of the host for the GPU fail."""
    if device.type != 'cuda':
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


def psp(**options) -> torch.nn.Module:
    heads = head(), head('FCNHead', 4, num_convs=1, concat_input=False)
    return segmentor(backbone(18), *heads, **{key: ConfigDict(value) for key, value in options.items()})


def batch(device, count: int = 2) -> tuple[torch.Tensor, list[SegDataSample]]:
    labels = torch.randint(0, 5, (count, *SIZE), device=device)
    labels[:, :5] = 255
    samples = samples_of(labels)
    for sample in samples:
        sample.set_metainfo(dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE))
    return torch.randn(count, 3, *SIZE, device=device), samples


def losses_of(model, images, samples) -> torch.Tensor:
    return sum(value for key, value in model.loss(images, samples).items() if 'loss' in key)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', HEADS)
def test_a_training_step_of_a_head_waits_for_nothing(name, dtype, device):
    head, _, features = pair_on(device, name)
    features = [x.requires_grad_() for x in features]
    target = torch.randint(0, 5, (2, *SIZE), device=device)
    for context in (nullcontext(), no_waiting(device)):  # the first step measures
        head.zero_grad()
        with context:
            with autocast(device, dtype):
                loss, _ = streamed_cross_entropy(head(features), target, align_corners=False)
            loss.backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize('loss', [dict(), dict(class_weight=[1.0, 2.0, 3.0, 1.0, 0.5], avg_non_ignore=True)], ids=str)
def test_a_training_step_of_a_segmentor_waits_for_nothing_and_equals_that_of_a_cpu(loss, device):
    loss = dict(type='CrossEntropyLoss', **loss)
    decoder = head('SegformerHead', in_channels=[4, 8, 16, 32], dropout_ratio=0, loss_decode=loss)
    reference = segmentor(backbone(18), dict(decoder, in_index=[0, 1, 2, 3])).double().train()
    model = copy.deepcopy(reference).to(device)
    images, samples = batch('cpu')
    images = images.double()
    losses_of(reference, images, samples).backward()
    images, samples = images.to(device), [sample.to(device) for sample in samples]
    losses_of(copy.deepcopy(model), images, samples).backward()
    with no_waiting(device):
        losses_of(model, images, samples).backward()
    for (key, p), expected in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert distance(p.grad.cpu(), expected.grad) <= 1e-9, key


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
def test_scaled_losses_in_float16_train_and_an_overflow_changes_no_weight(memory_format, device):
    model = psp().train().to(device, memory_format=memory_format)
    images, samples = batch(device)
    images = images.to(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10)
    losses = []
    for overflow in (1, 1, 1, 1, 1, 1, torch.inf):
        before = copy.deepcopy(model.state_dict())
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.float16):
            loss = losses_of(model, images, samples)
        scaler.scale(loss * overflow).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[5] < losses[0]
    assert scaler.get_scale() == 2.0**9
    changed = [key for key, p in model.named_parameters() if not torch.equal(p, before[key])]
    assert not changed


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
def test_labels_are_those_of_mmsegs_full_size_logits(memory_format, mode, device, budget):
    model = psp(test_cfg=dict(MODES[mode], probability=True)).eval().to(device)
    theirs = copy.deepcopy(model)
    theirs.test_cfg.update(keep_logits=True)
    model.to(memory_format=memory_format)
    images, samples = batch(device)
    with torch.no_grad():
        results = model.predict(images.to(memory_format=memory_format), copy.deepcopy(samples))
        expected = theirs.predict(images, copy.deepcopy(samples))
    for result, other in zip(results, expected, strict=True):
        assert result.pred_sem_seg.data.device == images.device
        assert (result.pred_sem_seg.data != other.pred_sem_seg.data).double().mean() <= 1e-3
        probability = other.seg_logits.data.softmax(0).amax(0, keepdim=True)
        torch.testing.assert_close(result.pred_probability.data, probability, rtol=0, atol=1e-4)


@pytest.mark.parametrize('mode', MODES)
def test_a_crf_refines_what_was_predicted_on_the_device(mode, device):
    pytest.importorskip('pydensecrf', reason='the extra crf is not installed')
    reference = psp(test_cfg=dict(MODES[mode], crf=dict(iterations=2), probability=True)).eval()
    images, samples = batch('cpu', 1)
    with torch.no_grad():
        expected = reference.predict(images, copy.deepcopy(samples))[0]
        result = copy.deepcopy(reference).to(device).predict(images.to(device), [samples[0].to(device)])[0]
    assert result.pred_sem_seg.data.device.type == device.type
    assert (result.pred_sem_seg.data.cpu() != expected.pred_sem_seg.data).double().mean() <= 1e-2


def test_a_changed_output_stride_has_the_features_of_a_cpu(device):
    reference = psp().eval()
    model = copy.deepcopy(reference).to(device)
    images = torch.randn(1, 3, *SIZE)
    shapes = []
    for output_stride in (16, 8):
        for one in (reference, model):
            one.set_output_stride(output_stride)
        with torch.no_grad():
            logits, expected = model.logits(images.to(device)), reference.logits(images)
        assert distance(logits.cpu(), expected.double()) <= 1e-4
        shapes.append(logits.shape[2:])
    assert shapes == [(4, 6), (8, 12)]
