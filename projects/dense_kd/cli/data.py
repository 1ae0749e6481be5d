"""``dense-kd data``."""

from __future__ import annotations

import argparse

HELP = "fetch or generate a dataset that configs of the package use"
EXAMPLES = [
    "dense-kd data bccd  # fetches 7 MB, checks them, and puts them into datasets/bccd",
    "dense-kd data bccd --from BCCD_Dataset/BCCD  # a copy, where there is no network",
    "dense-kd data shapes  # draws the images of the configs in quickstart/",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The dataset, and where to take it from."""
    parser.add_argument("name", choices=("bccd", "shapes"), help="of the dataset")
    parser.add_argument(
        "--from", dest="source", metavar="FOLDER", help="of bccd: a copy of it, instead of fetching"
    )
    parser.epilog = (
        "Datasets lie in $DETECTRON2_DATASETS, or in datasets/. One that is there already is\n"
        f"checked, and nothing is fetched or drawn again.\n\n{parser.epilog}"
    )


def run(args: argparse.Namespace) -> None:
    """Fetch or draw, and print where it is."""
    from ..data import bccd_install, shapes
    from ..data.build import DatasetError

    if args.name == "bccd":
        print(f"bccd_train, bccd_val, bccd_test: {bccd_install.install_bccd(args.source)}")
        return
    if args.source is not None:
        raise DatasetError(
            f"--from {args.source}: expected nothing, shapes are drawn; leave it out, or give bccd"
        )
    root = shapes.default_shapes_root()
    for split, count in shapes.DEFAULT_SIZES.items():
        try:
            print(f"shapes_{split}: {shapes.generate_shapes(root, split, count)}", flush=True)
        except ValueError as error:  # files of somebody else are there
            raise DatasetError(str(error)) from error
