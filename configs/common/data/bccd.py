"""BCCD (dense_kd.data.bccd) with its images at half their size, 240 x 320, or as they are.

Trained on the 205 images for training and evaluated on the 87 for validation; the 72 for testing
are for the end: dataloader.test.dataset.names=bccd_test.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from omegaconf import OmegaConf

from dense_kd.data import TrainLoader, detection_dataset
from dense_kd.evaluation import COCOEvaluator

JITTER = [
    L(T.RandomBrightness)(intensity_min=0.8, intensity_max=1.2),
    L(T.RandomContrast)(intensity_min=0.8, intensity_max=1.2),
    L(T.RandomSaturation)(intensity_min=0.8, intensity_max=1.2),
]


def resize_in_range(height):
    """13 % smaller to 13 % larger."""
    shortest, longest = height * 13 // 15, height * 17 // 15
    return L(T.ResizeShortestEdge)(
        short_edge_length=[shortest, longest], max_size=4 * longest // 3 + 1, sample_style="range"
    )


def bccd(height, batch_size, num_workers, jitter=False):
    """All images are 4:3, so `height` (240 or 480 pixels) says their size.

    jitter: sizes, brightness, contrast and colours vary in training, for a detector that would
    learn the 205 images by heart.
    """
    resize = L(T.ResizeShortestEdge)(
        short_edge_length=height, max_size=4 * height // 3, sample_style="choice"
    )
    dataloader = OmegaConf.create()
    dataloader.train = L(TrainLoader)(
        dataset=L(detection_dataset)(names="bccd_train", filter_empty=False),
        mapper=L(DatasetMapper)(
            is_train=True,
            # Cells have no upper side.
            augmentations=[
                resize_in_range(height) if jitter else resize,
                L(T.RandomFlip)(horizontal=True),
                L(T.RandomFlip)(horizontal=False, vertical=True),
                *(JITTER if jitter else []),
            ],
            image_format="RGB",
        ),
        total_batch_size=batch_size,
        num_workers=num_workers,
    )
    dataloader.test = L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names="bccd_val", filter_empty=False),
        mapper=L(DatasetMapper)(is_train=False, augmentations=[resize], image_format="RGB"),
        num_workers=num_workers,
    )
    dataloader.evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
    return dataloader
