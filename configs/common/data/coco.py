"""COCO 2017 under $DETECTRON2_DATASETS/coco, the recipe of the papers: one scale."""

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
    dataset=L(detection_dataset)(names="coco_2017_train"),
    mapper=L(DatasetMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=[800], sample_style="choice", max_size=1333),
            L(T.RandomFlip)(horizontal=True),
        ],
        image_format="BGR",
    ),
    total_batch_size=16,
    num_workers=4,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="coco_2017_val", filter_empty=False),
    mapper=L(DatasetMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
        image_format="BGR",
    ),
    num_workers=4,
)

# The fast implementation needs detectron2's compiled operators.
dataloader.evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
