"""What a subclass, the object or a patch of mmseg's class replaces is called, as mmseg calls it."""

import copy
import functools
from types import MethodType

import pytest
import torch
from mmengine.model import BaseModel
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.segmentors import BaseSegmentor
from mmseg.models.segmentors import EncoderDecoder as MMSegEncoderDecoder
from mmseg.models.segmentors import SegTTAModel as MMSegSegTTAModel
from mmseg.structures import OHEMPixelSampler
from torch import Tensor

from mmseg_ext.models.segmentors import SegTTAModel
from mmseg_ext.models.segmentors.head_loss import streamed_loss
from tests.models.segmentor_parity import augmented, head, pair, predict, samples, tta_labels

WHOLE, SLIDE = dict(mode='whole'), dict(mode='slide', crop_size=(32, 48), stride=(20, 30))


def changed(result):
    """Something else of the same form."""
    if isinstance(result, Tensor):
        return -result if result.is_floating_point() else 1 - result
    if isinstance(result, dict):
        return {key: 3 * value for key, value in result.items()}
    if isinstance(result[0], Tensor):
        return [changed(x) for x in result]
    for sample in result:
        sample.pred_sem_seg.data = 255 - sample.pred_sem_seg.data
    return result


def wrapper(function):
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        return changed(function(*args, **kwargs))

    return wrapped


def in_a_subclass(owner, name):
    kind = type(owner)
    owner.__class__ = type(f'Own{kind.__name__}', (kind,), {name: wrapper(getattr(kind, name))})


def on_the_object(owner, name):
    setattr(owner, name, wrapper(getattr(owner, name)))


def as_a_method_of_the_object(owner, name):
    setattr(owner, name, MethodType(wrapper(getattr(type(owner), name)), owner))


WAYS = [in_a_subclass, on_the_object, as_a_method_of_the_object]


def labels(model, images, truth):
    return [sample.pred_sem_seg.data.long() for sample in predict(model, images, truth)]


def assert_predictions_equal(replace, test_cfg=WHOLE):
    """Both segmentors predict the same once both were changed, and something else than before."""
    ours, theirs = pair(test_cfg=test_cfg)
    images, truth = torch.randn(2, 3, 64, 96, dtype=torch.float64), samples((64, 96), ori_shape=(50, 60))
    before = labels(ours, images, truth)
    for model in (ours, theirs):
        replace(model)
    after, expected = (labels(model, images, truth) for model in (ours, theirs))
    assert all(torch.equal(*both) for both in zip(after, expected, strict=True))
    assert not any(torch.equal(*both) for both in zip(after, before, strict=True))


SEGMENTOR = ['predict', 'inference', 'whole_inference', 'encode_decode', 'extract_feat', 'postprocess_result']
HEAD = ['predict', 'predict_by_feat', 'forward', 'cls_seg']


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name', SEGMENTOR)
def test_a_replaced_method_of_the_segmentor_predicts(name, way):
    assert_predictions_equal(lambda model: way(model, name))


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name', ['slide_inference', 'encode_decode'])
def test_a_replaced_method_of_the_segmentor_predicts_in_windows(name, way):
    assert_predictions_equal(lambda model: way(model, name), SLIDE)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name', HEAD)
def test_a_replaced_method_of_the_head_predicts(name, way):
    assert_predictions_equal(lambda model: way(model.decode_head, name))


PATCHED = {
    **dict.fromkeys(['predict', 'inference', 'whole_inference', 'encode_decode', 'extract_feat'], MMSegEncoderDecoder),
    'postprocess_result': BaseSegmentor,
    'predict_by_feat': BaseDecodeHead,
    'cls_seg': BaseDecodeHead,
}


@pytest.mark.parametrize('name', PATCHED)
def test_a_patch_of_mmsegs_class_predicts(name, monkeypatch):
    function = vars(PATCHED[name])[name]
    assert_predictions_equal(lambda _: monkeypatch.setattr(PATCHED[name], name, wrapper(function)))


