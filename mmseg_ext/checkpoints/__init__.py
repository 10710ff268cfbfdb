"""Reading checkpoint files: safely, from anywhere, in the key layouts of other projects."""

from .coverage import Coverage, load_pretrained
from .download import download, load_checkpoint
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
    'convert',
    'download',
    'load_checkpoint',
    'load_file',
    'load_pretrained',
    'resolve',
    'safe_loading',
    'tensors_of',
]
