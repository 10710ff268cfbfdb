"""Reading and writing checkpoint files."""

from .loading import UnsafeCheckpointError, install_safe_loading, load_file

__all__ = ['UnsafeCheckpointError', 'install_safe_loading', 'load_file']
