import itertools

import pytest
import timm
import torch
from torch import nn

from mmseg_ext.models.backbones import AlignedXception
from mmseg_ext.registry import MODELS
from tests.reference.weights import randomise, relative_error

DEPTHS = (41, 65, 71)
CHANNELS = (128, 256, 728, 1024, 2048)


def geometry(model: AlignedXception) -> list[tuple[int, ...]]:
    """Stride of each block, and dilations of its three depthwise convolutions."""
    convs = [[conv.conv_dw for conv in block.stack.values()] for block in model.blocks]
    return [(block[2].stride[0], *(conv.dilation[0] for conv in block)) for block in convs]


@pytest.mark.parametrize(
    ('depth', 'output_stride'), [(41, 32), (65, 32), (71, 32), (41, 16), (41, 8), (65, 8), (71, 16)]
)
def test_features_and_keys_are_those_of_timm(depth, output_stride):
    reference = randomise(timm.create_model(f'xception{depth}', output_stride=output_stride)).eval()
    model = AlignedXception(depth, output_stride=output_stride, out_indices=range(5)).eval()
    state = {key: value for key, value in reference.state_dict().items() if not key.startswith('head.')}
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state, strict=True)
    x = torch.randn(1, 3, 75, 64)
    with torch.no_grad():
        expected = reference.forward_intermediates(x, intermediates_only=True)
        outs = model(x)
        assert relative_error(outs[-1], reference.forward_features(x)) <= 1e-5
    for out, reference_out in zip(outs, expected, strict=True):
        assert relative_error(out, reference_out) <= 1e-5


def test_unlike_timms_the_dense_xception71_keeps_the_weights_of_every_shortcut():
    # timm leaves out the shortcut of a block that loses its stride and does not change the number of channels.
    timms = timm.create_model('xception71', output_stride=8).state_dict()
    ours = AlignedXception(71, output_stride=8).state_dict()
    assert {key.rsplit('.', 2)[0] for key in ours if key not in timms} == {'blocks.4.shortcut'}
    assert list(ours) == list(AlignedXception(71).state_dict())


@pytest.mark.parametrize('depth', DEPTHS)
@pytest.mark.parametrize(
    ('output_stride', 'sizes'), [(32, (32, 16, 8, 4, 2)), (16, (32, 16, 8, 4, 4)), (8, (32, 16, 8, 8, 8))]
)
def test_shapes_for_each_output_stride(depth, output_stride, sizes):
    model = AlignedXception(depth, output_stride=output_stride, out_indices=range(5)).eval()
    with torch.no_grad():
        outs = model(torch.randn(1, 3, 64, 64))
    assert [tuple(out.shape) for out in outs] == [(1, c, s, s) for c, s in zip(CHANNELS, sizes, strict=True)]
    assert model.output_stride == output_stride


@pytest.mark.parametrize(
    ('depth', 'output_stride', 'entry', 'middle', 'end'),
    [
        (65, 32, [(2, 1, 1, 1)] * 3, (1, 1, 1, 1), [(2, 1, 1, 1), (1, 1, 1, 1)]),
        (65, 16, [(2, 1, 1, 1)] * 3, (1, 1, 1, 1), [(1, 1, 1, 1), (1, 2, 2, 2)]),
        (65, 8, [(2, 1, 1, 1)] * 2 + [(1, 1, 1, 1)], (1, 2, 2, 2), [(1, 2, 2, 2), (1, 4, 4, 4)]),
        (
            71,
            8,
            [(2, 1, 1, 1), (1, 1, 1, 1), (2, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)],
            (1, 2, 2, 2),
            [(1, 2, 2, 2), (1, 4, 4, 4)],
        ),
    ],
)
def test_strides_and_dilations_of_entry_middle_and_exit_flow(depth, output_stride, entry, middle, end):
    assert geometry(AlignedXception(depth, output_stride=output_stride)) == entry + [middle] * 16 + end


