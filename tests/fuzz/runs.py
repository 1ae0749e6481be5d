"""Folders of runs, as `dense-kd report` reads them, and the files of a teacher's cache."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import torch
import yaml

from dense_kd.reporting import report_runs
from dense_kd.teacher_cache.entry import Entry, Map
from dense_kd.teacher_cache.stores import FolderStore
from helpers.run_folders import config_of, records, write_run

from .mutations import damaged, damaged_text, damaged_tree
from .outcomes import REPAIRED, SAME, VALUES, Case, Kind, Violation

KEY = "0123abcd"
SEEDS = (1, 2)


def prepare_runs(folder: Path) -> Path:
    """Two seeds of one config."""
    for seed in SEEDS:
        write_run(folder / f"seed{seed}", config_of(seed), records(100, ap=10.0 + seed))
        (folder / f"seed{seed}" / "last_checkpoint").write_text("model_final.pth")
    return folder


def reported(shared: Path, case: Case) -> str:
    """One file of a run, and a page about both."""
    runs = case.folder / "runs"
    shutil.copytree(shared, runs)
    file = runs / "seed1" / case.rng.choice(("config.yaml", "metrics.json", "metrics.json"))
    how = case.rng.random()
    if how < 0.4:
        mutation, data = damaged(file.read_bytes(), case.rng)
        file.write_bytes(data)
    elif how < 0.6:
        mutation, text = damaged_text(file.read_text(), case.rng)
        file.write_text(text, errors="surrogatepass")
    elif file.suffix == ".json":
        lines = file.read_text().splitlines()
        at = case.rng.randrange(len(lines))
        mutation, tree = damaged_tree(json.loads(lines[at]), case.rng)
        lines[at] = json.dumps(tree)
        file.write_text("\n".join(lines) + "\n")
    else:
        mutation, tree = damaged_tree(yaml.safe_load(file.read_text()), case.rng)
        try:
            file.write_text(yaml.dump(tree), errors="surrogatepass")
        except (ValueError, yaml.YAMLError):
            file.write_text(repr(tree), errors="surrogatepass")
    case.mutation = f"{mutation} of {file.name}"
    report_runs([str(runs / f"seed{seed}") for seed in SEEDS], "page.html", images=0, samples=1)
    return VALUES if (case.folder / "page.html").stat().st_size else SAME


def prepare_cache(folder: Path) -> bytes:
    """One entry of two maps."""
    numbers = torch.arange(40, dtype=torch.float32)
    maps = (
        Map("logits.0", (2, 5), torch.float32, torch.float32, 0),
        Map("deltas.0", (2, 5, 3), torch.float32, torch.float32, 40),
    )
    FolderStore(str(folder)).put(KEY, Entry(maps, numbers.view(torch.uint8)))
    return (folder / KEY[:2] / f"{KEY}.maps").read_bytes()


def cached(shared: bytes, case: Case) -> str:
    """An entry of a teacher's cache: it is as it was, or as none, which is logged."""
    case.mutation, data = damaged(shared, case.rng)
    place = case.folder / KEY[:2]
    place.mkdir()
    (place / f"{KEY}.maps").write_bytes(data)
    entry = FolderStore(str(case.folder)).get(KEY)
    if entry is None:
        return REPAIRED
    if entry.content.view(torch.float32).tolist() != [*range(40)] or len(entry.maps) != 2:
        raise Violation("other maps are given for those of the teacher")
    return SAME


logging.getLogger("matplotlib").setLevel(logging.ERROR)

KINDS = {
    "folder of a run": Kind(reported, prepare_runs),
    "file of a teacher's cache": Kind(cached, prepare_cache),
}
