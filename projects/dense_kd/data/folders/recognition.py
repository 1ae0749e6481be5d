"""Tells which layout a folder has: what each of the three would need, and what there is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from ..build import DatasetError
from .description import is_description, read_description
from .records import PARTS, Layout, Place
from .tree import Folder, Tree, contradicting, part_of, part_of_path, stem
from .values import beginning, number, read_text
from .yolo import label_folder
from .yolo_classes import named_classes

KINDS = ("coco", "voc", "yolo")

_LOOKED_FOR = (
    "looked for COCO (a .json file with images, annotations and categories: alone, or one each for "
    "train and val, as annotations/instances_train.json or train/_annotations.coco.json), Pascal "
    "VOC (.xml files with <annotation>, as in Annotations/) and YOLO (data.yaml, or .txt files in "
    "labels/ that are named as the images in images/)"
)
_PEEK = 65536


def recognise(tree: Tree, layout: str | None) -> Layout:
    """The layout of a folder.

    Args:
        tree: the folder.
        layout: "coco", "voc" or "yolo" to look for this one only; None for any.

    Raises:
        DatasetError: none is recognised, or several, or what one needs is missing.
    """
    root = tree.root
    found = {}
    for kind, look in (("coco", _coco), ("voc", _voc), ("yolo", _yolo)):
        if layout in (None, kind):
            recognised = look(tree)
            if recognised is not None:
                found[kind] = recognised
    if len(found) > 1:
        listed = " and ".join(f"{kind} ({_evidence(tree, found[kind])})" for kind in found)
        raise DatasetError(
            f"{root} holds annotations in several formats: {listed}; expected one. Say which by "
            f"layout={' or '.join(map(repr, found))}"
        )
    if not found:
        wanted = f" as {layout!r}" if layout else ""
        raise DatasetError(
            f"{root} is not recognised{wanted} as a dataset: {_LOOKED_FOR}; found {tree.found()}. "
            "A YAML file can say where things are: train: {images: FOLDER, annotations: FILE or "
            "FOLDER}, val: ..., classes: [...]"
        )
    return next(iter(found.values()))


def _coco(tree: Tree) -> Layout | None:
    files = [f.path / name for f in tree.with_files(".json") for name in f.named(".json")]
    files = [path for path in files if len(path.relative_to(tree.root).parts) <= 3]
    files = [path for path in files if looks_like_coco(path)]
    instances = [path for path in files if path.name.startswith("instances")]
    files = instances or files  # COCO's folder also has captions and key points
    if not files:
        return None
    parts: dict[str, list[Path]] = defaultdict(list)
    said = _said_parts(tree, [path.with_suffix("") for path in files])
    for path, part in zip(files, said):
        parts[part or ("train" if len(files) == 1 else "")].append(path)
    for part, paths in parts.items():
        if len(paths) > 1 or not part:
            names = ", ".join(path.relative_to(tree.root).as_posix() for path in paths[:6])
            is_of = f"are all of {part!r}" if part else "name no part (train, val, test)"
            raise DatasetError(
                f"{tree.root} has COCO files that {is_of}: {names}; expected one file, or one for "
                "each part. Name them after the parts, or in a YAML file with train: "
                "{annotations: FILE}, val: {annotations: FILE}"
            )
    places = {part: [Place(annotations=paths[0])] for part, paths in parts.items()}
    return Layout(tree.root.name, tree.root, "coco", places)


def looks_like_coco(path: Path) -> bool:
    """Whether a JSON file begins as COCO annotations do."""
    start = beginning(path, _PEEK)
    lists = set(re.findall(rb'"(images|annotations|categories)"\s*:\s*\[', start))
    # Categories alone are Label Studio's notes beside YOLO's labels, if nothing follows.
    return bool(lists - {b"categories"}) or (bool(lists) and len(start) == _PEEK)


def _voc(tree: Tree) -> Layout | None:
    folders = [f for f in tree.with_files(".xml") if _looks_like_voc(f)]
    if not folders:
        return None
    places: dict[str, list[Place]] = defaultdict(list)
    without = []
    for folder in folders:
        lists = _lists(tree, folder.path if len(folders) > 1 else None)
        if not {"train", "trainval"} & lists.keys():
            without.append(folder.path)
            continue
        listed = {part: lists[part] for part in PARTS if part in lists}
        if "train" not in lists or ("val" not in lists and "trainval" in lists):
            listed["train"] = lists["trainval"]
        for part, path in listed.items():
            places[part].append(Place(folder.path, listing=path))
    for part, paths in _by_part(tree, without, "XML files", set(places)).items():
        places[part] += [Place(path) for path in paths]
    return Layout(tree.root.name, tree.root, "voc", dict(places))


def _lists(tree: Tree, annotations: Path | None) -> dict[str, Path]:
    """The lists in ImageSets/Main by their stem; with several sets, those beside one's files."""
    found = {}
    for folder in tree.with_files(".txt"):
        names = [name.lower() for name in folder.path.relative_to(tree.root).parts]
        above = folder.path.parent if names[-1:] == ["main"] else folder.path
        beside = annotations is None or above.parent == annotations.parent
        if names[-2:] == ["imagesets", "main"] or names[-1:] == ["imagesets"]:
            if beside:
                found.update({Path(n).stem: folder.path / n for n in folder.named(".txt")})
    return found


