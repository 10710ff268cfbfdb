"""Building blocks in plain torch: nothing here imports OpenMMLab, each can be used alone."""

from .dilation import BlockPlan, stage_dilation_plan
from .pyramid_pooling import PyramidPooling

__all__ = ['BlockPlan', 'PyramidPooling', 'stage_dilation_plan']