@pytest.mark.parametrize('depth', DEPTHS)
def test_dense_features_subsampled_equal_the_strided_ones_and_the_way_back_is_bit_equal(depth):
    model = randomise(AlignedXception(depth, out_indices=range(5))).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    outs = {}
    with torch.no_grad():
        for output_stride in (32, 16, 8):
            model.set_output_stride(output_stride)
            outs[output_stride] = model(x)
        for coarse, fine in itertools.combinations(outs, 2):
            for strided, dense in zip(outs[coarse], outs[fine], strict=True):
                factor = dense.shape[2] // strided.shape[2]
                assert relative_error(dense[:, :, ::factor, ::factor], strided) < 1e-9
        model.set_output_stride(32)
        assert all(map(torch.equal, model(x), outs[32]))


@pytest.mark.parametrize('depthwise_relu', [False, True])
def test_relu_follows_every_depthwise_convolution_as_in_the_paper_or_the_last_blocks_as_released(depthwise_relu):
    model = AlignedXception(41, depthwise_relu=depthwise_relu)
    placed = [[isinstance(conv.act_dw, nn.ReLU) for conv in block.stack.values()] for block in model.blocks]
    assert placed == [[depthwise_relu] * 3] * 12 + [[True] * 3]


def test_the_shortcut_gets_the_input_before_the_first_relu():
    block = AlignedXception(41).eval().blocks[5]
    for conv in block.stack.values():
        nn.init.zeros_(conv.bn_pw.weight)
    x = torch.randn(1, 728, 4, 4)
    assert torch.equal(block(x.clone())[0], x)


def test_every_parameter_gets_a_gradient_and_checkpointing_does_not_change_it():
    cfg = dict(type='mmseg_ext.AlignedXception', depth=41, output_stride=16, in_channels=4)
    model = MODELS.build(cfg)
    model.init_weights()
    checkpointed = MODELS.build(dict(cfg, with_cp=True))
    checkpointed.load_state_dict(model.state_dict())
    x = torch.randn(2, 4, 32, 32, requires_grad=True)
    for network in (model, checkpointed):
        sum(out.square().mean() for out in network(x)).backward()
    for (name, one), other in zip(model.named_parameters(), checkpointed.parameters(), strict=True):
        assert one.grad is not None, name
        torch.testing.assert_close(other.grad, one.grad)


@pytest.mark.parametrize(
    ('frozen_stages', 'first_trained'), [(-1, 'stem.0'), (0, 'blocks.0'), (1, 'blocks.1'), (3, 'blocks.11'), (4, None)]
)
def test_frozen_stages_end_before_the_block_with_the_next_stride(frozen_stages, first_trained):
    model = AlignedXception(41, frozen_stages=frozen_stages).train()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained[0].startswith(f'{first_trained}.') if trained else first_trained is None
    assert model.stem[0].bn.training == (frozen_stages < 0)


def test_norm_eval_keeps_normalisation_in_evaluation_mode_and_its_epsilon_is_the_released_networks():
    model = AlignedXception(41, norm_eval=True, norm_cfg=dict(type='SyncBN')).train()
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert not any(layer.training for layer in norms)
    assert {layer.eps for layer in norms} == {1e-3}


def test_drop_path_rates_rise_to_that_of_the_last_residual_block():
    model = AlignedXception(41, drop_path_rate=0.12)
    rates = [getattr(block.drop_path, 'drop_prob', 0.0) for block in model.blocks]
    assert rates == pytest.approx([0.01 * i for i in range(13)])


def test_layer_depth_counts_the_blocks():
    model = AlignedXception(41)
    names = ['stem.1.conv.weight', 'blocks.0.shortcut.conv.weight', 'blocks.12.stack.conv1.bn_dw.bias']
    assert [model.get_layer_depth(f'backbone.{name}', 'backbone.') for name in names] == [(0, 15), (1, 15), (13, 15)]
    assert model.get_layer_depth('decode_head.conv_seg.weight', 'backbone.') == (14, 15)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(depth=50), r'depth=50 must be one of \[41, 65, 71\]'),
        (dict(depth=41, output_stride=4096), 'output_stride=4096 must be one of'),
        (dict(depth=41, out_indices=(5,)), r'out_indices=\(5,\)'),
        (dict(depth=41, frozen_stages=5), 'frozen_stages=5'),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AlignedXception(**arguments)
