"""What can be done to a prediction behind the network."""

from .dense_crf import DenseCRF

__all__ = ['DenseCRF']
