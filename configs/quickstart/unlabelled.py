"""BCKD with a tenth of the labels: what else there is of images teaches by way of the teacher.

distill.py with 8 labelled and 8 unlabelled images in a batch. `dense-kd label --calibrate` finds
the score above which a detection of a teacher is an object; 0.4 is not calibrated.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper

from dense_kd import PseudoLabels
from dense_kd.data import UnlabelledLoader, labelled_part, rest_of_images

from .distill import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.dataset = L(labelled_part)(names="shapes_train", share=0.1, seed=0)
dataloader.train.total_batch_size = 8
dataloader.unlabelled = L(UnlabelledLoader)(
    dataset=L(rest_of_images)(
        names="${...train.dataset.names}",
        share="${...train.dataset.share}",
        seed="${...train.dataset.seed}",
    ),
    mapper=L(DatasetMapper)(
        is_train=False,
        augmentations=[L(T.RandomFlip)(horizontal=True)],
        image_format="BGR",
    ),
    total_batch_size=8,
    num_workers=0,
)
model.pseudo_labels = L(PseudoLabels)(score_thresh=0.4)
train.output_dir = "output/quickstart/unlabelled"
