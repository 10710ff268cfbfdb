"""Building blocks in plain torch: nothing here imports OpenMMLab, each can be used alone."""

from .batch_norm import check_norm_input
from .dilation import BlockPlan, dilation_plan, mmseg_dilation_plan
from .drop_block import DropBlock2d
from .output_stride import Unit, multiply_dilations, output_stride, remember_geometry, set_output_stride
from .pooling import AvgPool2d, MaxPool2d, PhasePool2d
from .pyramid_pooling import PyramidPooling
from .rectified_conv import RectifiedConv2d
from .rewrite import rewrite_dilation
from .separable_conv import SeparableConv2d
from .split_attention import SplAtConv2d

__all__ = [
    'AvgPool2d',
    'BlockPlan',
    'DropBlock2d',
    'MaxPool2d',
    'PhasePool2d',
    'PyramidPooling',
    'RectifiedConv2d',
    'SeparableConv2d',
    'SplAtConv2d',
    'Unit',
    'check_norm_input',
    'dilation_plan',
    'mmseg_dilation_plan',
    'multiply_dilations',
    'output_stride',
    'remember_geometry',
    'rewrite_dilation',
    'set_output_stride',
]
