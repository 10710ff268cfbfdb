"""Checkpoints that fit a segmentor are loaded, all others are refused with names, shapes and the remedy."""

import logging
from collections.abc import Iterator

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmseg_ext.checkpoints import tensors_of
from mmseg_ext.checkpoints.building import build_model
from mmseg_ext.checkpoints.coverage import check_fit, load_pretrained, load_weights
from tests.reference.foreign_networks import SemsegPSPNet
from tests.reference.segmentors import backbone, head, psp, refusal, same, segmentor, snapshot, without


@pytest.fixture
def warnings_of() -> Iterator[list[str]]:
    """Messages logged as warnings."""
    messages = []

    class Keep(logging.Handler):
        def emit(self, record):
            if record.levelno >= logging.WARNING:
                messages.append(record.getMessage())

    logger, handler = MMLogger.get_current_instance(), Keep()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def test_a_checkpoint_of_the_same_model_is_loaded_whole_and_without_a_warning(warnings_of):
    weights, model = psp().state_dict(), psp()
    coverage = load_weights(model, weights, 'w.pth')
    assert coverage.loaded == list(weights)
    assert (coverage.missing, coverage.unexpected, coverage.mismatched, coverage.reset) == ([], [], {}, [])
    assert same(model, weights, weights)
    assert not warnings_of


def test_a_check_loads_nothing():
    model = psp()
    before = snapshot(model)
    assert len(check_fit(model, psp().state_dict(), 'w.pth').loaded) == len(before)
    assert same(model, before, before)


def test_another_class_count_is_refused_with_the_classifier_both_shapes_and_reset_head():
    message = refusal(psp(classes=7), psp(classes=5).state_dict())
    assert 'decode_head.conv_seg.weight: (5, 8, 1, 1) in the file, (7, 8, 1, 1) in the model' in message
    assert 'trained for 5 classes, the model has 7' in message
    assert '--load-from w.pth --reset-head' in message
    assert 'set num_classes=5' in message


def test_a_deeper_network_is_refused_though_it_has_all_weights_of_the_model():
    message = refusal(psp(depth=50), psp(depth=101).state_dict())
    assert '306 unexpected (backbone.layer3.6.conv1.weight, ' in message
    assert "--allow-unexpected backbone.layer3. (in a config: allow_unexpected=['backbone.layer3.'])" in message
    message = refusal(psp(depth=101), psp(depth=50).state_dict())
    assert '255 missing (backbone.layer3.6.conv1.weight, ' in message
    assert '--allow-missing backbone.layer3.' in message


def test_blocks_of_another_kind_are_refused_as_another_architecture_without_flags():
    message = refusal(psp(depth=18), psp(depth=50).state_dict())
    assert 'backbone.layer1.0.conv1.weight: (4, 4, 1, 1) in the file, (4, 4, 3, 3) in the model' in message
    assert 'another architecture (its layout: mmseg segmentor, backbone: mmseg ResNet V1c or V1d)' in message
    assert '--allow' not in message


def test_other_stages_are_refused():
    three = dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2))
    heads = [dict(head(), in_channels=16)]
    small, large = segmentor(backbone(**three), *heads), segmentor(backbone(), dict(heads[0], in_index=2))
    assert '--allow-unexpected backbone.layer4.' in refusal(small, large.state_dict())
    assert '--allow-missing backbone.layer4.' in refusal(large, small.state_dict())


def test_another_backbone_is_refused_with_the_layout_of_the_checkpoint():
    vgg = nn.ModuleDict(dict(backbone=nn.ModuleDict(dict(features=nn.Sequential(nn.Conv2d(3, 4, 3))))))
    weights = {**vgg.state_dict(), 'decode_head.conv_seg.weight': torch.ones(5, 3, 1, 1)}
    message = refusal(psp(), weights)
    assert '2 unexpected (backbone.features.0.weight, backbone.features.0.bias)' in message
    assert 'backbone: torchvision or timm VGG' in message


def test_another_head_is_refused_by_its_name_and_with_the_flags_that_would_let_it_pass():
    other = segmentor(backbone(), head('DeepLabV3PlusHead', low_level_channels=4))
    model = segmentor(backbone(), head())
    message = refusal(model, other.state_dict())
    assert 'Its decode_head is another one' in message
    assert '--allow-missing decode_head. --allow-unexpected decode_head.' in message
    assert 'backbone' not in message
    flags = dict(allow_missing=['decode_head.'], allow_unexpected=['decode_head.'])
    load_weights(model, other.state_dict(), 'w.pth', **flags)
    assert same(model.backbone, other.backbone.state_dict(), model.backbone.state_dict())


def test_a_backbone_alone_or_a_classifier_of_imagenet_is_refused_with_the_way_to_use_it():
    model = psp()
    for rest in ({}, {'fc.weight': torch.ones(10, 32), 'fc.bias': torch.ones(10)}):
        message = refusal(model, {**model.backbone.state_dict(), **rest})
        assert 'holds a backbone and no heads (its layout: mmseg ResNet V1c or V1d)' in message
        assert "model.backbone.init_cfg=dict(type='Pretrained', checkpoint='w.pth')" in message


