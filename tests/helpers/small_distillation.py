"""The options of a distillation that takes seconds."""

SMALL = dict(
    student="gfl_small4",
    teacher="gfl_small8",
    batch_size=4,
    short_edge=64,
    iterations=2,
    teacher_iterations=4,
    checkpoint_period=1,
    device="cpu",
)
