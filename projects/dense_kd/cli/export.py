"""``dense-kd export``."""

from __future__ import annotations

import argparse

HELP = "write a trained detector for ONNX, TorchScript or mmdetection"
EXAMPLES = [
    "dense-kd export output/quickstart/bckd --to onnx",
    "dense-kd export output/quickstart/bckd --to onnx --outputs raw --output raw_model",
    "dense-kd export output/quickstart/bckd/model_final.pth --to torchscript --images photos",
    "dense-kd export output/bccd/gfl_r18 --to onnx --int8",
    "dense-kd export output/bccd/gfl_r18 --to mmdet",
]
_ABOUT = """\
What was written is tried before it is kept: batches of one and of four images in two sizes, against
the detector itself. docs/export.md says what goes in and what comes out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Weights, and what to write."""
    option = parser.add_argument
    option(
        "source",
        metavar="RUN|WEIGHTS",
        help="the folder of a run, a checkpoint, or the name of a published one",
    )
    option(
        "--to",
        required=True,
        choices=("onnx", "torchscript", "torch_export", "mmdet", "detectron2"),
        help="for which program",
    )
    option("--output", metavar="DIR", help="folder to write (RUN_FORMAT beside the run)")
    option(
        "--outputs",
        choices=("detections", "raw"),
        default="detections",
        help="of a graph: detections after suppression, or boxes and scores of all predictions",
    )
    option("--images", nargs="+", default=[], metavar="IMAGES", help="to try it with; else drawn")
    option(
        "--score-threshold",
        type=float,
        metavar="SCORE",
        help="of the class scores of detections; by default the detector's own",
    )
    option(
        "--int8",
        action="store_true",
        help="also in 8-bit integers; both are evaluated on the test set of the run",
    )
    option("--config", help="the config of the run, if WEIGHTS do not describe their detector")
    option("--data-licence", default="", metavar="TEXT", help="of the training data, for the card")
    option("--overwrite", action="store_true", help="replace an export that is there")
    parser.epilog = f"{_ABOUT}\n\n{parser.epilog}"


def run(args: argparse.Namespace) -> None:
    """Export, and say what was written and how it was tried."""
    from ..export import default_folder, export

    found = export(
        args.source,
        args.to,
        args.output or default_folder(args.source, args.to),
        outputs=args.outputs,
        config=args.config,
        images=args.images,
        score_threshold=args.score_threshold,
        int8=args.int8,
        data_licence=args.data_licence,
        overwrite=args.overwrite,
    )
    print(found.verified)
    for name, what in found.files.items():
        print(f"{found.folder / name}: {what}")