def _looks_like_voc(folder: Folder) -> bool:
    return any(
        b"<annotation" in beginning(folder.path / name, _PEEK) for name in folder.named(".xml")[:5]
    )


def _yolo(tree: Tree) -> Layout | None:
    root = tree.root
    yamls = [root / name for name in tree.folders[root].named(".yaml", ".yml")]
    described = [path for path in yamls if is_description(path)]
    described = [path for path in described if path.stem == "data"] or described
    if len(described) > 1:
        raise DatasetError(
            f"{root} has several descriptions of a dataset: "
            f"{', '.join(path.name for path in described)}; give the one that is meant as DATA"
        )
    if described:
        layout = read_description(described[0])
        return layout if layout.kind == "yolo" else None
    folders = [f.path for f in tree.folders.values() if f.images and _has_labels(tree, f)]
    if not folders:
        return None
    # A part whose images are all without labels lies beside the others all the same.
    others = [f.path for f in tree.folders.values() if f.images and f.path not in folders]
    folders += [path for path in others if any(_is_other_part(path, f, root) for f in folders)]
    parts = _by_part(tree, folders, "images with labels")
    places = {
        part: [Place(images=path) for path in _outermost(paths)] for part, paths in parts.items()
    }
    classes = named_classes(root, map(label_folder, folders))
    return Layout(
        root.name, root, "yolo", places, classes.names, str(classes.path), classes.keypoints
    )


def _has_labels(tree: Tree, folder: Folder) -> bool:
    """Whether some images of a folder have a text file that begins with numbers."""
    labels = tree.folders.get(label_folder(folder.path))
    names = {stem(name): name for name in labels.named(".txt")} if labels else {}
    seen = 0
    for image in folder.images:
        name = names.get(stem(image))
        if labels is None or name is None:
            continue
        try:
            lines = read_text(labels.path / name, 2**26).split("\n")
        except DatasetError:
            continue
        fields = next((line.split() for line in lines if line.strip()), [])
        # Decimal commas are refused once the labels are read, with the reason.
        numbers = [number(field.replace(",", ".")) for field in fields]
        if len(fields) >= 5 and None not in numbers:
            return True
        seen += bool(fields)
        if seen >= 5:
            return False
    return False


def _is_other_part(path: Path, other: Path, root: Path) -> bool:
    """Whether two paths differ in one name only, and both name a part there."""
    pair = path.relative_to(root).parts, other.relative_to(root).parts
    differing = [names for names in zip(*pair) if names[0] != names[1]]
    return (
        len(pair[0]) == len(pair[1])
        and len(differing) == 1
        and None not in map(part_of, differing[0])
    )


def _by_part(
    tree: Tree, folders: list[Path], what: str, others: Collection[str] = ()
) -> dict[str, list[Path]]:
    """Folders by the part that their paths name; all are for training if none names one."""
    parts: dict[str, list[Path]] = defaultdict(list)
    for path, part in zip(folders, _said_parts(tree, folders)):
        parts[part or ""].append(path)
    without = parts.pop("", [])
    named = [*others, *parts]
    if without and named:
        names = ", ".join(path.relative_to(tree.root).as_posix() for path in without[:4])
        raise DatasetError(
            f"{tree.root} has {what} of {' and '.join(named)}, and others whose folders name no "
            f"part: {names}; move them, or name the folders of each part in a YAML file, as in "
            "train: [FOLDER, FOLDER]"
        )
    return dict(parts) or ({"train": without} if without else {})


def _outermost(paths: list[Path]) -> list[Path]:
    """Those that lie in no other, for a folder of images stands for all below it."""
    every = {*paths}
    return [path for path in paths if every.isdisjoint(path.parents)]


def _said_parts(tree: Tree, paths: list[Path]) -> list[str | None]:
    """The part that the names of each path say.

    Raises:
        DatasetError: two names of a path contradict each other. Where names of nothing but a part
            tell the paths apart, others do not count.
    """
    parts = [part_of_path(path, tree.root) for path in paths]
    apart = len({*parts} - {None}) > 1
    for path in paths:
        names = contradicting(path, tree.root, others=not apart)
        if names:
            raise DatasetError(
                f"{tree.root}: {path.relative_to(tree.root).as_posix()} is named after two parts, "
                f"by {names[0]} and by {names[1]}; expected one. Rename a folder, or name the "
                "folders of each part in a YAML file, as in train: [FOLDER, FOLDER]"
            )
    return parts


def _evidence(tree: Tree, layout: Layout) -> str:
    place = next(iter(layout.parts.values()))[0]
    path = place.annotations or place.images
    return path.relative_to(tree.root).as_posix() if path else "?"
