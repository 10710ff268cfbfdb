import mmseg.models.decode_heads as mmseg_heads
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_ext.models.decode_heads import PSPHead
from tests.reference.weights import randomise, relative_error

ARGUMENTS = dict(in_channels=16, channels=8, num_classes=5, norm_cfg=dict(type='BN'))


def pair(**kwargs):
    ours = randomise(PSPHead(**{**ARGUMENTS, **kwargs}))
    theirs = mmseg_heads.PSPHead(**{**ARGUMENTS, **kwargs})
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize('kwargs', [{}, dict(align_corners=True), dict(pool_scales=(1, 4)), dict(norm_cfg=None)])
def test_logits_and_keys_equal_mmsegs(kwargs):
    ours, theirs = pair(**kwargs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    features = [torch.randn(2, 16, 13, 17)]
    assert relative_error(ours.eval()(features), theirs.eval()(features)) <= 1e-5


def test_loss_and_gradients_equal_mmsegs():
    ours, theirs = pair(dropout_ratio=0)
    features = torch.randn(2, 16, 12, 16)
    labels = torch.randint(0, 5, (2, 1, 48, 64))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    results = []
    for head in (ours, theirs):
        losses = head.loss([features], samples, {})
        losses['loss_ce'].backward()
        results.append((losses, [p.grad for p in head.parameters()]))
    assert results[0][0]['loss_ce'].item() == pytest.approx(results[1][0]['loss_ce'].item(), rel=1e-6)
    assert torch.equal(results[0][0]['acc_seg'], results[1][0]['acc_seg'])
    for a, b in zip(*(result[1] for result in results), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('pool_scales', [3, (0, 1), ('a',)])
def test_wrong_pool_scales_are_named(pool_scales):
    with pytest.raises(ValueError, match='pool_scales must be a list of positive integers'):
        PSPHead(pool_scales=pool_scales, **ARGUMENTS)


def test_training_on_one_image_names_the_layer_and_the_remedy():
    head = PSPHead(**ARGUMENTS).train()
    with pytest.raises(ValueError, match=r'pyramid pooling 0\.1\.bn: .* Train with a batch of 2 or more'):
        head([torch.randn(1, 16, 12, 12)])
    head.eval()
    assert head([torch.randn(1, 16, 12, 12)]).shape == (1, 5, 12, 12)
    PSPHead(**dict(ARGUMENTS, norm_cfg=dict(type='GN', num_groups=2))).train()([torch.randn(1, 16, 12, 12)])
