"""What methods say about the number of images that a process has at a time."""

from __future__ import annotations

PUBLISHED_IMAGES = 2
"""Images per process in the runs of LD, BCKD and CrossKD: 16 on 8 GPUs."""


def growth_warning(
    growing: str,
    images: int,
    remedy: str,
    *,
    published: int = PUBLISHED_IMAGES,
    exponent: float = 1.0,
) -> str | None:
    """Of losses that grow with the images of a process: what to say about their weights.

    Args:
        growing: which losses these are, and what they are, as a clause.
        images: in the batch of this process.
        remedy: what to do, besides training with the published number.
        published: images per process that the weights are for.
        exponent: the losses grow as ``images ** exponent``.

    Returns:
        None if the two numbers are equal.
    """
    if images == published:
        return None
    factor = (images / published) ** exponent
    return (
        f"{growing} of a process, and the weights are for {published}. With the {images} here they "
        f"weigh {factor:.3g} times as much: {remedy}, or train with {published} images per process"
    )
