"""Schedules of the learning rate."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler


def step_schedule(
    num_updates, milestones, warmup_length=1000, warmup_factor=0.001, warmup_method="linear"
):
    """Divide the learning rate by 10 at each milestone, after a warm-up of some iterations."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[1.0, 0.1, 0.01], milestones=milestones, num_updates=num_updates
        ),
        warmup_length=warmup_length / num_updates,
        warmup_factor=warmup_factor,
        warmup_method=warmup_method,
    )


def one_cycle(warmup_share=0.1):
    """Rise to the full learning rate over the first share of training, then fall as a cosine."""
    return L(WarmupParamScheduler)(
        scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
        warmup_length=warmup_share,
        warmup_factor=0.04,
    )


# COCO with batches of 16: 12 and 24 epochs.
lr_multiplier_1x = step_schedule(90000, [60000, 80000])
lr_multiplier_2x = step_schedule(180000, [120000, 160000])
lr_multiplier_3x = step_schedule(270000, [210000, 250000])

# mmdetection's: 8 and 11 of 12 epochs, 16 and 22 of 24, 27 and 33 of 36.
mmdet_1x = step_schedule(90000, [60000, 82500], warmup_length=500)
mmdet_2x = step_schedule(180000, [120000, 165000], warmup_length=500)
mmdet_3x = step_schedule(270000, [202500, 247500], warmup_length=500)
mmdet_1x_long_warmup = step_schedule(90000, [60000, 82500], warmup_length=1000)
# FCOS begins with a third of the learning rate.
_FCOS_WARMUP = dict(warmup_length=500, warmup_factor=1 / 3, warmup_method="constant")
mmdet_fcos_1x = step_schedule(90000, [60000, 82500], **_FCOS_WARMUP)
mmdet_fcos_2x = step_schedule(180000, [120000, 165000], **_FCOS_WARMUP)
# PGD's batches are twice as large; its teachers' learning rate drops after 24 and 33 of 36 epochs.
pgd_1x = step_schedule(45000, [30000, 41250], warmup_length=500)
pgd_3x = step_schedule(135000, [90000, 123750], warmup_length=500)
