"""The teacher: a trained detector that the student learns from and that never changes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from detectron2.structures import ImageList, Instances
from torch import Tensor

from . import compat
from .checkpoint import load_strictly
from .detectors import DenseDetector
from .detectors.base.folding import fold_norms
from .detectors.base.heads import Maps
from .detectors.base.images import converted, padding
from .options import check_choices, check_flags, check_positive, check_unused
from .outputs import DensePass, Tap, Targets
from .teacher_cache import (
    CACHE_PRECISIONS,
    CACHE_UNITS,
    IN_MEMORY,
    Fingerprint,
    TeacherCache,
    key_of,
)
from .teacher_cache.parts import PREDICTIONS, joined, parts_of, split

logger = logging.getLogger(__name__)

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Teacher:
    """A frozen detector beside the model, not in it.

    It is a plain object and no ``nn.Module``, so it is in no state dict, optimizer, DDP bucket or
    EMA copy (a deep copy of what holds it shares it). It is always in eval mode, its parameters
    never require gradient, and it follows the device of the images. Its file is read by
    :meth:`load`, at the latest in the first training step: a distilled student is evaluated and
    exported without it.
    """

    def __init__(
        self,
        model: DenseDetector,
        weights: str | None,
        *,
        precision: str | None = None,
        head_precision: str | None = None,
        fold_norms: bool = False,
        channels_last: bool = False,
        compile: bool = False,
        cache: str | None = None,
        cache_gb: float = 4.0,
        cache_precision: str = "exact",
        cache_by: str = "image",
    ):
        """
        Args:
            model: a detector of ``dense_kd.detectors``.
            weights: its checkpoint, for :func:`dense_kd.checkpoint.read_weights`; None if
                ``model`` holds its trained parameters already.
            precision: "float32", "bfloat16" or "float16" to run it in, whatever the student
                does; None follows the student's autocast.
            head_precision: the same, of its head alone, also where CrossKD runs the student's
                features through it; None is ``precision``.
            fold_norms: before the first pass, make batch norms part of the convolutions before
                them: the same predictions up to rounding, in fewer passes over the maps. ``model``
                is changed, its state dict too.
            channels_last: keep its weights and maps in the order (N, H, W, C) in memory, which
                convolutions on many processors are faster with: the same up to rounding.
            compile: let ``torch.compile`` make one program of backbone and pyramid in the first
                pass, and one more for each other size of the batch, until torch makes one for all
                sizes; each takes a minute or so. Not with torch before 2.2.
            cache: keep what the methods read of the passes of training, by image, and do not run
                it on the same image again: "memory", in this process, or a folder that runs with
                other seeds, students and methods share. See :class:`TeacherCache`.
            cache_gb: its size in gigabytes (1e9 bytes); what comes when it is full is not kept.
            cache_precision: "exact", or "float16", which takes half the place. A run with "exact"
                does not use what another has kept in its folder in float16, and replaces it.
            cache_by: "image", or "batch": of a whole batch, as it was computed. In one run no batch
                comes again, but runs with the same seed and data and other methods see the same
                ones, whatever augmentations there are, so this needs a folder.
        """
        check_flags(fold_norms=fold_norms, channels_last=channels_last, compile=compile)
        if compile:
            compat.check_compiles_modules()
        check_positive(cache_gb=cache_gb)
        check_choices(
            ("cache_precision", cache_precision, CACHE_PRECISIONS),
            ("cache_by", cache_by, CACHE_UNITS),
        )
        if cache is None:
            unused = dict(cache_gb=cache_gb, cache_precision=cache_precision, cache_by=cache_by)
            check_unused(Teacher, "cache=None", **unused)
        elif not isinstance(cache, str) or not cache.strip():
            raise ValueError(f"cache={cache!r}: expected 'memory', a folder, or None")
        elif cache == IN_MEMORY and cache_by == "batch":
            raise ValueError(
                "cache_by='batch' with cache='memory': in one process no batch comes again; give a "
                "folder, which other runs find it in, or leave cache_by out"
            )
        if not isinstance(model, DenseDetector):
            raise TypeError(
                f"the teacher's model is a {type(model).__module__}.{type(model).__name__}, "
                "expected a detector of dense_kd.detectors; from_detectron2 converts stock configs"
            )
        if weights == "":
            raise ValueError(
                "the teacher has no weights (weights=''), so the student would learn from noise; "
                "give its checkpoint, as in model.teacher.weights=output/teacher/model_final.pth"
            )
        for name, value in (("precision", precision), ("head_precision", head_precision)):
            if value is not None and value not in PRECISIONS:
                raise ValueError(f"{name}={value!r}: expected one of {tuple(PRECISIONS)}")
        if weights is None and _is_fresh(model):
            logger.warning(
                f"the teacher {type(model).__name__} has no weights (weights=None) and looks as "
                "it was built: the student would learn from noise"
            )
        self.model = model.eval().requires_grad_(False)
        self.weights = weights
        self.precision = precision
        self.head_precision = precision if head_precision is None else head_precision
        self.fold_norms = fold_norms
        self.channels_last = channels_last
        self.compile = compile
        self.folded: list[str] = []  # the names of convolutions, from the first pass on
        self.cache: TeacherCache | None = None
        if cache is not None:
            size = cache_gb * 1e9
            self.cache = TeacherCache(cache, max_bytes=size, precision=cache_precision, by=cache_by)
        self._fingerprint = Fingerprint()
        self._arranged = False
        self.loaded = weights is None
        self.file_classes: list[str] | None = None  # that the file names

    def load(self) -> None:
        """Read the weights, strictly, unless that is done.

        Raises:
            CheckpointError: see :func:`dense_kd.checkpoint.load_strictly`.
        """
        if self.loaded or self.weights is None:
            return
        self.file_classes = load_strictly(self.model, self.weights)
        self.loaded = True
        logger.info(f"Loaded the teacher {type(self.model).__name__} from {self.weights}")

    def run(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        student: DenseDetector,
        taps: Iterable[Tap] = (),
        *,
        predictions: bool = True,
        features: bool = True,
        cached: bool = False,
    ) -> DensePass:
        """The teacher's pass over a batch, without gradient.

        Args:
            batched_inputs: the batch.
            images: the same batch, preprocessed by ``student``.
            student: whose preprocessed images serve if the teacher normalises alike.
            taps: tower features to keep.
            predictions: make them, or leave out what of the head is not needed for ``taps``.
            features: whether they are read; a cache does not keep them otherwise, and the pass
                does not have them then.
            cached: use the cache, if there is one: for batches of training, which come again.
        """
        self.load()
        if self.model.device != images.tensor.device:
            self.model.to(images.tensor.device)
        if cached and self.cache is not None:
            parts = parts_of(taps := tuple(taps), predictions, features)
            dense = self._run_cached(self.cache, batched_inputs, images, student, taps, parts)
            if not features:
                dense.leave_out_features()
            return dense
        return self._run(self._images(batched_inputs, images, student), taps, predictions)

    def detect(
        self, batched_inputs: list[dict[str, Any]], input_format: str
    ) -> list[dict[str, Any]]:
        """What it detects in a student's batches, which it sees and runs as in :meth:`run`.

        Args:
            batched_inputs: the batch.
            input_format: of its images, the student's.
        """
        self.load()
        with torch.no_grad():
            dense = self._run(self.preprocess_image(batched_inputs, input_format))
            return self.model.results(dense, batched_inputs)

    def preprocess_image(
        self, batched_inputs: list[dict[str, Any]], input_format: str
    ) -> ImageList:
        """A batch whose images are in ``input_format``, as the teacher is used to them."""
        batched_inputs = converted(batched_inputs, input_format, self.model.input_format)
        return self.model.preprocess_image(batched_inputs)

    def resume(
        self,
        features: list[Tensor],
        taps: Mapping[str, list[Tensor]],
        depth: int | Mapping[str, int],
        image_sizes: list[tuple[int, int]],
        priors: list[Tensor] | None = None,
    ) -> DensePass:
        """Predict from tower features with the frozen head; gradients reach ``taps``.

        Args:
            features: L x (N, C, Hl, Wl), whose sizes give the priors.
            taps: {"cls": L x (N, C, Hl, Wl), "bbox": the same}.
            depth: of the taps, see ``TowerHead.resume``.
            image_sizes: N x (height, width).
            priors: of a pass with these features, which are made anew otherwise.
        """
        with in_precision(features[0].device, self.head_precision):
            outputs = self.model.head.resume(taps, depth)
            return self.model.dense_pass(features, outputs, image_sizes, priors)

    @torch.no_grad()
    def assign(
        self, dense: DensePass, ground_truth: list[Instances], classes: Tensor | None = None
    ) -> Targets:
        """What the teacher's assigner makes of the student's ground truth.

        For methods whose two sides both come from the teacher's head, so that the student's own
        targets do not fit. Objects have the teacher's classes there, and those of a class without a
        counterpart count as class 0: assigners that look at class scores (DDOD's) look at those of
        class 0 then, and only ``foreground``, ``valid`` and ``boxes`` mean something.
        ``normalizer`` is that of the batch.

        Args:
            dense: of :meth:`run`.
            ground_truth: N Instances with gt_boxes and gt_classes.
            classes: (K of the student,) the teacher's class of each, see
                :func:`.methods.base.class_maps.counterparts`; None if they are the same.
        """
        if classes is not None:
            ground_truth = [
                Instances(
                    instances.image_size,
                    gt_boxes=instances.gt_boxes,
                    gt_classes=classes[instances.gt_classes],
                )
                for instances in ground_truth
            ]
        targets = self.model.targets(dense, ground_truth)
        targets.normalizer = self.model.batch_normalizer(targets)
        return targets

    def _run(
        self, images: ImageList, taps: Iterable[Tap] = (), predictions: bool = True
    ) -> DensePass:
        self.model.eval()
        self._arrange()
        with torch.no_grad():
            maps = self._maps(images.tensor, taps, predictions)
            with in_precision(images.tensor.device, self.head_precision):
                return self.model.pass_of(maps, images.image_sizes)

    def _maps(self, images: Tensor, taps: Iterable[Tap], predictions: bool) -> Maps:
        with in_precision(images.device, self.precision):
            features = self.model.pyramid(self._ordered(images))
        with in_precision(images.device, self.head_precision):
            if self.head_precision == "float32":
                features = [level.float() for level in features]
            return self.model.maps_of_head(features, taps, predictions=predictions)

    def _run_cached(
        self,
        cache: TeacherCache,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        student: DenseDetector,
        taps: tuple[Tap, ...],
        parts: list[str],
    ) -> DensePass:
        self.model.eval()
        self._arrange()

        def run(missing: list[int]) -> dict[str, dict[str, list[Tensor]]]:
            tensor = self._images(batched_inputs, images, student).tensor
            if len(missing) < len(tensor):
                tensor = torch.stack([tensor[index] for index in missing])
            return split(self._maps(tensor, taps, PREDICTIONS in parts), parts)

        device = images.tensor.device
        with torch.no_grad():
            context = self._context(images.tensor, student)
            keys = [key_of(inputs["image"], context) for inputs in batched_inputs]
            maps = joined(cache.maps(keys, parts, run, device), taps)
            maps.features = [self._ordered(level) for level in maps.features]
            maps.taps = {t: [*map(self._ordered, levels)] for t, levels in maps.taps.items()}
            with in_precision(device, self.head_precision):
                return self.model.pass_of(maps, images.image_sizes)

    def _context(self, images: Tensor, student: DenseDetector) -> str:
        """All that the maps of an image depend on besides itself."""
        device = images.device.type
        computed_in = []
        for precision in (self.precision, self.head_precision):
            with in_precision(images.device, precision):
                computed_in.append(str(compat.active_autocast(device)))
        return repr((
            compat.versions(),
            self._fingerprint.of(self.model),
            self.channels_last,
            device,
            computed_in,
            student.input_format,
            tuple(images.shape[-2:]),
        ))  # fmt: skip

    def _ordered(self, maps: Tensor) -> Tensor:
        """(N, C, H, W), in the order in memory that the teacher works in."""
        return maps.contiguous(memory_format=torch.channels_last) if self.channels_last else maps

    def _arrange(self) -> None:
        """What is done to the model once, when its weights are there."""
        if self._arranged:
            return
        self._arranged = True
        if self.fold_norms:
            self.folded = fold_norms(self.model)
            logger.info(f"Folded {len(self.folded)} norms of the teacher into their convolutions")
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compile:
            self.model.backbone.compile()

    def _images(
        self, batched_inputs: list[dict[str, Any]], images: ImageList, student: DenseDetector
    ) -> ImageList:
        model = self.model
        if (
            model.image_input == student.image_input
            and model.pixel_mean.dtype == student.pixel_mean.dtype
            and padding(model.backbone) == padding(student.backbone)
        ):
            return images
        own = self.preprocess_image(batched_inputs, student.input_format)
        if own.tensor.shape[-2:] != images.tensor.shape[-2:]:
            raise ValueError(
                f"the teacher pads this batch to {tuple(own.tensor.shape)}, the student to "
                f"{tuple(images.tensor.shape)}; use backbones with equal size_divisibility"
            )
        return own

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self

    def __repr__(self) -> str:
        return f"Teacher({type(self.model).__name__}, weights={self.weights!r})"


def in_precision(
    device: torch.device, precision: str | None
) -> contextlib.AbstractContextManager[Any]:
    """What a network runs in: one of :data:`PRECISIONS`, or None for that of who calls it."""
    if precision is None:
        return contextlib.nullcontext()
    return compat.autocast_to(device, None if precision == "float32" else PRECISIONS[precision])


def _is_fresh(model: DenseDetector) -> bool:
    """Whether all classes have the bias that they are initialised with, as after no step."""
    bias = model.head.cls_score.bias
    return bias is not None and bias.numel() > 1 and bool((bias == bias[0]).all())
