"""Numbers that follow from images and devices."""

import pytest

from dense_kd.pipeline import derive
from dense_kd.pipeline.derive import Devices

CPU, GPUS = Devices("cpu", 1), Devices("cuda", 4)


def sizes(*numbers):
    return [number.value for number in numbers]


@pytest.mark.parametrize(
    "image, small, edges",
    [
        ((480, 640), False, [480, 800]),  # as they are
        ((640, 480), False, [480, 800]),  # whichever edge is the short one
        ((3000, 4000), False, [800, 1333]),  # COCO's
        ((100, 200), False, [320, 640]),  # enlarged
        ((480, 640), True, [320, 533]),
        ((96, 96), True, [96, 160]),
        ((480, 1920), False, [480, 1920]),  # the median image keeps its shape
    ],
)
def test_the_size_is_that_of_the_median_image_within_bounds(image, small, edges):
    images = [(32, 32), image, image, image, (5000, 5000)]
    assert sizes(*derive.image_size(images, small, None, None)) == edges


def test_a_size_that_is_given_is_taken():
    assert sizes(*derive.image_size([(480, 640)], False, 256, 300)) == [256, 300]
    assert sizes(*derive.image_size([(480, 640)], False, None, 500)) == [480, 500]


def test_a_long_edge_below_what_the_short_one_would_be_bounds_both_and_the_reason_says_it():
    short, long = derive.image_size([(600, 700)], True, None, 200)
    assert sizes(short, long) == [200, 200]
    assert short.reason == "at most the long edge, which is given; else 320"
    assert long.reason == "as given"


@pytest.mark.parametrize(
    "images, devices, batch",
    [(1000, CPU, 8), (16, CPU, 4), (3, CPU, 1), (1000, GPUS, 16), (20, GPUS, 4), (2, GPUS, 4)],
)
def test_a_batch_is_shared_by_the_devices_and_an_epoch_has_several(images, devices, batch):
    assert derive.batch_size(images, devices, None).value == batch


def test_the_learning_rate_follows_the_batch():
    number = derive.learning_rate(0.01, 16, 8, None)
    assert number.value == 0.005 and "0.01 for batches of 16" in number.reason
    assert derive.learning_rate(0.01, 16, 8, 0.3).value == 0.3


@pytest.mark.parametrize("images, epochs", [(100_000, 12), (1000, 24), (205, 100), (10, 100)])
def test_few_images_are_shown_more_often(images, epochs):
    number = derive.iterations(images, 5, None)
    assert number.value == epochs * images / 5 and f"{epochs} epochs" in number.reason


def test_the_warm_up_is_a_tenth_and_at_most_that_of_coco():
    assert [derive.warmup(n, None).value for n in (100, 90_000)] == [10, 500]


def test_a_warm_up_that_is_given_ends_with_the_training_and_the_reason_says_it():
    assert derive.warmup(100, 100) == derive.Number(100, "as given")
    assert derive.warmup(100, 200).value == 100
    assert derive.warmup(100, 200).reason == "200 as given, but no longer than the training"