def test_a_method_of_another_name_or_object_predicts():
    ours, theirs = pair(test_cfg=SLIDE)
    images, truth = torch.randn(1, 3, 64, 96, dtype=torch.float64), samples((64, 96), 1)
    windows = labels(ours, images, truth)[0]
    ours.slide_inference = ours.whole_inference
    theirs.test_cfg['mode'] = 'whole'
    assert torch.equal(labels(ours, images, truth)[0], labels(theirs, images, truth)[0])
    assert not torch.equal(labels(ours, images, truth)[0], windows)
    ours, other = pair()
    other.eval().decode_head.conv_seg.bias.data += torch.randn(5) * 10
    ours.encode_decode = other.encode_decode
    assert torch.equal(labels(ours, images, truth)[0], labels(other, images, truth)[0])


def test_a_subclass_has_modes_and_windows_of_its_own():
    class Tiled(MMSegEncoderDecoder):
        def inference(self, inputs, batch_img_metas):
            return self.encode_decode(inputs, batch_img_metas).flip(3)

    ours, theirs = pair()
    for model in (ours, theirs):
        model.__class__ = type('Own', (type(model),), dict(inference=Tiled.inference))
        model.test_cfg.update(mode='tiles', crop_size=3)
    images, truth = torch.randn(1, 3, 64, 96, dtype=torch.float64), samples((64, 96), 1)
    assert torch.equal(*(labels(model, images, truth)[0] for model in (ours, theirs)))


class Tagged(Tensor):
    """A kind of tensor that has its own operators."""


def test_a_tensor_of_another_kind_goes_mmsegs_way():
    ours, theirs = pair()
    images, truth = torch.randn(1, 3, 64, 96, dtype=torch.float64), samples((64, 96), 1)
    sample = predict(ours, images.as_subclass(Tagged), truth)[0]
    assert isinstance(sample.seg_logits.data, Tagged)
    assert torch.equal(sample.pred_sem_seg.data.as_subclass(Tensor), labels(theirs, images, truth)[0])


TWO_HEADS = dict(auxiliary_head=head(in_channels=32, in_index=2))
OHEM = dict(decode_head=head(sampler=dict(type='OHEMPixelSampler', min_kept=300, thresh=0.3)))


def assert_losses_equal(replace, **kwargs):
    """Both segmentors have the same losses once both were changed, and others than before."""
    ours, theirs = (model.eval() for model in pair(**(kwargs or TWO_HEADS)))
    images, truth = torch.randn(2, 3, 64, 96, dtype=torch.float64), samples((64, 96))
    before = ours.loss(images, copy.deepcopy(truth))
    for model in (ours, theirs):
        replace(model)
    after, expected = (model.loss(images, copy.deepcopy(truth)) for model in (ours, theirs))
    assert list(after) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(after[name].double(), value.double(), rtol=1e-6, atol=1e-9, msg=name)
    assert any((after[name] != before[name]).any() for name in before)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(
    'name', ['extract_feat', '_decode_head_forward_train', '_auxiliary_head_forward_train', 'loss']
)
def test_a_replaced_method_of_the_segmentor_trains(name, way):
    assert_losses_equal(lambda model: way(model, name))


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('which', ['decode_head', 'auxiliary_head'])
@pytest.mark.parametrize('name', ['forward', 'loss', 'loss_by_feat', 'cls_seg'])
def test_a_replaced_method_of_a_head_trains(name, which, way):
    assert_losses_equal(lambda model: way(getattr(model, which), name))


def test_a_head_may_stack_the_truth_in_another_way():
    def swapped(self, data_samples):
        target = torch.stack([sample.gt_sem_seg.data for sample in data_samples])
        return torch.where(target == 0, 1, target)[:, :, ::2, ::2]

    def replace(model):
        model.decode_head._stack_batch_gt = MethodType(swapped, model.decode_head)

    assert_losses_equal(replace)


@pytest.mark.parametrize('way', WAYS)
def test_a_replaced_method_of_the_loss_trains(way):
    assert_losses_equal(lambda model: way(model.decode_head.loss_decode, 'forward'))
    assert_losses_equal(lambda model: on_the_object(model.decode_head.loss_decode, 'cls_criterion'))


@pytest.mark.parametrize('way', WAYS)
def test_a_replaced_method_of_the_sampler_trains(way):
    assert_losses_equal(lambda model: way(model.decode_head.sampler, 'sample'), **OHEM)


def test_a_hook_of_the_loss_trains():
    def replace(model):
        model.decode_head.loss_decode.register_forward_hook(lambda module, inputs, result: changed(result))

    assert_losses_equal(replace)


