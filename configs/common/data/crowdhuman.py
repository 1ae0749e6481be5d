"""CrowdHuman under $DETECTRON2_DATASETS/crowdhuman, at the scale of PGD's code; RGB."""

from detectron2.config import LazyCall as L

from dense_kd.evaluation import CrowdHumanEvaluator

from .coco import dataloader

for part in ("train", "test"):
    mapper = dataloader[part].mapper
    mapper.image_format = "RGB"
    mapper.augmentations[0].max_size = 1400

dataloader.train.dataset.names = "crowdhuman_train"
dataloader.test.dataset.names = "crowdhuman_val"
dataloader.evaluator = L(CrowdHumanEvaluator)(dataset_name="${..test.dataset.names}")
