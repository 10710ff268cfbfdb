"""Reading checkpoint files: safely, from anywhere, in the key layouts of other projects."""

from .building import build_model
from .coverage import check_fit, load_pretrained, load_weights
from .download import download, load_checkpoint
from .fit import Coverage
from .layouts import Converted, convert, tensors_of
from .loading import UnsafeCheckpointError, load_file
from .mmengine_loader import safe_loading
from .pretrained import PretrainedMixin
from .urls import PUBLISHED, resolve

__all__ = [
    'PUBLISHED',
    'Converted',
    'Coverage',
    'PretrainedMixin',
    'UnsafeCheckpointError',
    'build_model',
    'check_fit',
    'convert',
    'download',
    'load_checkpoint',
    'load_file',
    'load_pretrained',
    'load_weights',
    'resolve',
    'safe_loading',
    'tensors_of',
]
