"""What ``tools/lazyconfig_train_net.py`` does: train or evaluate what a LazyConfig describes."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..checkpoint import AtomicCheckpointer, load_strictly
from ..checkpoint.description import ENTRY
from ..diagnostics.hook import Diagnostics
from ..distiller import Distiller
from ..evaluation.text import shown
from .building import build, build_model, build_optimizer, build_training_model
from .checks import check_run
from .checks.data import check_file_classes, check_teacher_classes
from .checks.tree import select
from .evaluation import Evaluation, rounding_remark
from .evaluation_hook import EvaluationHook
from .loaders import load_training
from .measuring import EvaluationDistances
from .preemption import LeftEvaluation, Preemption
from .progress import ProgressBar, wants_bar
from .replay.recording import described_step
from .run_files import MetricsWriter, save_config
from .state import run_folder
from .state.described_run import DescribedRun
from .state.keeping import BestCheckpoint, LatestCheckpoints
from .state.run_summary import read_summary
from .state.stored_config import StoredConfig
from .state.stored_teachers import ENTRY as TEACHERS
from .state.stored_teachers import StoredTeachers, files_of_teachers
from .stopping import Stop
from .trainer import make_trainer
from .training_maps import TrainingMaps, fixed_images

logger = logging.getLogger("dense_kd")


def do_test(
    cfg: DictConfig, model: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> dict[str, Any]:
    """Evaluate ``model`` on ``cfg.dataloader.test`` and print the metrics; {task: metrics}."""
    return Evaluation(cfg).run(model)


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate ``cfg.train.init_checkpoint`` in ``cfg.model``; of a Distiller, the student.

    In floats, also weights of a training with ``quantization_aware``, which is said.
    """
    check_run(cfg, "evaluate")
    model = build_model(cfg)
    student = model.student if isinstance(model, Distiller) else model
    names = load_strictly(student, cfg.train.init_checkpoint)
    evaluation = Evaluation(cfg)
    if getattr(student, "class_names", None) is None:
        check_file_classes(cfg, "evaluate", cfg.train.init_checkpoint, names)
    results = evaluation.run(_parallel(cfg, model))
    file = cfg.train.init_checkpoint
    saved = read_summary(file).config if os.path.isfile(file) else None  # public ones have none
    remark = rounding_remark(cfg, saved)
    if remark:
        logger.warning(remark)
    return results


