"""What a distillation costs: its parts, timed side by side in one process, and counted.

``dense-kd benchmark`` runs it, :func:`.measuring.benchmark` is the same in Python. The contract:

**What runs.** Each config is a distillation. Detectors are built as the config says, once for all
configs that have equal ones; no file of weights is read. Weights are random, of a fixed seed, and
scaled so that activations and scores are of the size that trained ones have, since how many boxes
an evaluation suppresses depends on them (:mod:`.random_weights`). Learning rates are 0, so that
every step finds the same weights; the optimizer does all its work nevertheless. Batches are drawn
(:mod:`.batches`), or with ``--data`` are the first one of the config's own training data, and one
batch serves for all rounds. With ``dataloader.unlabelled`` there are images without labels beside
them, in the ratio of the config. A teacher of random weights finds no objects in them, so what
methods make of those costs more in a training.

**What is timed**, each by the clock of the wall, with all that the device was asked for done before
and after:

- ``data``: the next batch of ``dataloader.train``, in this process; with ``--data`` only. It is in
  no ratio, since workers load beside the steps.
- ``student``: an iteration of the student without a teacher, as the trainer of ``dense-kd train``
  makes it: forward, backward, norm of the gradients, look for numbers that are not finite, step of
  the optimizer. Without a teacher it would see the labelled images alone. Autocast, gradient
  scaling and clipping are those of the config.
- ``teacher``: the teacher's pass, on images that are preprocessed already, as in the distillation.
  With ``model.teacher.cache`` that is what a hit costs, here and in the step: the batch was there
  before the rounds begin. Where no detector is the teacher, this part is not there and counts as
  nothing.
- ``NAME teacher``: the pass of a teacher that a method brings along
  (:class:`dense_kd.methods.FromTeacher`), which counts as the teacher's wherever that is counted. A
  network that is no detector belongs to its method.
- ``step``: an iteration of the distillation; nothing of it is left out.
- ``evaluation``: what the student detects in the batch; neither loading nor scoring.
- ``NAME forward`` and ``NAME backward``: a method's own work between two passes that are there: its
  losses, and their gradients down to the passes and to its own parameters. Boxes that no loss of
  the student decoded are decoded by each method anew, so several together cost less than their sum.

**How.** Some rounds that are not counted come first. Then a round runs every part of every config
once, every second round in reverse. Numbers are medians with the quartiles of the rounds. The
ratios are taken round by round: **overhead** = step / (student + teacher), and **price** = step /
student. The collection of garbage is off within a round.

**What is counted**, since it does not depend on the clock:

- FLOPs of matrix products and convolutions (``torch.utils.flop_counter``);
- the peak of memory of each part above what was allocated before it, without the gradients of the
  step before (:mod:`.memory`). With the weights of both detectors, **memory** is the ratio of that
  of a step to that of the student's step and the teacher's pass, as far as the methods get it;
- kernels, times that the host waits (stops) and uploads, on a pretended GPU (:mod:`.pretended`),
  forward and backward without the optimizer, of two images of 128 x 128 pixels (:mod:`.counting`).
  What a distillation adds is step - student - teacher, which is more than the methods' own work:
  gradients that come from two sides are summed.

FLOPs and kernels of a teacher that is compiled are those that it has without that.

Not measured: several processes, workers of loaders, the time of compilation, evaluators.
"""
