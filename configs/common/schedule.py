from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler


def step_schedule(num_updates, milestones, warmup_length=1000):
    """Divide the learning rate by 10 at each milestone, after a linear warm-up."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[1.0, 0.1, 0.01], milestones=milestones, num_updates=num_updates
        ),
        warmup_length=warmup_length / num_updates,
        warmup_factor=0.001,
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
