#!/usr/bin/env python
"""What images without labels bring on BCCD: distillation on all images against distillation on the
labelled ones alone, seed by seed, in results/unlabelled.json.

A seed is that of the weights, of the order of the images, and of which of them keep their labels.
The teacher, bccd/gfl_lite2.py, is to be trained first; it has learnt from all labels. A run that is
finished is used again, one that was stopped goes on; images for testing are looked at once, by the
last weights. Results are written after every run, beside those of other seeds and configs; a pair
is of runs with equally many iterations.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bccd

from dense_kd import get_config
from dense_kd.engine.fingerprint import cores
from dense_kd.json_files import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "unlabelled.json"
CONFIGS = ["bccd/unlabelled_tenth.py", "bccd/unlabelled_quarter.py"]
ARMS = {
    "labelled": ["dataloader.unlabelled=null", "model.pseudo_labels=null"],
    "all": [],
}
"""{images that are learnt from: overrides}."""
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""{pairs: quantile of Student's t for an interval of 95 %}."""


def get_parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("configs", nargs="*", help=f"default: {' '.join(CONFIGS)}")
    option("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default: 1 2 3")
    option("--override", action="append", default=[], metavar="path.key=value", help="of all")
    option("--threads", type=int, default=cores(), help="of a training (%(default)s)")
    option("--output", type=Path, default=Path("output/bccd"), help="default: %(default)s")
    option("--results", type=Path, default=RESULTS, help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = get_parser()
    args = parser.parse_args(argv)
    for config in args.configs or CONFIGS:
        iterations = bccd.bare(config, args.override).train.max_iter
        others = of_other_length(read_json(args.results).get(config, {}), args.seeds, iterations)
        if others:
            parser.error(
                f"{args.results} has {', '.join(others)} of {config} with another number of "
                f"iterations than {iterations}, and they would be compared; give another file "
                "(--results), or remove them there"
            )
    for seed in args.seeds:  # a whole pair of all configs, before the next one
        for config in args.configs or CONFIGS:
            for arm in ARMS:
                result = run(config, arm, seed, args.override, args.output, args.threads)
                note(args.results, config, arm, seed, result)
            print(f"{config}, seed {seed}: {said(read_json(args.results)[config])}", flush=True)


def of_other_length(of_config: dict[str, Any], seeds: Sequence[int], iterations: int) -> list[str]:
    """The results, by arm and seed, beside which one with so many iterations cannot stand.

    Args:
        of_config: what is known of a config.
        seeds: that are to be trained, whose own results are written anew.
        iterations: of the trainings to come.
    """
    return [
        f"{arm} {seed}"
        for arm in ARMS
        for seed, result in of_config.get(arm, {}).items()
        if int(seed) not in seeds and result["iterations"] != iterations
    ]


def run(
    config: str, arm: str, seed: int, overrides: list[str], output: Path, threads: int
) -> dict[str, Any]:
    """As of bccd.py: train, if that is left to do, and evaluate."""
    of_seed = [
        f"train.seed={seed}",
        f"dataloader.train.dataset.seed={seed}",
        f"train.output_dir={output}/{Path(config).stem}/{arm}_{seed}",
    ]
    found = bccd.run(config, [*ARMS[arm], *of_seed, *overrides], threads)
    return {"val": found.pop("val"), "test": found.pop("test"), **found}


def note(file: Path, config: str, arm: str, seed: int, result: dict[str, Any]) -> None:
    """Write a result beside those that are there, and the differences of all pairs."""
    results = read_json(file)
    of_config = results.setdefault(
        config, {"share": get_config(config).dataloader.train.dataset.share}
    )
    of_config.setdefault(arm, {})[str(seed)] = result
    for part in ("val", "test"):
        of_config[f"difference on {part}"] = differences(of_config, part)
    write_json(file, results)


def differences(of_config: dict[str, Any], part: str) -> dict[str, Any]:
    """Of AP, in points: all images less the labelled ones alone, and the mean over the seeds. Where
    one of the two is trained for longer, until the other is, there is no pair.

    The bounds are those of an interval of 95 % for the mean (paired, by Student's t); None where
    there are too few or too many pairs for the table of this program.
    """
    arms = [of_config.get(arm, {}) for arm in ARMS]
    pairs = {}
    for seed in sorted(arms[0].keys() & arms[1].keys(), key=int):
        before, after = (arm[seed][part]["AP"] for arm in arms)
        alike = arms[0][seed]["iterations"] == arms[1][seed]["iterations"]
        if alike and before is not None and after is not None:
            pairs[seed] = after - before
    values = [*pairs.values()]
    found: dict[str, Any] = {"AP": pairs, "mean": None, "low": None, "high": None}
    if values:
        found["mean"] = statistics.fmean(values)
    if len(values) in T:
        width = T[len(values)] * statistics.stdev(values) / len(values) ** 0.5
        found["low"], found["high"] = found["mean"] - width, found["mean"] + width
    return found


def said(of_config: dict[str, Any]) -> str:
    """A line of what is known of a config."""
    parts = []
    for part in ("val", "test"):
        found = of_config[f"difference on {part}"]
        if found["mean"] is None:
            parts.append(f"nothing to compare on {part}")
            continue
        bounds = "" if found["low"] is None else f" ({found['low']:+.1f} to {found['high']:+.1f})"
        parts.append(f"{found['mean']:+.1f} AP on {part}{bounds}")
    pairs = len(of_config["difference on val"]["AP"])
    return f"{', '.join(parts)}, of {pairs} pair{'s' * (pairs != 1)}"


if __name__ == "__main__":
    main()