def evaluate_teacher(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate the teacher of ``cfg.model`` as the distillation runs it, on the student's images: a
    wrong file, or a wrong channel order, shows here before it costs a run."""
    check_run(cfg, "evaluate_teacher")
    teacher = build(cfg.model.teacher, "model.teacher")
    teacher.load()
    teacher.model.to(cfg.train.device)
    input_format = build(cfg.model.student, "model.student").input_format
    evaluation = Evaluation(cfg, "evaluate_teacher")
    check_teacher_classes(cfg, "evaluate_teacher", teacher)
    return evaluation.run(functools.partial(teacher.detect, input_format=input_format))


def train(
    args: argparse.Namespace,
    cfg: DictConfig,
    progress: str = "lines",
    more_hooks: Sequence[hooks.HookBase] = (),
) -> dict[str, Any]:
    """Train ``cfg.model``.

    Args:
        args: with ``resume``, as of ``detectron2.engine.default_argument_parser``.
        cfg: ``model``, ``dataloader.{train,test,evaluator}`` and maybe ``unlabelled``,
            ``optimizer``, ``lr_multiplier`` and ``train``, as for detectron2's script, where
            ``train`` may also hold ``clip_grad`` (max_norm, norm_type), ``accumulate`` (batches per
            iteration), ``amp.dtype``, ``channels_last`` (maps lie in memory as (N, H, W, C), which
            convolutions in half precision are faster with), ``compile_losses`` (by
            ``torch.compile``), ``init_partial`` (start from a file of which little fits),
            ``overwrite`` (give up the run that ``output_dir`` holds),
            ``diagnostics.period`` (iterations between the measurements of
            :class:`dense_kd.diagnostics.hook.Diagnostics`; 0 is none), ``diagnostics.images`` (of
            the test set, on which distances are measured at each evaluation, see
            :class:`.measuring.EvaluationDistances`; 0 is none), ``max_minutes`` (after which the
            run saves and ends, and can be resumed; 0 is no limit), ``skip_bad_steps`` (that are
            left out, see :class:`.trainer.Trainer`), ``quantization_aware`` (the student computes
            as if in 8-bit integers, also in the evaluations of the training, see
            :class:`dense_kd.quantization.FakeQuantization`), and
            ``maps`` (period, images and figures of
            :class:`.training_maps.TrainingMaps`).
        progress: one of :data:`.progress.MODES`.
        more_hooks: called after those of this function.

    Returns:
        the metrics of the last evaluation, {} if there was none.

    Raises:
        RunError: something is wrong with the config; or ``output_dir`` holds a run that is
            neither resumed nor overwritten, or cannot be resumed with this config.
        FloatingPointError: losses, gradients or what is to be saved are not finite.
        Preempted: it was told to stop, by one of :data:`.stopping.SIGNALS` or as
            ``train.max_minutes`` are over; the iteration was finished and saved.
    """
    check_run(cfg, "train", resume=args.resume)
    with Stop(cfg.train.get("max_minutes", 0)) as stop:
        return _train(args, cfg, progress, more_hooks, stop)


def _train(
    args: argparse.Namespace,
    cfg: DictConfig,
    progress: str,
    more_hooks: Sequence[hooks.HookBase],
    stop: Stop,
) -> dict[str, Any]:
    teachers = files_of_teachers(cfg)
    remarks = run_folder.remarks(cfg, args.resume, teachers)
    if remarks:
        logger.warning(remarks)
    config = StoredConfig(cfg)
    model = build_training_model(cfg)
    logger.info(f"Model:\n{model}")
    distiller = model if isinstance(model, Distiller) else None
    if distiller:
        if select(cfg, "dataloader.unlabelled") is not None:
            distiller.check_unlabelled()
        distiller.load_teacher()  # a wrong file stops the run here
    optimizer = build_optimizer(cfg, model)
    loader = load_training(cfg).loader
    evaluated = select(cfg, "dataloader.evaluator") is not None
    evaluation = Evaluation(cfg, "train") if evaluated else None
    measured = None
    if distiller:
        for teacher in distiller.teachers.values():
            check_teacher_classes(cfg, "train", teacher)
        number = select(cfg, "train.diagnostics.images", 0)
        measured = EvaluationDistances(cfg, distiller, number) if number else None

    mapped = fixed_images(cfg) if select(cfg, "train.maps.period", 0) else {}

    model = _parallel(cfg, model)
    trainer = make_trainer(cfg.train, model, loader, optimizer)
    checkpointer = AtomicCheckpointer(
        model,
        cfg.train.output_dir,
        partial=cfg.train.get("init_partial", False),
        trainer=weakref.proxy(trainer),
        config=config,
    )
    checkpointer.add_checkpointable(ENTRY, DescribedRun(cfg))
    if teachers:
        checkpointer.add_checkpointable(TEACHERS, StoredTeachers(teachers))
    trainer.recorder.keep_in(cfg.train.output_dir, functools.partial(described_step, cfg, teachers))
    main = comm.is_main_process()
    period = select(cfg, "train.diagnostics.period", 0)
    results: dict[str, Any] = {}

    options = OmegaConf.to_container(cfg.train.checkpointer, resolve=True)
    metric = options.pop("best", None)
    latest = LatestCheckpoints(checkpointer, **options) if main else None
    best = None
    if metric and evaluation:
        best = BestCheckpoint(
            checkpointer,
            metric,
            options.get("file_prefix", "model"),
            lower_is_better=metric in evaluation.lower_is_better,
        )
        if evaluation.metrics is not None:
            best.check(evaluation.metrics)
    resumed = args.resume and checkpointer.has_checkpoint()
    if not resumed:
        _load_initial(checkpointer, distiller, cfg)
    # What may fail has come before an earlier run is given up.
    PathManager.mkdirs(cfg.train.output_dir)
    run_folder.clear(cfg)

    def save(iteration: int) -> str:
        with trainer.saving_all_processes():
            return latest.save_now(iteration) if latest else ""

    preemption = Preemption(stop, save)

    def test(evaluation: Evaluation) -> dict[str, Any]:
        try:
            results.update(evaluation.run(model, preemption.leaves_evaluation))
        except LeftEvaluation:
            preemption.end()
        if best:
            best.consider(results, trainer)
        if measured is not None:
            found = measured.run()
            if comm.is_main_process():
                results["diag"] = found
                ap = results.get("bbox", {}).get("AP")
                logger.info(
                    "Mean L1 distance of the student's class scores: "
                    f"{found['distance_teacher']:.4g} to the teacher, "
                    f"{found['distance_truth']:.4g} to the labels"
                    + ("" if ap is None else f"; AP {shown(ap)}")
                )
        return results

    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            Diagnostics(model, period) if period else None,
            TrainingMaps(model, mapped, folder=cfg.train.output_dir, **cfg.train.maps)
            if mapped
            else None,
            latest,
            preemption,
            EvaluationHook(
                cfg.train.eval_period, functools.partial(test, evaluation), cfg.train.output_dir
            )
            if evaluation
            else None,
            MetricsWriter(cfg.train.output_dir, cfg.train.max_iter, cfg.train.log_period)
            if main
            else None,
            ProgressBar() if main and wants_bar(progress) else None,
            *more_hooks,
        ]
    )
    if resumed:  # with what the hooks keep
        checkpointer.resume_or_load("", resume=True)
        if best and main:
            best.resume()
        if distiller:
            distiller.prepare_training()
    # The checkpoint holds the iteration that had just finished.
    start = trainer.iter + 1 if resumed else 0
    if main and start < cfg.train.max_iter:
        save_config(cfg, os.path.join(cfg.train.output_dir, "config.yaml"))
    trainer.train(start, cfg.train.max_iter)
    for teacher in distiller.teachers.values() if distiller else ():
        if teacher.cache:
            logger.info(teacher.cache.report())
    return results


def _load_initial(
    checkpointer: AtomicCheckpointer, distiller: Distiller | None, cfg: DictConfig
) -> None:
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=False)
    if distiller:
        distiller.prepare_training()


def _parallel(cfg: DictConfig, model: nn.Module) -> nn.Module:
    options = OmegaConf.to_container(cfg.train.ddp, resolve=True)
    if torch.device(cfg.train.device).type == "cpu":
        options["device_ids"] = None
    return create_ddp_model(model, **options)
