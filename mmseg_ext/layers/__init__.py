"""Building blocks in plain torch: nothing here imports OpenMMLab, each can be used alone."""

from .atrous_pyramid import AtrousPyramid, SummedAtrousPyramid, check_dilations
from .batch_norm import check_norm_input
from .dilation import BlockPlan, dilation_plan, mmseg_dilation_plan, removed_strides
from .drop_block import DropBlock2d
from .eager import is_eager
from .hard_pixels import hard_pixel_weight
from .output_stride import Unit, multiply_dilations, present_output_stride, remember_geometry, set_output_stride
from .pointwise_conv import PointwiseConv2d, pointwise_conv2d
from .pooling import AvgPool2d, MaxPool2d, PhasePool2d
from .pyramid_conv import PyramidConv2d, concat_levels, pyramid_conv2d
from .pyramid_pooling import PooledProjection, PyramidPooling
from .rectified_conv import RectifiedConv2d
from .resampling import Resampling
from .rewrite import rewrite_dilation
from .separable_conv import SeparableConv2d
from .split_attention import SplAtConv2d
from .streamed_labels import streamed_labels
from .streamed_loss import streamed_cross_entropy, streamed_pixel_losses

__all__ = [
    'AtrousPyramid',
    'AvgPool2d',
    'BlockPlan',
    'DropBlock2d',
    'MaxPool2d',
    'PhasePool2d',
    'PointwiseConv2d',
    'PooledProjection',
    'PyramidConv2d',
    'PyramidPooling',
    'RectifiedConv2d',
    'Resampling',
    'SeparableConv2d',
    'SplAtConv2d',
    'SummedAtrousPyramid',
    'Unit',
    'check_dilations',
    'check_norm_input',
    'concat_levels',
    'dilation_plan',
    'hard_pixel_weight',
    'is_eager',
    'mmseg_dilation_plan',
    'multiply_dilations',
    'pointwise_conv2d',
    'present_output_stride',
    'pyramid_conv2d',
    'remember_geometry',
    'removed_strides',
    'rewrite_dilation',
    'set_output_stride',
    'streamed_cross_entropy',
    'streamed_labels',
    'streamed_pixel_losses',
]
