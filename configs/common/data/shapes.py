"""The generated dataset of the quickstart, see dense_kd.data.shapes."""

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

dataloader = OmegaConf.create()

dataloader.train = L(TrainLoader)(
    dataset=L(detection_dataset)(names="shapes_train", filter_empty=False),
    mapper=L(DatasetMapper)(
        is_train=True,
        augmentations=[L(T.RandomFlip)(horizontal=True)],
        image_format="BGR",
    ),
    total_batch_size=16,
    num_workers=0,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="shapes_val", filter_empty=False),
    mapper=L(DatasetMapper)(is_train=False, augmentations=[], image_format="BGR"),
    num_workers=0,
)

dataloader.evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
