"""Options of the training loop, for tools/lazyconfig_train_net.py and for detectron2's script.

detectron2's script does not know `max_minutes`, `skip_bad_steps`, `clip_grad`, `accumulate`,
`normalize`, `amp.dtype`, `channels_last`, `quantization_aware`, `compile_losses`, `init_partial`,
`overwrite`, `diagnostics` and `maps`; it trains without clipping, one batch per iteration, in fp16
where amp is enabled, with maps in torch's order, from any file, over what is there, and rounds,
compiles, measures and draws nothing. It refuses `checkpointer.best`.
"""

train = dict(
    output_dir="./output",
    overwrite=False,  # give up a run that output_dir holds
    init_checkpoint="",
    init_partial=False,  # true starts from a file of which less than half fits
    max_iter=90000,
    max_minutes=0,  # after which the run saves, ends and can be resumed; 0 is no limit
    seed=-1,  # -1 is a different one each time
    skip_bad_steps=0,  # so many steps that are not finite are left out before one ends the run
    amp=dict(enabled=False, dtype="float16"),
    channels_last=False,  # maps in memory as (N, H, W, C): faster with amp, but on small detectors
    quantization_aware=False,  # the student computes as if in 8-bit integers
    compile_losses=False,  # by torch.compile, at the first step: fewer kernels on a GPU
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    clip_grad=None,  # dict(max_norm=35.0, norm_type=2.0)
    accumulate=1,  # batches per iteration
    # What losses are divided by: counts of each "batch", or means over all of an "iteration".
    normalize="batch",
    checkpointer=dict(period=5000, max_to_keep=100),  # best="bbox/AP": model_best.pth, too
    eval_period=5000,
    log_period=20,
    # Of distillations: iterations between two looks at why it helps or not, and images of the test
    # set on which the student's distances to teacher and labels are measured in each evaluation.
    diagnostics=dict(period=0, images=0),
    # Of distillations: iterations between pictures of maps for TensorBoard, see `dense-kd maps`.
    maps=dict(period=0, images=2, figures=["bckd"]),
    device="cuda",
)
