"""``dense-kd errors``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "say which errors runs make, and whether they differ"
EXAMPLES = [
    "dense-kd errors instances_val.json alone/coco_instances_results.json",
    "dense-kd errors instances_val.json alone=a.json bckd=b.json --json errors.json --plot e.png",
    "dense-kd errors instances_val.json found/predictions.json  # of predict, with --threshold 0",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Annotations, results, and where to write what is found."""
    option = parser.add_argument
    option("annotations", metavar="ANNOTATIONS", help="COCO's file of the dataset")
    option(
        "results",
        nargs="+",
        metavar="[TITLE=]RESULTS",
        help="detections in COCO's format for results, as `dense-kd eval CONFIG "
        "dataloader.evaluator.output_dir=FOLDER` writes them, or predictions.json of `dense-kd "
        "predict`, where names say which images they are; each is compared with the first",
    )
    option("--iou", type=float, default=0.5, help="above which an object is found (0.5)")
    option("--samples", type=int, default=1000, help="of the bootstrap over images (1000)")
    option("--json", metavar="FILE", help="write all numbers, of all classes, too")
    option("--plot", metavar="FILE", help="draw error types and curves: .png, .svg or .pdf")
    parser.epilog = (
        "What stands below an error type is the AP that would be won, were all of it mended\n"
        "(TIDE). Intervals are of 95 %, over images drawn with replacement.\n\n"
        f"{parser.epilog}"
    )


def run(args: argparse.Namespace) -> None:
    """Print tables, and write the files that are asked for."""
    from ..evaluation.side_by_side import as_text, side_by_side
    from ..json_files import check_json, write_json
    from ..visualize.errors import save_errors
    from ..visualize.panels import check_picture

    check_json(args.json, "differences")
    if args.plot:
        check_picture(args.plot)
    content = side_by_side(
        args.annotations, titled(args.results), iou=args.iou, samples=args.samples
    )
    print(as_text(content))
    if args.json:
        write_json(Path(args.json), content)
    if args.plot:
        save_errors(args.plot, content)


def titled(results: list[str]) -> dict[str, str]:
    """{title: file}; without a title, that of the folder or else of the file."""
    from ..options import split_title

    found: dict[str, str] = {}
    for each in results:
        title, file = split_title(each)
        title = title or Path(file).parent.name or Path(file).stem
        while title in found:
            title += "'"
        found[title] = file
    return found
