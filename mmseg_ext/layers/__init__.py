"""Building blocks in plain torch: nothing here imports OpenMMLab, each can be used alone."""

from .dilation import BlockPlan, dilation_plan, mmseg_dilation_plan
from .output_stride import Unit, multiply_dilations, output_stride, remember_geometry, set_output_stride
from .pooling import AvgPool2d, MaxPool2d, PhasePool2d
from .pyramid_pooling import PyramidPooling

__all__ = [
    'AvgPool2d',
    'BlockPlan',
    'MaxPool2d',
    'PhasePool2d',
    'PyramidPooling',
    'Unit',
    'dilation_plan',
    'mmseg_dilation_plan',
    'multiply_dilations',
    'output_stride',
    'remember_geometry',
    'set_output_stride',
]
