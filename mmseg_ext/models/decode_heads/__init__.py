from .aspp_head import ASPPHead
from .atrous_head import AtrousHead
from .base import DecodeHead
from .deeplabv2_head import DeepLabV2Head
from .deeplabv3plus_head import DeepLabV3PlusHead
from .fcn_head import FCNHead
from .large_fov_head import LargeFOVHead
from .psp_head import PSPHead
from .segformer_head import SegformerHead
from .sep_aspp_head import DepthwiseSeparableASPPHead
from .uper_head import UPerHead

__all__ = [
    'ASPPHead',
    'AtrousHead',
    'DecodeHead',
    'DeepLabV2Head',
    'DeepLabV3PlusHead',
    'DepthwiseSeparableASPPHead',
    'FCNHead',
    'LargeFOVHead',
    'PSPHead',
    'SegformerHead',
    'UPerHead',
]
