"""The output stride of a whole segmentor: complete, all or nothing, and unseen until it is done."""

import threading

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmseg_ext.models.decode_heads import FCNHead
from mmseg_ext.models.segmentors.features import feature_info
from tests.reference.weights import randomise

NORM = dict(type='BN')
BACKBONE = dict(type='ResNetV1c', depth=18, base_channels=8, stem_channels=8, output_stride=16)
WIDTHS = (8, 16, 32, 64)


def head(kind='FCNHead', index=3, **kwargs):
    single = isinstance(index, int)
    widths = WIDTHS[index] if single else [WIDTHS[i] for i in index]
    more = {} if single else dict(input_transform='resize_concat')
    cfg = dict(type=kind, in_channels=widths, in_index=index, channels=8, num_classes=5, norm_cfg=NORM, **more)
    return cfg | (dict(dilations=(1, 2, 4)) if 'ASPP' in kind else {}) | kwargs


def build(decode_head=None, auxiliary_head=None, **kwargs):
    cfg = dict(
        type='EncoderDecoder',
        backbone=dict(BACKBONE),
        decode_head=decode_head or head('ASPPHead'),
        auxiliary_head=auxiliary_head,
        test_cfg=dict(mode='whole'),
    )
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        return randomise(MODELS.build(ConfigDict(cfg | kwargs))).eval()


def dilations(module: nn.Module) -> list[int]:
    convs = [part for part in module.modules() if isinstance(part, nn.Conv2d) and max(part.kernel_size) > 1]
    return [max(conv.dilation) for conv in convs if max(conv.dilation) > 1]


def everything(model: nn.Module) -> dict:
    """All attributes of all modules, at their present values."""
    state = {name: dict(vars(part)) for name, part in model.named_modules()}
    return state | {'modules': list(model.modules()), 'tensors': {k: v.clone() for k, v in model.state_dict().items()}}


def assert_same(model: nn.Module, before: dict) -> None:
    after = everything(model)
    tensors, expected = after.pop('tensors'), before.pop('tensors')
    assert after == before
    assert all(torch.equal(value, expected[key]) for key, value in tensors.items())


