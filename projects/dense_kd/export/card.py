"""The page that an exported detector comes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")

_INPUTS = """\
## Input and output

- `images` (N, {channels}, H, W) float32: pixels from 0 to 255, {input_format}, not normalised;
  H and W are multiples of {multiple}. What is right of and below an image may be anything.
- `sizes` (N, 2) int64: height and width of each image without that.
{outputs}"""

_OUTPUTS = {
    "detections": """\
- `boxes` (N, {most}, 4) float32: x1, y1, x2, y2 in pixels of `images`.
- `scores` (N, {most}) float32, falling; `classes` (N, {most}) int64.
- `counts` (N,) int64: detections of each image, after which all is 0.

Suppression (IoU {iou}) is in the graph; the class scores of what goes in are above {threshold}.""",
    "raw": """\
- `boxes` (N, R, 4) float32: x1, y1, x2, y2 in pixels of `images`, decoded, of all predictions.
- `scores` (N, R, {classes}) float32, of each class.

Nothing is left out and nothing suppressed.""",
}


def card(
    title: str,
    config: Mapping[str, Any],
    *,
    facts: Mapping[str, str],
    metrics: Mapping[str, float | None],
    verified: str,
    circumstances: Mapping[str, Any],
    data_licence: str,
    files: Mapping[str, str],
    detector: Any,
) -> str:
    """Markdown.

    Args:
        title: of the page.
        config: what stands in ``config.json``.
        facts: of the training, in words.
        metrics: of its last evaluation, in percent.
        verified: what was compared with what.
        circumstances: date, commit and versions.
        data_licence: of the training data, "" if it is not known.
        files: {name: what it is}.
        detector: that was exported.
    """
    parameters = sum(p.numel() for p in detector.parameters())
    rows = {
        "detector": f"{config['detector']}, {parameters:,} parameters",
        "classes": f"{len(config['classes'])}: {_listed(config['classes'])}",
        **facts,
        "licence of the data": data_licence or "not recorded; it may bind these weights, too",
        "written": f"{circumstances['date']} by dense_kd {circumstances['versions']['dense_kd']}"
        + (f" ({circumstances['commit'][:10]})" if circumstances["commit"] else ""),
    }
    known = {k: f"{metrics[k]:.1f}" for k in METRICS if metrics.get(k) is not None}
    parts = [f"# {title}", tabulate(rows.items(), ("", ""), tablefmt="github")]
    if known:
        table = tabulate([[*known.values()]], [*known], tablefmt="github", disable_numparse=True)
        parts += [
            "## Accuracy",
            f"COCO's metrics in percent, of the last evaluation of the training:\n\n{table}",
        ]
    parts += ["## Files", "\n".join(f"- `{name}`: {what}" for name, what in files.items())]
    if config.get("outputs"):
        outputs = (
            _OUTPUTS[config["outputs"]]
            .strip("\n")
            .format(
                most=detector.max_detections_per_image,
                iou=detector.test_nms_thresh,
                threshold=detector.test_score_thresh,
                classes=detector.num_classes,
            )
        )
        text = _INPUTS.format(
            channels=detector.image_input.num_channels,
            input_format=config["input_format"],
            multiple=config["multiple"],
            outputs=outputs,
        )
        parts.append(text)
    parts += ["## Verified", verified]
    return "\n\n".join(parts) + "\n"


def _listed(names: list[str], most: int = 20) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
