"""unlabelled_tenth.py with a quarter of the labels: 51 of 205 images."""

from .unlabelled_tenth import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.dataset.share = 0.25
train.output_dir = "output/bccd/unlabelled_quarter"