@pytest.mark.parametrize('scope', ['mmseg', 'mmseg_ext'])
@pytest.mark.parametrize('stride', [8, 32])
def test_rates_of_all_heads_ours_or_not_follow_their_features_and_come_back(scope, stride):
    others = [
        head(f'{scope}.FCNHead', 2, dilation=4),
        head(f'{scope}.FCNHead', [1, 3], dilation=6),
        head(f'{scope}.FCNHead', [3, 1], dilation=6),
        head(f'{scope}.FCNHead', 3),
        head(f'{scope}.DepthwiseSeparableASPPHead', 3, c1_in_channels=8, c1_channels=4),
    ]
    model = build(head(f'{scope}.ASPPHead'), others)
    x = torch.randn(1, 3, 64, 64)
    expected = [[2, 4], [4, 4], [6, 6], [6, 6], [], [2, 4]]
    changed = {
        8: [[4, 8], [8, 8], [6, 6], [12, 12], [], [4, 8]],
        32: [[2], [4, 4], [6, 6], [3, 3], [], [2]],
    }
    heads = [model.decode_head, *model.auxiliary_head]
    with torch.no_grad():
        before = model(x)
        assert [dilations(one) for one in heads] == expected
        model.set_output_stride(stride)
        assert [dilations(one) for one in heads] == changed[stride]
        assert model.backbone.output_stride == stride
        assert model(x).shape[2:] == (64 // stride, 64 // stride)
        model.set_output_stride(16)
        assert [dilations(one) for one in heads] == expected
        assert torch.equal(model(x), before)


def test_heads_learn_the_stride_of_the_features_that_they_take():
    indices = [0, 1, 2, 3, -1, -3, [1, 3], [3, 0]]
    model = build(head('ASPPHead', 3), [head('FCNHead', index) for index in indices])
    assert model.decode_head.output_stride == 16
    assert [one.output_stride for one in model.auxiliary_head] == [4, 8, 16, 16, 16, 8, 8, 16]
    model.set_output_stride(8)
    assert model.decode_head.output_stride == 8
    assert [one.output_stride for one in model.auxiliary_head] == [4, 8, 8, 8, 8, 8, 8, 8]


def test_a_segmentor_whose_strides_differ_between_the_axes_is_built_as_by_mmseg():
    strides = dict(BACKBONE, output_stride=None, strides=(1, 2, (1, 2), 2))
    model = build(head('FCNHead'), backbone=strides)
    assert model.decode_head.output_stride is None
    with pytest.raises(ValueError, match='differs between the axes'):
        model.set_output_stride(8)


class Failing(FCNHead):
    error = ValueError

    def set_output_stride(self, output_stride):
        super().set_output_stride(output_stride)
        raise self.error('on the way')


@pytest.mark.parametrize('error', [ValueError, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize('scope', ['mmseg', 'mmseg_ext'])
def test_whatever_the_last_head_raises_all_is_as_before(error, scope):
    others = [head(f'{scope}.FCNHead', 2, dilation=4), head('FCNHead', 3, dilation=2)]
    model = build(head(f'{scope}.ASPPHead'), others)
    model.auxiliary_head[-1].__class__ = type('Failing', (Failing,), dict(error=error))
    before = everything(model)
    with pytest.raises(error, match='on the way'):
        model.set_output_stride(32)
    assert_same(model, before)


def test_a_foreign_head_that_cannot_follow_is_named_and_all_is_as_before():
    model = build(head('ASPPHead'), [head('mmseg.FCNHead', 3, dilation=3)])
    before = everything(model)
    with pytest.raises(ValueError, match=r'FCNHead\.convs\.0\.conv.* would need dilation 3/2'):
        model.set_output_stride(32)
    assert_same(model, before)


def test_a_neck_with_rates_that_is_not_known_to_follow_is_named_and_all_is_as_before():
    neck = dict(type='mmseg.JPU', in_channels=(16, 32, 64), mid_channels=4, dilations=(1, 2))
    model = build(head(index=2, in_channels=8), backbone=dict(BACKBONE, out_indices=(1, 2, 3)), neck=neck)
    before = everything(model)
    with pytest.raises(ValueError, match=r"JPU\.dilation_layers.* JPU takes don't all change alike"):
        model.set_output_stride(32)
    assert_same(model, before)


class Noisy(nn.Module):
    """A neck with all that a run could leave a trace in."""

    def __init__(self):
        super().__init__()
        self.register_buffer('runs', torch.zeros(()))
        self.norm, self.calls, self.log, self.is_evaluated = nn.BatchNorm2d(64), 0, [], False

    def forward(self, features):
        self.runs += 1
        self.calls += 1
        self.log.append(len(features))
        return [self.norm(features[-1]) + 0 * torch.rand(())]

    def train(self, mode=True):
        self.is_evaluated = self.is_evaluated or not mode
        return super().train(mode)


class Watcher:
    def __init__(self):
        self.lock, self.calls = threading.Lock(), 0

    def watch(self, *args):
        self.calls += 1


def noisy_model() -> tuple[nn.Module, Watcher]:
    model = build(head('ASPPHead', 0, in_channels=64)).train()
    model.neck = Noisy()
    model.backbone.layer2.eval()
    watcher = Watcher()
    for part in model.modules():
        part.register_forward_pre_hook(watcher.watch)
        part.register_forward_hook(watcher.watch)
        part.register_full_backward_hook(watcher.watch)
    return model, watcher


@pytest.mark.parametrize('precision', ['float32', 'bfloat16', 'autocast'])
def test_a_dry_run_leaves_no_trace(precision):
    model, watcher = noisy_model()
    if precision == 'bfloat16':
        model.bfloat16()
    before, state = everything(model), torch.get_rng_state()
    with torch.autocast('cpu', enabled=precision == 'autocast'):
        assert [tuple(feature) for feature in feature_info(model.backbone, model.neck)] == [(64, 16)]
    assert_same(model, before)
    assert model.neck.log == []
    assert watcher.calls == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_a_change_behind_a_neck_keeps_every_mode_and_fires_no_hooks():
    model, watcher = noisy_model()
    modes = [part.training for part in model.modules()]
    model.set_output_stride(8)
    assert dilations(model.decode_head) == [4, 8]
    assert [part.training for part in model.modules()] == modes
    assert (model.neck.calls, model.neck.log, watcher.calls) == (0, [], 0)


def test_channels_and_strides_are_found_without_a_trace_where_the_stem_is_not_the_first_convolution():
    backbone = build().backbone
    first = nn.Conv2d(32, 32, 1)
    wrapped = nn.ModuleDict(dict(lateral=first, body=backbone))
    wrapped.forward = lambda x: [first(backbone(x)[2])]
    assert [tuple(feature) for feature in feature_info(wrapped)] == [(32, 16)]


def test_a_backbone_that_cannot_run_is_named_with_the_remedy():
    class Refusing(nn.Conv2d):
        def forward(self, x):
            raise RuntimeError('too small')

    with pytest.raises(ValueError, match=r'Refusing does not run on .* \(RuntimeError: too small\); name in_channels'):
        feature_info(Refusing(3, 3, 1))


def test_our_head_without_rates_needs_no_dry_run_of_the_neck():
    model = build(head('FCNHead', 0), neck=dict(type='mmseg.FPN', in_channels=list(WIDTHS), out_channels=8, num_outs=4))
    model.neck.forward = None  # cannot run
    model.set_output_stride(8)
    assert model.backbone.output_stride == 8
