from .psp_head import PSPHead

__all__ = ['PSPHead']
