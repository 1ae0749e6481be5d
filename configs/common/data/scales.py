"""Multi-scale training: other short sides of the training images than 800."""

DETECTRON2_SIDES = (640, 672, 704, 736, 768, 800)


def choice_of_sides(dataloader, *sides):
    """One of some short sides."""
    resize = dataloader.train.mapper.augmentations[0]
    resize.short_edge_length, resize.sample_style = list(sides), "choice"


def range_of_sides(dataloader, low, high):
    """Any short side from `low` to `high`."""
    resize = dataloader.train.mapper.augmentations[0]
    resize.short_edge_length, resize.sample_style = [low, high], "range"
