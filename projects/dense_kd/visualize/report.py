"""The report of a distillation: one HTML page that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..checkpoint import replace_atomically
from .curves import Curves, curves_as_svg
from .drawing import ComparedImage, Panel

__all__ = ["headline", "table_rows", "write_report"]

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")

_CSS = """
:root { color-scheme: light dark; --page: #fff; --text: #1c2024; --soft: #5f6873; --line: #dfe3e8;
  --mark: #eaf3fd; }
@media (prefers-color-scheme: dark) { :root { --page: #15181c; --text: #e6e9ec; --soft: #9aa4af;
  --line: #333a42; --mark: #1b2c3d; } }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem; background: var(--page);
  color: var(--text); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.3; margin: 0.5rem 0; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.5rem; }
p { max-width: 48rem; }
.soft, figcaption { color: var(--soft); font-size: 0.9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.45rem 0.7rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, .settings td { text-align: left; }
thead th { color: var(--soft); font-weight: 500; }
tr.distilled { background: var(--mark); }
tr.distilled th, tr.distilled td { font-weight: 600; }
tr.seed th, tr.seed td { color: var(--soft); font-size: 0.9rem; font-weight: 400; }
tr.seed th { padding-left: 1.8rem; }
.curves { display: grid; gap: 1.5rem 2rem; grid-template-columns: repeat(auto-fit,
  minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; min-width: 0; }
.curves svg { width: 100%; height: auto; }
.curves figcaption { color: var(--text); font-weight: 600; }
.row { display: grid; gap: 0.6rem; margin: 1rem 0 0; grid-template-columns: repeat(4, 1fr);
  padding: 0; }
.row img { display: block; width: 100%; height: auto; border-radius: 4px; }
.row b { color: var(--text); }
@media (max-width: 44rem) { .row { grid-template-columns: repeat(2, 1fr); } }
"""

_COMPARED = """Baseline and distilled are the same detector, trained on the same images for the same
number of iterations from the same seed. The distilled one also learned from the teacher."""
_ALONE = """The distilled detector learned from the images and from the teacher. It was not trained
alone, so this page does not say what distillation gained."""


def write_report(
    path: str,
    summary: Mapping[str, Any],
    curves: Curves,
    images: Sequence[ComparedImage],
    *,
    score_threshold: float,
    smoothing: str = "Each point is the median of 20 iterations, as Detectron2 logs it.",
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        summary: as in ``summary.json`` of :mod:`dense_kd.demo`; "baseline" may be absent, and
            "test" may have metrics of the detectors on other images, {name: metrics}.
        curves: metrics of the runs.
        images: rows of pictures.
        score_threshold: of the detections in the pictures, for the text.
        smoothing: what was done to the curves, for the text.
    """
    figures = "\n".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"
        for title, svg in curves_as_svg(curves)
    )
    seeds = list(summary["seeds"])
    means = f" Students are means over the seeds {', '.join(seeds)}." if len(seeds) > 1 else ""
    lines = " One line for each seed." if len(seeds) > 1 else ""
    settings = summary.get("settings", {})
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Distillation report</title>
<style>{_CSS}</style>
</head>
<body>
<main>
<p class="soft">dense_kd: knowledge distillation for dense object detectors</p>
<h1>{escape(headline(summary))}</h1>
<p>{_COMPARED if "baseline" in summary else _ALONE}</p>
<section>
<h2>Results</h2>
<div class="scroll">
<table>
{_table(summary)}
</table>
</div>
<p class="soft">COCO AP (0 to 100) on the validation images.{means} n/a: not defined, as
where the dataset has no objects of that size. Minutes are wall-clock time of training and its
evaluation.</p>
{_test_table(summary)}
</section>
<section>
<h2>Training</h2>
<p class="soft">{escape(smoothing)}{lines}</p>
<div class="curves">
{figures}
</div>
</section>
<section>
<h2>Validation images</h2>
<p class="soft">Detections that score {score_threshold:g} or more. ✗ marks one that is wrong: no
object of its class, not yet taken by a better detection, overlaps it with an IoU of 0.5. The images
are spread evenly over those with several objects, not selected by result.</p>
{"".join(map(_row, images))}
</section>
<section>
<h2>Settings</h2>
<div class="scroll">
<table class="settings">
{
        "".join(
            f"<tr><th scope='row'>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>"
            for k, v in settings.items()
        )
    }
</table>
</div>
</section>
</main>
</body>
</html>
"""
    replace_atomically(path, lambda file: file.write(page.encode()))


def headline(summary: Mapping[str, Any]) -> str:
    """What happened, in a sentence."""
    distilled, teacher = summary["distilled"]["AP"], summary["teacher"]["AP"]
    of_teacher = f"; its teacher has {teacher:.1f}." if teacher is not None else "."
    if "baseline" not in summary:
        found = "found nothing" if distilled is None else f"has {distilled:.1f} AP"
        return f"The distilled student {found}{of_teacher}"
    baseline = summary["baseline"]["AP"]
    if baseline is None or distilled is None:
        return "A student found nothing, so there is no gain to report."
    # Compared as shown, or "from 28.1 to 28.1" would be called a gain.
    before, after = f"{baseline:.1f}", f"{distilled:.1f}"
    if before == after:
        sentence = f"Distillation left the student at {after} AP"
    else:
        way = "took the student from" if distilled > baseline else "lowered the student from"
        sentence = f"Distillation {way} {before} to {after} AP"
    if len(summary["seeds"]) > 1:
        sentence += f" (mean of {len(summary['seeds'])} seeds)"
    return sentence + of_teacher


def table_rows(summary: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The table as (name, cells), first the header; seeds have rows if there are several."""
    header = [*METRICS, "parameters", "iterations", "minutes"]
    rows = [("", header), ("teacher", _cells(summary["teacher"]))]
    students = [name for name in ("baseline", "distilled") if name in summary]
    for name in students:
        rows.append((name, _cells(summary[name])))
        if len(summary["seeds"]) > 1:
            for seed, results in summary["seeds"].items():
                rows.append((f"{name}, seed {seed}", _cells(results[name])))
    if len(students) < 2:
        return rows
    gains = [_difference(summary["distilled"][m], summary["baseline"][m]) for m in METRICS]
    return [*rows, ("gain", [*gains, "", "", ""])]


def _test_table(summary: Mapping[str, Any]) -> str:
    tested = summary.get("test")
    if not tested:
        return ""
    rows = "\n".join(
        f"<tr class='{name}'><th scope='row'>{name}</th>"
        + "".join(f"<td>{cell}</td>" for cell in _metrics(metrics))
        + "</tr>"
        for name, metrics in tested.items()
    )
    head = "".join(f"<th scope='col'>{cell}</th>" for cell in ("on the test images", *METRICS))
    return f"""<div class="scroll">
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>"""


def _metrics(result: Mapping[str, Any]) -> list[str]:
    return ["n/a" if result[m] is None else f"{result[m]:.1f}" for m in METRICS]


def _cells(result: Mapping[str, Any]) -> list[str]:
    return [
        *_metrics(result),
        f"{result['parameters'] / 1e6:.2f} M",
        str(result["iterations"]),
        f"{result['seconds'] / 60:.1f}",
    ]


def _difference(after: float | None, before: float | None) -> str:
    return "n/a" if after is None or before is None else f"{after - before:+.1f}"


def _table(summary: Mapping[str, Any]) -> str:
    (_, header), *rows = table_rows(summary)
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in ["detector", *header])
    body = []
    for name, cells in rows:
        kind = "seed" if ", seed" in name else name
        columns = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body.append(f'<tr class="{kind}"><th scope="row">{escape(name)}</th>{columns}</tr>')
    return f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody>"


def _row(image: ComparedImage) -> str:
    panels = "\n".join(_panel(image.name, panel) for panel in image.panels)
    return f'<div class="row">\n{panels}\n</div>\n'


def _panel(name: str, panel: Panel) -> str:
    buffer = io.BytesIO()
    # A tenth of the size of a PNG: the images are full of noise.
    panel.picture.save(buffer, format="JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    width, height = panel.picture.size
    alt = escape(f"{name}, {panel.title}: {panel.caption}", quote=True)
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" alt="{alt}" width="{width}" '
        f'height="{height}"><figcaption><b>{escape(panel.title)}</b> '
        f"{escape(panel.caption)}</figcaption></figure>"
    )
