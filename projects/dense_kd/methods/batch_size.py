"""What methods say about the number of images that a process has at a time."""

from __future__ import annotations

PUBLISHED_IMAGES = 2
"""Images per process in the runs of LD, BCKD and CrossKD: 16 on 8 GPUs."""


def sums_warning(terms: str, images: int, published: int, remedy: str) -> str | None:
    """Of losses that are sums over the images of a process: what to say about their weights.

    Args:
        terms: the losses.
        images: in the batch of this process.
        published: images per process that the weights are for.
        remedy: what to do, besides training with that many.

    Returns:
        None if the two numbers are equal.
    """
    if images == published:
        return None
    return (
        f"{terms} are sums over the images of a process, and their weights are for {published}; "
        f"with the {images} images here they weigh {images / published:g} times as much. {remedy}, "
        f"or train with {published} images per process"
    )
