"""Pascal VOC 2007 and 2012 under $DETECTRON2_DATASETS, as detectron2 expects them: trained on the
16,551 images of both trainval sets, tested on 2007."""

from detectron2.config import LazyCall as L

from dense_kd.evaluation import VOCEvaluator

from .coco import dataloader

for part, names in (
    ("train", ("voc_2007_trainval", "voc_2012_trainval")),
    ("test", "voc_2007_test"),
):
    resize = dataloader[part].mapper.augmentations[0]
    resize.short_edge_length = [600] if part == "train" else 600
    resize.max_size = 1000
    dataloader[part].mapper.image_format = "RGB"
    dataloader[part].dataset.names = names

dataloader.evaluator = L(VOCEvaluator)(dataset_name="voc_2007_test")
