"""Fine-tuning with other classes: all weights of a checkpoint but the classifiers."""

import pytest
from torch import nn

from mmseg_ext.checkpoints.building import build_model
from mmseg_ext.checkpoints.coverage import load_weights
from tests.reference.segmentors import backbone, head, psp, refusal, same, segmentor, snapshot


@pytest.mark.parametrize('classes', [5, 7])
def test_reset_head_loads_all_but_the_classifiers_and_lists_these(classes):
    model, weights = psp(classes), psp(5).state_dict()
    before = snapshot(model)
    coverage = load_weights(model, weights, 'w.pth', reset_head=True)
    classifiers = [
        f'{part}.conv_seg.{name}' for part in ('decode_head', 'auxiliary_head') for name in ('weight', 'bias')
    ]
    assert coverage.reset == classifiers
    assert set(coverage.loaded) == set(weights) - set(classifiers)
    assert same(model, weights, coverage.loaded)
    assert same(model, before, classifiers)
    assert f'4 left as they are for a new classifier ({", ".join(classifiers)})' in str(coverage)


def test_reset_head_takes_the_whole_pyramid_that_deeplabv2_classifies_with():
    heads = [dict(head('DeepLabV2Head', dilations=rates), num_classes=n) for rates, n in (((1, 2), 5), ((1, 2, 3), 7))]
    for one in heads:
        one.pop('channels')
    small, large = (segmentor(backbone(), one) for one in heads)
    for model, other in ((small, large), (large, small)):
        coverage = load_weights(model, other.state_dict(), 'w.pth', reset_head=True)
        assert all(key.startswith('decode_head.conv_seg.') for key in coverage.reset)
        assert len(coverage.reset) == len(list(model.decode_head.conv_seg.state_dict()))
        assert (coverage.missing, coverage.unexpected) == ([], [])


def test_reset_head_takes_modules_of_another_name_that_differ_in_shape_and_lists_of_heads():
    def model(classes: int) -> nn.Module:
        heads = [nn.ModuleDict(dict(conv=nn.Conv2d(2, 2, 1), out=nn.Linear(3, classes))) for _ in range(2)]
        return nn.ModuleDict(dict(backbone=nn.Conv2d(3, 2, 1), decode_head=nn.ModuleList(heads)))

    coverage = load_weights(model(4), model(9).state_dict(), 'w.pth', reset_head=True)
    assert coverage.reset == [f'decode_head.{i}.out.{name}' for i in (0, 1) for name in ('weight', 'bias')]
    with pytest.raises(ValueError, match=r'reset_head: no head has a classifier .* leave reset_head .* out'):
        load_weights(model(4), model(4).state_dict(), 'w.pth', reset_head=True)


def test_reset_head_still_refuses_another_backbone():
    message = refusal(psp(7, depth=50), psp(5, depth=18).state_dict(), reset_head=True)
    assert 'backbone.layer1.0.conv3.weight' in message
    assert 'conv_seg' not in message


def test_reset_head_of_a_model_without_heads_is_an_error():
    model = build_model(backbone(), 'mmseg_ext')
    with pytest.raises(ValueError, match='reset_head: ResNetV1c has no head'):
        load_weights(model, model.state_dict(), 'w.pth', reset_head=True)
