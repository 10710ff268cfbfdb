import pytest
import torch
from torch import nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from mmseg_ext.layers import AtrousPyramid, PooledProjection, SummedAtrousPyramid, pyramid_conv2d
from tests.reference.weights import randomise, relative_error


def branch(rate: int) -> nn.Sequential:
    size, padding = (1, 0) if rate == 1 else (3, rate)
    conv = nn.Conv2d(6, 4, size, padding=padding, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU())


@pytest.mark.parametrize('size', [(9, 13), (16, 8)])
def test_branches_and_image_pooling_joined_are_torchvisions_pyramid(size):
    reference = randomise(ASPP(6, (2, 3, 5), 4)).double().eval()
    pyramid = AtrousPyramid((1, 2, 3, 5), branch).double().eval()
    image_pool = PooledProjection(1, branch(1)).double().eval()
    *convs, pool = reference.convs
    for ours, theirs in zip(pyramid, convs, strict=True):
        ours.load_state_dict(theirs.state_dict(), strict=True)
    image_pool[1].load_state_dict(nn.Sequential(*list(pool)[1:]).state_dict(), strict=True)
    conv, *rest = reference.project
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    with torch.no_grad():
        out = nn.Sequential(*rest)(pyramid_conv2d([*pyramid(x), image_pool(x)], conv.weight, size=size))
        assert relative_error(out, reference(x)) <= 1e-12


def test_the_summed_pyramid_is_one_sparse_convolution():
    # The sum of convolutions with rates 1 and 2 is one with a 5x5 kernel: DeepLabV2's "fov" without extra parameters.
    pyramid = SummedAtrousPyramid((1, 2), lambda rate: nn.Conv2d(3, 4, 3, padding=rate, dilation=rate)).double()
    fine, coarse = pyramid
    kernel = torch.zeros(4, 3, 5, 5, dtype=torch.float64)
    kernel[:, :, 1:4, 1:4] += fine.weight.detach()
    kernel[:, :, ::2, ::2] += coarse.weight.detach()
    x = torch.randn(2, 3, 7, 10, dtype=torch.float64)
    expected = nn.functional.conv2d(x, kernel, fine.bias + coarse.bias, padding=2)
    assert relative_error(pyramid(x), expected) <= 1e-12


@pytest.mark.parametrize('dilations', [6, (0, 6), (1.5,), '6'])
def test_wrong_dilations_are_named(dilations):
    with pytest.raises(ValueError, match='dilations must be a list of positive integers'):
        AtrousPyramid(dilations, branch)


def test_image_pooling_of_one_image_in_training_names_the_layer():
    image_pool = PooledProjection(1, branch(1))
    with pytest.raises(ValueError, match=r'PooledProjection\.1\.1: batch normalisation over one value a channel'):
        image_pool(torch.randn(1, 6, 5, 5))
    assert image_pool(torch.randn(2, 6, 5, 5)).shape == (2, 4, 1, 1)
