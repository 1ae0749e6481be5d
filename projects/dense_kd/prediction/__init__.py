"""Detections of a trained detector on images, from nothing but its checkpoint."""

from .errors import ImageError, PredictionError
from .folder import Outcome, find_images, predict_files
from .predictor import Predictor
from .results import Prediction

__all__ = [
    "ImageError",
    "Outcome",
    "Prediction",
    "PredictionError",
    "Predictor",
    "find_images",
    "predict_files",
]
