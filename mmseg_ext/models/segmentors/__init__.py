from .encoder_decoder import EncoderDecoder
from .multi_scale import MultiScaleEncoderDecoder
from .seg_tta import SegTTAModel

__all__ = ['EncoderDecoder', 'MultiScaleEncoderDecoder', 'SegTTAModel']
