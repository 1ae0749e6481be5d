"""Detections of a trained detector on images, from nothing but its checkpoint."""

from .errors import ImageError, PredictionError
from .folder import Outcome, find_images, predict_files
from .labels import Labelled, calibrate, label_files
from .predictor import Predictor
from .results import Prediction

__all__ = [
    "ImageError",
    "Labelled",
    "Outcome",
    "Prediction",
    "PredictionError",
    "Predictor",
    "calibrate",
    "find_images",
    "label_files",
    "predict_files",
]
