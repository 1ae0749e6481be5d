"""The template that every detector follows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from detectron2.modeling import Backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ... import compat
from ...lengths import zip_equal
from ...normalizers import at_least, mean_over_processes, over_iteration
from ...outputs import DensePass, Tap, Targets
from ..boxes.coders import bounded
from ..boxes.distributions import check_distribution_boxes, expected_distances
from .detections import best_candidates, suppress
from .ground_truth import checked_ground_truth
from .heads import HeadOutputs, Maps, TowerHead
from .images import as_rgb, checked_images, image_input
from .levels import check_anchors, check_head, pyramid_levels
from .options import check_options, checked_names


class DenseDetector(nn.Module, ABC):
    """A one-stage detector that predicts at every location of a feature pyramid.

    ``forward`` is a template over :meth:`preprocess_image`, :meth:`run`, :meth:`targets`,
    :meth:`losses` and :meth:`inference`; a detector implements :meth:`assign`, :meth:`losses` and,
    where its score is not the class score alone, :meth:`detection_scores`. It takes and returns
    what detectron2's models do: see its tutorial "Use Models".
    """

    training_buffers: tuple[str, ...] = ("loss_normalizer",)
    """Buffers that a resumed run needs and a trained model does not. They are not in the state
    dict, whose keys are detectron2's own, but ``dense_kd.engine.Trainer`` saves them."""

    optional_buffers: tuple[str, ...] = ()
    """Buffers in the state dict that are no weights but state of a training, such as counts since
    it began. A file of weights may lack them; they keep their values then, as they do in a run
    that starts from the file of another one."""

    assigns_by_predictions = False
    """Whether :meth:`assign` looks at predictions, so that another pass gives other targets."""

    trains_distribution = False
    """Whether the losses fit a head with ``reg_max``, see ``detectors/boxes/distributions.py``."""

    loss_normalizer: Tensor
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: TowerHead,
        head_in_features: list[str] | None = None,
        anchor_generator: nn.Module,
        box2box_transform: Any,
        num_classes: int,
        class_names: list[str] | None = None,
        loss_normalizer: float,
        loss_normalizer_momentum: float,
        loss_normalizer_sync: bool = False,
        count_empty_images: bool = False,
        test_score_thresh: float,
        test_topk_candidates: int,
        test_nms_thresh: float,
        max_detections_per_image: int,
        clip_before_nms: bool = False,
        pixel_mean: list[float],
        pixel_std: list[float],
        vis_period: int = 0,
        input_format: str = "BGR",
    ):
        """
        Args:
            backbone: gives {name: (N, C, Hl, Wl)}.
            head: predicts from the maps ``head_in_features``.
            head_in_features: names of the maps, finest first; all maps by default.
            anchor_generator: gives L Boxes for L maps.
            box2box_transform: ``get_deltas(priors, boxes)`` and ``apply_deltas(deltas, priors)``
                on (P, 4) tensors.
            num_classes: K.
            class_names: of the K classes, for methods that distil between different classes.
            loss_normalizer: start of the moving average that divides the losses.
            loss_normalizer_momentum: of the moving average of the number of positives;
                0 divides by the positives of the current batch.
            loss_normalizer_sync: average the number of positives over processes.
            count_empty_images: an image without positives counts as one in their number, as in
                mmdetection's detectors with anchors; otherwise only a batch without any does.
            test_score_thresh: detections below are dropped before NMS.
            test_topk_candidates: kept per image and level before NMS.
            test_nms_thresh: IoU of the class-wise NMS.
            max_detections_per_image: kept after NMS.
            clip_before_nms: clip boxes to the image and drop empty ones before NMS, as
                mmdetection does; detectron2 does it after.
            pixel_mean, pixel_std: per channel, in the order of ``input_format``.
            vis_period: log predictions on one training image every so many iterations; 0 is never.
            input_format: of the images, as detectron2's ``INPUT.FORMAT``: "BGR", "RGB", "L" (grey)
                or "YUV-BT.601".
        """
        super().__init__()
        check_options(
            num_classes=num_classes,
            loss_normalizer=loss_normalizer,
            loss_normalizer_momentum=loss_normalizer_momentum,
            loss_normalizer_sync=loss_normalizer_sync,
            count_empty_images=count_empty_images,
            test_score_thresh=test_score_thresh,
            test_topk_candidates=test_topk_candidates,
            test_nms_thresh=test_nms_thresh,
            max_detections_per_image=max_detections_per_image,
            clip_before_nms=clip_before_nms,
            vis_period=vis_period,
        )
        if not isinstance(head, TowerHead):
            raise TypeError(
                f"head is a {type(head).__module__}.{type(head).__name__}, expected a "
                "dense_kd TowerHead; dense_kd.detectors.from_detectron2 converts a stock model"
            )
        if head.num_classes != num_classes:
            raise ValueError(
                f"head.num_classes={head.num_classes} and num_classes={num_classes} differ; "
                "set both to the classes of the dataset"
            )
        self.backbone = backbone
        self.head = head
        head_in_features, strides = pyramid_levels(backbone, head_in_features)
        check_head(head, backbone, head_in_features)
        self.head_in_features = head_in_features
        self.strides = strides
        check_anchors(anchor_generator, strides, head.num_anchors)
        self.anchor_generator = anchor_generator
        self.box2box_transform = box2box_transform
        check_distribution_boxes(self)
        self.num_classes = num_classes
        self.class_names = checked_names(class_names, num_classes)

        self.loss_normalizer_momentum = loss_normalizer_momentum
        self.loss_normalizer_sync = loss_normalizer_sync
        self.count_empty_images = count_empty_images
        self.register_buffer("loss_normalizer", torch.tensor(float(loss_normalizer)), False)

        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image
        self.clip_before_nms = clip_before_nms

        self.vis_period = vis_period
        # Beside the buffers, to be compared with another detector's without asking a GPU.
        self.image_input = image_input(input_format, pixel_mean, pixel_std, backbone)
        self.input_format = self.image_input.input_format
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @property
    def device(self) -> torch.device:
        """Where the model is, and images are moved to."""
        return self.pixel_mean.device

    @property
    def num_anchors(self) -> int:
        """A, anchors per location."""
        return self.head.num_anchors

    @property
    def predicts_distribution(self) -> bool:
        """Whether ``DensePass.distribution`` is filled."""
        return self.head.reg_max is not None

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """
        Args:
            batched_inputs: N dicts of detectron2's DatasetMapper: "image" (C, H, W) in
                ``input_format``, in training "instances" with gt_boxes and gt_classes, in
                inference optionally "height" and "width" of the output.

        Returns:
            in training {loss name: scalar}, else N dicts {"instances": Instances}.
        """
        if self.training:
            ground_truth = self.ground_truth(batched_inputs)
            dense = self.run(self.preprocess_image(batched_inputs))
            losses = self.losses(dense, self.targets(dense, ground_truth))
            self.visualize_training(batched_inputs, dense)
            return losses
        return self.results(self.run(self.preprocess_image(batched_inputs)), batched_inputs)

    def results(
        self, dense: DensePass, batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """The detections of a pass over a batch, in the pixels of the images as they were."""
        results = []
        for instances, image, size in zip_equal(
            found=self.inference(dense), batch=batched_inputs, image_sizes=dense.image_sizes
        ):
            height, width = image.get("height", size[0]), image.get("width", size[1])
            results.append({"instances": detector_postprocess(instances, height, width)})
        return results

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Move the images to the model's device, normalise them and pad them to one batch.

        Raises:
            ValueError: an image is not what the detector takes, see :func:`checked_images`.
        """
        images = checked_images(batched_inputs, self.image_input, self.backbone)
        images = [(x.to(self.device) - self.pixel_mean) / self.pixel_std for x in images]
        return compat.batch_images([x.to(self.pixel_mean.dtype) for x in images], self.backbone)

    def ground_truth(self, batched_inputs: list[dict[str, Any]]) -> list[Instances]:
        """N Instances with gt_boxes and gt_classes, see :func:`checked_ground_truth`."""
        return checked_ground_truth(batched_inputs, self.num_classes, self.device)

    def run(
        self, images: ImageList, taps: Iterable[Tap] = (), *, predictions: bool = True
    ) -> DensePass:
        """Backbone and head on preprocessed images.

        Args:
            images: of :meth:`preprocess_image`.
            taps: (branch, depth) of the tower features to keep.
            predictions: make them; otherwise the pass has none, see ``DensePass``, and the head
                is run as far as its taps.
        """
        features = self.pyramid(images.tensor)
        maps = self.maps_of_head(features, taps, predictions=predictions)
        return self.pass_of(maps, images.image_sizes)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """L x (N, C, Hl, Wl): what the head sees of a preprocessed batch (N, C, H, W)."""
        features = self.backbone(images)
        return [features[name] for name in self.head_in_features]

    def maps_of_head(
        self, features: list[Tensor], taps: Iterable[Tap] = (), *, predictions: bool = True
    ) -> Maps:
        """What the head makes of a pyramid; arguments as of :meth:`run`."""
        outputs, collected = self.head.run(features, taps, predictions=predictions)
        return Maps(features, outputs if predictions else None, collected)

    def pass_of(self, maps: Maps, image_sizes: list[tuple[int, int]]) -> DensePass:
        """The pass whose maps these are.

        Args:
            maps: of :meth:`maps_of_head`, of N images.
            image_sizes: N x (height, width).
        """
        outputs = HeadOutputs() if maps.outputs is None else maps.outputs
        dense = self.dense_pass(maps.features, outputs, image_sizes)
        dense.taps = maps.taps
        if maps.outputs is None:
            dense.leave_out_predictions()
        return dense

    def dense_pass(
        self,
        features: list[Tensor],
        outputs: HeadOutputs,
        image_sizes: list[tuple[int, int]],
        priors: list[Tensor] | None = None,
    ) -> DensePass:
        """Arrange the maps of the head, from :meth:`run` or ``head.resume``, as a DensePass.

        Args:
            features: L x (N, C, Hl, Wl), the input of the head.
            outputs: of the head.
            image_sizes: N x (height, width) of the images without padding.
            priors: of these features, where they are known.
        """
        if priors is None:
            priors = [anchors.tensor for anchors in self.anchor_generator(features)]
        quality = [per_prediction(x, 1).squeeze(-1) for x in outputs.quality]
        if self.head.reg_max is not None:
            bins = self.head.reg_max + 1
            distribution = [
                per_prediction(x, 4 * bins).unflatten(2, (4, bins)) for x in outputs.distribution
            ]
            deltas = [expected_distances(x) for x in distribution]
        else:
            distribution = None
            deltas = [per_prediction(x, 4) for x in outputs.deltas]
        return DensePass(
            features=features,
            logits=[per_prediction(x, self.num_classes) for x in outputs.logits],
            deltas=deltas,
            distribution=distribution,
            quality=quality or None,
            quality_kind=self.head.quality_kind,
            priors=priors,
            strides=self.strides,
            num_anchors=self.num_anchors,
            image_sizes=list(image_sizes),
            decode=self.decode,
        )

    def decode(self, deltas: Tensor, priors: Tensor) -> Tensor:
        """Boxes (..., 4) from codes (..., 4) at priors (..., 4).

        Codes and boxes are :func:`bounded`, whatever the coder: areas that overflow give finite
        losses, such as an IoU of 0, whose gradients are NaN.
        """
        codes = bounded(deltas.reshape(-1, 4))
        boxes = self.box2box_transform.apply_deltas(codes, priors.reshape(-1, 4))
        return bounded(boxes).view_as(deltas)

    @abstractmethod
    def assign(self, dense: DensePass, ground_truth: list[Instances]) -> tuple[Tensor, Tensor]:
        """Labels (N, R) and matched boxes (N, R, 4), as ``Targets`` documents them."""

    def targets(self, dense: DensePass, ground_truth: list[Instances]) -> Targets:
        """Assign ground truth to predictions; in training this moves the loss normaliser on."""
        with torch.no_grad():
            labels, boxes = self.assign(dense, ground_truth)
            targets = Targets(labels, boxes, self.num_classes, self.loss_normalizer)
            targets.normalizer = self._moving_average(targets, self.loss_normalizer)
        self.log_positives(targets)
        return targets

    def targets_of_batch(self, dense: DensePass, ground_truth: list[Instances]) -> Targets:
        """:meth:`targets` whose normaliser is that of this batch alone: for methods, as nothing of
        the detector's own losses is moved on or logged."""
        targets = self._targets_aside(dense, ground_truth)
        targets.normalizer = self.batch_normalizer(targets)
        return targets

    def _targets_aside(self, dense: DensePass, ground_truth: list[Instances]) -> Targets:
        training, self.training = self.training, False
        try:
            return self.targets(dense, ground_truth)
        finally:
            self.training = training

    def log_positives(self, targets: Targets) -> None:
        """Log the positives per image as ``num_pos_anchors`` if this is a training run."""
        if self.training and compat.event_storage() is not None:  # reading it stalls a GPU
            num_foreground = targets.foreground.sum().item()
            compat.put_scalar("num_pos_anchors", num_foreground / len(targets.labels))

    def matched_boxes(self, dense: DensePass, targets: Targets) -> Tensor:
        """(P, 4): the predicted boxes of the positives, in the order of ``targets.foreground``."""
        deltas = torch.cat(dense.deltas, dim=1)  # (N, R, 4)
        priors = dense.all_priors.expand_as(deltas)
        return self.decode(targets.of_positives(deltas), targets.of_positives(priors))

    def count_positives(self, targets: Targets) -> Tensor:
        """Scalar: what this batch adds to the loss normaliser."""
        per_image = targets.foreground.sum(dim=1)  # (N,)
        return (per_image.clamp(min=1) if self.count_empty_images else per_image).sum()

    def batch_normalizer(self, targets: Targets) -> Tensor:
        """Scalar: the loss normaliser of this batch, at least 1, without a moving average; see
        :func:`over_iteration`."""
        count = self.count_positives(targets).to(self.loss_normalizer)
        average = mean_over_processes if self.loss_normalizer_sync else over_iteration
        return at_least(average(count), 1)

    def _moving_average(self, targets: Targets, average: Tensor) -> Tensor:
        """In training, move the buffer ``average`` towards this batch's; returns a copy of it."""
        if self.training:
            count = self.batch_normalizer(targets)
            momentum = self.loss_normalizer_momentum
            average.mul_(momentum).add_(count * (1 - momentum))
        return average.clone()  # the next step changes it in place

    @abstractmethod
    def losses(self, dense: DensePass, targets: Targets) -> dict[str, Tensor]:
        """{loss name: scalar}; each keeps the graph when there is nothing to learn from."""

    def detection_scores(self, dense: DensePass) -> tuple[list[Tensor], list[Tensor] | None]:
        """Scores that select and rank detections, and a factor on those that were selected.

        Returns:
            L x (N, Hl*Wl*A, K), and L x (N, Hl*Wl*A) or None.
        """
        return [logits.sigmoid() for logits in dense.logits], None

    def inference(self, dense: DensePass) -> list[Instances]:
        """N Instances with pred_boxes, scores and pred_classes in the network input's pixels."""
        scores, factors = self.detection_scores(dense)
        results = []
        for image, image_size in enumerate(dense.image_sizes):
            levels = []
            for level, priors in enumerate(dense.priors):
                top, index, classes = best_candidates(
                    scores[level][image], self.test_score_thresh, self.test_topk_candidates
                )
                if factors is not None:
                    top = top * factors[level][image, index]
                boxes = self.decode(dense.deltas[level][image, index], priors[index])  # (P, 4)
                found = {"pred_boxes": Boxes(boxes), "scores": top, "pred_classes": classes}
                levels.append(Instances(image_size, **found))
            detections = suppress(
                Instances.cat(levels),
                self.test_nms_thresh,
                self.max_detections_per_image,
                clip_first=self.clip_before_nms,
            )
            results.append(detections)
        return results

    def visualize_training(self, batched_inputs: list[dict[str, Any]], dense: DensePass) -> None:
        """Every ``vis_period`` iterations, log an image: its truth, and below it detections."""
        storage = compat.event_storage()
        if self.vis_period <= 0 or storage is None or storage.iter % self.vis_period:
            return
        # detectron2's Visualizer needs OpenCV, which is no requirement of either project.
        from ...visualize.drawing import draw_boxes

        with torch.no_grad():
            found = self.inference(dense)[0][:20].to("cpu")
        image, truth = batched_inputs[0]["image"], batched_inputs[0]["instances"]
        pixels = as_rgb(image, self.input_format)
        labels = [f"{c} {s:.2f}" for c, s in zip(found.pred_classes.tolist(), found.scores)]
        names = [str(c) for c in truth.gt_classes.tolist()]
        pictures = (
            draw_boxes(pixels, truth.gt_boxes.tensor, names, truth.gt_classes, scale=1),
            draw_boxes(pixels, found.pred_boxes.tensor, labels, found.pred_classes, scale=1),
        )
        stacked = np.vstack([np.asarray(picture) for picture in pictures])  # (2H, W, 3)
        name = "Top: ground truth; bottom: the 20 highest scoring detections"
        storage.put_image(name, stacked.transpose(2, 0, 1))


def per_prediction(maps: Tensor, dim: int) -> Tensor:
    """Arrange a map (N, A*dim, Hl, Wl) as (N, Hl*Wl*A, dim), float32."""
    n, _, height, width = maps.shape
    maps = maps.view(n, -1, dim, height, width).permute(0, 3, 4, 1, 2)
    return maps.reshape(n, -1, dim).float()