PATCHED_TRAINING = {
    '_decode_head_forward_train': MMSegEncoderDecoder,
    '_auxiliary_head_forward_train': MMSegEncoderDecoder,
    'loss': BaseDecodeHead,
    'loss_by_feat': BaseDecodeHead,
}


@pytest.mark.parametrize('name', PATCHED_TRAINING)
def test_a_patch_of_mmsegs_class_trains(name, monkeypatch):
    defined_in = PATCHED_TRAINING[name]
    function = vars(defined_in)[name]
    assert_losses_equal(lambda _: monkeypatch.setattr(defined_in, name, wrapper(function)))


@pytest.mark.parametrize(('defined_in', 'name'), [(CrossEntropyLoss, 'forward'), (OHEMPixelSampler, 'sample')])
def test_a_patch_of_mmsegs_loss_or_sampler_trains(defined_in, name, monkeypatch):
    function = vars(defined_in)[name]
    assert_losses_equal(lambda _: monkeypatch.setattr(defined_in, name, wrapper(function)), **OHEM)


def test_the_loss_has_a_derivative_of_torch_func():
    ours, _ = pair()
    features = ours.extract_feat(torch.randn(2, 3, 64, 96, dtype=torch.float64))
    logits, truth = ours.decode_head(features).detach(), samples((64, 96))

    def loss(logits):
        return streamed_loss(ours.decode_head, logits, truth)['loss_ce']

    logits.requires_grad_()
    expected = torch.autograd.grad(loss(logits), logits)[0]
    torch.testing.assert_close(torch.func.grad(loss)(logits.detach()), expected)


def assert_averages_equal(replace, batch=2, kinds=(SegTTAModel, MMSegSegTTAModel)):
    ours, theirs = pair()
    data = augmented(batch)
    before = tta_labels(kinds[0], ours, data)
    for model in (ours, theirs):
        replace(model)
    after, expected = (tta_labels(kind, model, data) for kind, model in zip(kinds, (ours, theirs), strict=True))
    for a, b, c in zip(after, expected, before, strict=True):
        assert (a.long() != b.long()).double().mean() < 1e-3
        assert (a != c).double().mean() > 0.1
    assert not ours.test_cfg.get('keep_logits')


def other_logits(method):
    """The method, with the full-size logits of its samples turned round."""

    @functools.wraps(method)
    def wrapped(*args, **kwargs):
        results = method(*args, **kwargs)
        for sample in results:
            sample.seg_logits.data = -sample.seg_logits.data
        return results

    return wrapped


@pytest.mark.parametrize('name', ['test_step', '_run_forward', 'forward', 'predict', 'postprocess_result'])
def test_a_replaced_step_of_the_segmentor_is_part_of_augmentation(name):
    assert_averages_equal(lambda model: setattr(model, name, other_logits(getattr(model, name))))


@pytest.mark.parametrize('name', ['encode_decode', 'whole_inference'])
def test_a_replaced_inference_is_part_of_augmentation(name):
    assert_averages_equal(lambda model: on_the_object(model, name))


def test_a_patch_of_mmengines_class_is_part_of_augmentation(monkeypatch):
    step = BaseModel.test_step
    assert_averages_equal(lambda _: monkeypatch.setattr(BaseModel, 'test_step', other_logits(step)))


def test_a_hook_of_the_segmentor_is_part_of_augmentation():
    def turn(module, inputs, results):
        for sample in results:
            sample.seg_logits.data = -sample.seg_logits.data

    assert_averages_equal(lambda model: model.register_forward_hook(turn))


def test_a_replaced_merge_gets_the_logits_of_all_augmentations():
    def merge_preds(self, data_samples_list):
        for some in data_samples_list:
            best = torch.stack([sample.seg_logits.data for sample in some]).amax(0)
            some[0].pred_sem_seg.data = best.argmin(0, keepdim=True)
        return [some[0] for some in data_samples_list]

    kinds = [type('Own', (kind,), dict(merge_preds=merge_preds)) for kind in (SegTTAModel, MMSegSegTTAModel)]
    ours, theirs = pair()
    data = augmented(2)
    for a, b in zip(tta_labels(kinds[0], ours, data), tta_labels(kinds[1], theirs, data), strict=True):
        assert (a != b).double().mean() < 1e-3
    assert not ours.test_cfg.get('keep_logits')