def test_the_layout_of_another_project_is_refused_with_the_tool_that_converts_it():
    message = refusal(psp(depth=50), SemsegPSPNet().state_dict())
    assert 'hszhao/semseg PSPNet' in message
    assert 'python tools/convert_checkpoint.py w.pth OUT.pth' in message


def test_weights_under_unknown_names_are_refused_with_some_of_these():
    assert "keys like ['encoder.0.weight']" in refusal(psp(), {'encoder.0.weight': torch.ones(3)})


def test_a_missing_part_is_refused_unless_it_is_allowed_to_miss():
    model = psp()
    before = snapshot(model)
    weights = without(psp().state_dict(), 'auxiliary_head.')
    message = refusal(model, weights)
    assert 'It has no auxiliary_head' in message
    assert '--allow-missing auxiliary_head.' in message
    coverage = load_weights(model, weights, 'w.pth', allow_missing=['auxiliary_head.'])
    assert len(coverage.missing) == 7
    assert same(model, weights, weights)
    assert same(model, before, coverage.missing)


def test_parts_that_the_model_does_not_have_at_all_are_noted(warnings_of):
    model, whole = segmentor(backbone(), head()), psp()
    weights = {**whole.state_dict(), 'teacher.weight': torch.ones(1)}
    coverage = load_weights(model, weights, 'w.pth')
    assert {key.split('.')[0] for key in coverage.unexpected} == {'auxiliary_head', 'teacher'}
    assert '9 unexpected (auxiliary_head.' in warnings_of[0]


def test_nothing_of_the_model_in_the_checkpoint_is_refused_whatever_is_allowed():
    everything = ['backbone.', 'decode_head.', 'auxiliary_head.']
    assert 'has none of its weights' in refusal(psp(), {'a.b': torch.ones(1)}, allow_missing=everything)


def test_batch_counts_may_miss_and_may_be_of_any_type():
    model, weights = psp(), psp().state_dict()
    load_weights(model, {key: value for key, value in weights.items() if 'num_batches' not in key}, 'w.pth')
    halves = {key: value.half() for key, value in weights.items()}
    load_weights(model, {key: value[None] if value.ndim == 0 else value for key, value in halves.items()}, 'w.pth')
    torch.testing.assert_close(model.state_dict(), {k: v.half().to(weights[k].dtype) for k, v in weights.items()})


@pytest.mark.parametrize('change', [lambda x: x.int(), lambda x: x.to(torch.complex64), lambda x: x.to_sparse()])
def test_values_that_are_no_dense_real_numbers_are_refused_with_their_type(change):
    weights = psp().state_dict()
    weights['backbone.stem.0.weight'] = change(weights['backbone.stem.0.weight'])
    message = refusal(psp(), weights)
    assert 'backbone.stem.0.weight: torch.' in message
    assert 'torch.float32 in the model' in message or 'torch.strided in the model' in message
    assert 'floating-point numbers' in message


def test_weights_that_are_nan_are_loaded_with_a_warning_that_names_them(warnings_of):
    weights, model = psp().state_dict(), psp()
    weights['backbone.stem.0.weight'][0] = float('nan')
    load_weights(model, weights, 'w.pth')
    assert '1 weights are infinite or nan (backbone.stem.0.weight)' in warnings_of[0]
    assert model.backbone.stem[0].weight.isnan().any()


@pytest.mark.parametrize('option', ['allow_missing', 'allow_unexpected'])
@pytest.mark.parametrize('value', ['decode_head.', None, [1]])
def test_what_is_no_list_of_prefixes_is_an_error_with_the_remedy(option, value):
    with pytest.raises(
        TypeError, match=rf"{option}=.* must be a list of prefixes of keys: {option}=\['decode_head\.'\]"
    ):
        check_fit(psp(), {}, 'w.pth', **{option: value})


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (dict(optimizer=dict(state={}), meta={}), r"it holds \['meta', 'optimizer'\]"),
        (dict(net=dict(weight=torch.ones(1))), r"it holds \['net'\]"),
        (dict(state_dict={}), 'it holds nothing'),
        (dict(state_dict=[torch.ones(1)], step=torch.ones(1)), 'its state_dict is a list'),
        (dict(state_dict=None), 'its state_dict is a NoneType'),
        ({0: torch.ones(1)}, 'one of its keys is 0'),
        (dict(state_dict={'a.weight': torch.ones(1), 1: torch.ones(1)}), 'one of its keys is 1'),
        ([torch.ones(1)], 'it holds list'),
    ],
)
def test_files_without_weights_by_name_are_refused_with_what_they_hold(content, reason):
    with pytest.raises(ValueError, match=f'checkpoint w.pth holds no weights by name.*{reason}'):
        tensors_of(content, 'checkpoint w.pth')


def test_a_deeper_backbone_is_refused_by_load_pretrained_unless_it_is_allowed(tmp_path):
    deep, model = (build_model(backbone(depth), 'mmseg_ext') for depth in (101, 50))
    torch.save(deep.state_dict(), tmp_path / 'r101.pth')
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"306 unexpected \(layer3\.6\.conv1.*allow_unexpected=\['layer3\.'\]"):
        load_pretrained(model, tmp_path / 'r101.pth')
    assert same(model, before, before)
    load_pretrained(model, tmp_path / 'r101.pth', allow_unexpected=['layer3.'])
    assert same(model, deep.state_dict(), model.state_dict())
