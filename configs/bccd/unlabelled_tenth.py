"""BCKD on BCCD with a tenth of the labels (20 of 205 images): bckd_gfl_lite2_r18.py with 8 labelled
images in a batch, and 8 of the others without their labels.

The teacher is gfl_lite2.py, which has learnt from all labels: it stands for one that is there,
while the labels that it has learnt from are not. On the validation images 78 % of its detections
that score at least 0.4 are right, and they find 86 % of the objects: this is the score that
`dense-kd label --calibrate` chooses. With `dataloader.unlabelled=null model.pseudo_labels=null` it
is distillation on the labelled images alone.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper

from dense_kd import PseudoLabels
from dense_kd.data import UnlabelledLoader, labelled_part, rest_of_images

from .bckd_gfl_lite2_r18 import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.dataset = L(labelled_part)(names="bccd_train", share=0.1, seed=1)
dataloader.unlabelled = L(UnlabelledLoader)(
    dataset=L(rest_of_images)(
        names="${...train.dataset.names}",
        share="${...train.dataset.share}",
        seed="${...train.dataset.seed}",
    ),
    mapper=L(DatasetMapper)(
        is_train=False,
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=240, max_size=320, sample_style="choice"),
            L(T.RandomFlip)(horizontal=True),
            L(T.RandomFlip)(horizontal=False, vertical=True),
        ],
        image_format="RGB",
    ),
    total_batch_size=8,
    num_workers=0,
)
model.pseudo_labels = L(PseudoLabels)(score_thresh=0.4)
train.output_dir = "output/bccd/unlabelled_tenth"
