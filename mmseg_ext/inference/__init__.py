"""Predict images and videos with a trained segmentor, in Python or into files."""

from .files import predict_files
from .outputs import OUTPUTS
from .predictor import Prediction, Predictor

__all__ = ['OUTPUTS', 'Prediction', 'Predictor', 'predict_files']
