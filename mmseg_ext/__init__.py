"""mmseg_ext: the atrous and split-attention family for mmsegmentation.

Importing it checks the installed OpenMMLab stack and makes the scope ``mmseg_ext`` known to mmengine. Classes are
imported when a registry is first asked for one.
"""

from .stack import check_stack

__version__ = '0.1.0'

check_stack()

from . import registry  # noqa: E402
from .upgrade import upgrade  # noqa: E402

__all__ = ['__version__', 'registry', 'upgrade']
