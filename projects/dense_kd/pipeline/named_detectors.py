"""Detectors by name, ``gfl_r50``: a detector of ``configs/`` on a backbone of ``configs/``."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from ..checkpoint import read_content
from ..checkpoint.description import description_of
from ..config import config_folder, find_config, get_config, get_config_file
from ..description import build_described
from ..recipes import PUBLISHED

__all__ = ["NamedDetector", "detector_names", "find_detector", "named_detector"]

SMALL = "small"
_SMALL_WIDTH = 16
_SMALL = re.compile(rf"{SMALL}(\d*)")
# Variants of one paper (pgd_..., voc_..., ..._tricks_...) are no names.
_RECIPE_OF_FILES = "gfl/r50_1x.py"  # a file says what was trained, not how
_FILES = (".pth", ".pkl")
_CONFIG = re.compile(r"(mmdet_)?([a-z]+\d+|swin_t)_(\d)x(_ms)?")


@dataclasses.dataclass(frozen=True)
class NamedDetector:
    """Where the parts of a detector come from.

    Attributes:
        name: as given.
        detector: such as "gfl"; "" of a config file.
        config: name of a config of this project, or a path, with its model and optimizer.
        backbone_config: the config whose backbone replaces that of ``config``; None keeps it.
        width: of the first stage of a small backbone; None of all others.
        checkpoint: a file that describes its detector; ``config`` has the recipe then.
    """

    name: str
    detector: str
    config: str
    backbone_config: str | None = None
    width: int | None = None
    checkpoint: str | None = None

    @property
    def published(self) -> str | None:
        """COCO weights of exactly this detector, if somebody published them."""
        if self.backbone_config is not None or self.checkpoint is not None:
            return None
        return PUBLISHED.get(self.config)

    @property
    def origin(self) -> str:
        """Which configs it is made of, in words."""
        if self.checkpoint is not None:
            return f"as the file says, in the recipe of {self.config}"
        if self.width is not None:
            return f"{self.config}, {self.width} channels wide"
        if self.backbone_config is None:
            return self.config
        return f"{self.config} on the backbone of {self.backbone_config}"


def detector_names() -> list[str]:
    """All names, each of a detector with each backbone; ``small`` may be followed by a width."""
    backbones = [*dict.fromkeys(backbone for _, backbone in _configs()), SMALL]
    return [f"{d}_{b}" for d in _detectors() for b in backbones]


def find_detector(name: str) -> NamedDetector:
    """What a name stands for.

    Args:
        name: DETECTOR_BACKBONE as of :func:`detector_names`, the name of a config of this project,
            the path of a config file, or that of a checkpoint that says what it is of.

    Raises:
        ValueError: there is no such detector; the message has close matches and all names.
    """
    if name.endswith(_FILES):
        if not Path(name).is_file():
            raise ValueError(f"{name}: there is no such file")
        return NamedDetector(name, "", _RECIPE_OF_FILES, checkpoint=name)
    if name.endswith((".py", ".yaml", ".yml")) or ("/" in name and find_config(name)):
        return _of_config(name)
    detector, _, backbone = name.partition("_")
    small = _SMALL.fullmatch(backbone)
    if detector in _detectors() and small:
        width = int(small[1] or _SMALL_WIDTH)
        if width > 0:
            return NamedDetector(name, detector, "quickstart/student.py", width=width)
    own = _configs().get((detector, backbone))
    if own:
        return NamedDetector(name, detector, own)
    donors = [file for (_, other), file in _configs().items() if other == backbone]
    if detector in _detectors() and donors:
        # Those of GFL take P6 from P5, as all detectors but RetinaNet and AutoAssign.
        donors.sort(key=lambda file: not file.startswith("gfl/"))
        return NamedDetector(name, detector, _configs()[detector, "r50"], donors[0])
    names = detector_names()
    near = difflib.get_close_matches(name, names, n=3)
    raise ValueError(
        f"{name!r} is no detector; "
        + (f"did you mean {' or '.join(near)}? " if near else "")
        + f"Expected DETECTOR_BACKBONE with a detector of {', '.join(_detectors())} and a backbone "
        f"of {', '.join(n.partition('_')[2] for n in names if n.startswith(names[0][:4]))} "
        f"(a narrow ResNet-18 for CPUs; {SMALL}32 is twice as wide), a config (.py), or a "
        "checkpoint that carries its config (.pth)"
    )


def named_detector(name: str, *, classes: list[str], from_scratch: bool = False) -> DictConfig:
    """The config of a detector for own classes.

    Args:
        name: see :func:`find_detector`.
        classes: their K names, in the order of the dataset.
        from_scratch: nothing of the backbone is fixed and batch norms learn, for a training that
            starts from random weights.

    Returns:
        ``model``, ``optimizer``, ``lr_multiplier`` and ``train`` of its own recipe, which is for
        batches of ``batch_size``; ``train.init_checkpoint`` is its COCO weights where they are
        published, else those of its backbone, and "" for ``from_scratch``. ``train.seed`` is 1.

    Raises:
        ValueError: there is no such detector, or the config is of none.
    """
    found = find_detector(name)
    cfg = _load(found)
    for part in ("model", "optimizer", "lr_multiplier", "train"):
        if cfg.get(part) is None:
            raise ValueError(f"{name} has no {part}; expected the whole config of a detector")
    if "student" in cfg.model or "num_classes" not in cfg.model:
        raise ValueError(
            f"{name} is not the config of a detector of dense_kd (model.num_classes); of a "
            "distillation, give the student's config"
        )
    cfg.model.num_classes, cfg.model.class_names = len(classes), list(classes)
    if found.published:
        cfg.train.init_checkpoint = found.published
    if from_scratch:
        cfg.train.init_checkpoint = ""
        _train_all(cfg.model)
    cfg.train.update(seed=1, output_dir="output", eval_period=0)
    parts = {part: cfg[part] for part in ("model", "optimizer", "lr_multiplier", "train")}
    parts["batch_size"] = OmegaConf.select(cfg, "dataloader.train.total_batch_size") or 16
    return DictConfig(parts, flags={"allow_objects": True})


def _load(found: NamedDetector) -> DictConfig:
    if found.width is not None:
        cfg = get_config(found.config)
        make = LazyConfig.load(
            get_config_file("common/models/small.py"), f"{SMALL}_{found.detector}"
        )
        cfg.model = make(width=found.width)
        return cfg
    if found.checkpoint is not None:
        cfg = get_config(found.config)
        cfg.model = _described_model(found.checkpoint)
        cfg.train.init_checkpoint = found.checkpoint
        return cfg
    if Path(found.config).is_absolute():
        return LazyConfig.load(found.config)
    cfg = get_config(found.config)
    if found.backbone_config is not None:
        donor = get_config(found.backbone_config)
        for part in ("backbone", "pixel_mean", "pixel_std", "input_format"):
            cfg.model[part] = donor.model[part]
        cfg.train.init_checkpoint = donor.train.init_checkpoint
    return cfg


def _described_model(file: str) -> DictConfig:
    """The LazyCall of the detector that a checkpoint describes, of allowed classes alone."""
    description = description_of(read_content(file), file)
    if description is None or description.model is None:
        raise ValueError(
            f"{file} does not say what it is a checkpoint of; give its detector by name or config, "
            "and the file as its weights"
        )
    build_described(description.model, file)  # refuses what a file may not name
    model = DictConfig(description.model, flags={"allow_objects": True})
    model.head.num_classes = "${..num_classes}"  # other classes reach the head, too
    return model


def _of_config(name: str) -> NamedDetector:
    file = find_config(name)
    if file is None:
        raise ValueError(_no_config(name))
    path, folder = Path(file).resolve(), config_folder().resolve()
    if folder not in path.parents:
        return NamedDetector(name, "", str(path))
    config = path.relative_to(folder).as_posix()
    detector = config.partition("/")[0]
    return NamedDetector(name, detector if detector in _detectors() else "", config)


def _no_config(name: str) -> str:
    try:
        return get_config_file(name)
    except FileNotFoundError as error:
        return str(error)


def _train_all(model: DictConfig) -> None:
    """Frozen stages and statistics are for weights that were trained before."""
    body = model.backbone.get("bottom_up", model.backbone)
    if "freeze_at" in body:
        body.freeze_at = 0
    for owner in (body.get("stem"), body):
        if owner is not None and "norm" in owner:
            owner.norm = "BN"
            return


@functools.cache
def _detectors() -> tuple[str, ...]:
    """Those that a config of this project has with ResNet-50, the backbone that all have."""
    return tuple(sorted({d for d, backbone in _configs() if backbone == "r50"}))


@functools.cache
def _configs() -> dict[tuple[str, str], str]:
    """{(detector, backbone): its config}; of several, the one of mmdetection, whose weights are
    published, and the longest schedule."""
    best: dict[tuple[str, str], tuple[tuple[bool, bool, int, bool], str]] = {}
    for file in sorted(config_folder().glob("*/*.py")):
        match = _CONFIG.fullmatch(file.stem)
        if match is None:
            continue
        name = f"{file.parent.name}/{file.name}"
        rank = (bool(match[1]), name in PUBLISHED, int(match[3]), bool(match[4]))
        key = (file.parent.name, match[2])
        if key not in best or rank > best[key][0]:
            best[key] = (rank, name)
    return {key: name for key, (_, name) in sorted(best.items())}
