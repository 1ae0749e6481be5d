"""The classes of COCO JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..build import DatasetError
from ..records import repeated
from .problems import Problems, shortened
from .values import whole


def read_categories(content: Mapping[str, Any], path: Path) -> dict[int, str]:
    """The names of a file's categories by their id, in order of the ids.

    Args:
        content: of the file, with a list ``categories``.
        path: the file, for messages.

    Raises:
        DatasetError: there is none, or an id or a name is missing, wrong or used twice.
    """
    names: dict[int, str] = {}
    for index, category in enumerate(content["categories"]):
        place = f"{path}: categories[{index}]={shortened(category)}"
        key = whole(category.get("id")) if isinstance(category, Mapping) else None
        name = category.get("name") if isinstance(category, Mapping) else None
        if key is None or isinstance(name, bool) or not isinstance(name, (str, int)):
            raise DatasetError(f"{place}: expected a whole number as 'id' and a text as 'name'")
        name = str(name).strip()
        if not name:
            raise DatasetError(f"{place}: the name is empty; give every class one")
        if names.setdefault(key, name) != name:
            raise DatasetError(
                f"{place}: {names[key]!r} has this id, too; expected each id once. Which class a "
                "box is of cannot be told"
            )
    if not names:
        raise DatasetError(f"{path} has no categories, so there are no names of classes; expected "
                           "'categories': [{'id': 1, 'name': ...}, ...]")  # fmt: skip
    return dict(sorted(names.items()))


def without_heading(
    categories: Mapping[Path, dict[int, str]],
    contents: Mapping[Path, Mapping[str, Any]],
    problems: Problems,
) -> dict[Path, dict[int, str]]:
    """The categories without the one that Roboflow's exports begin with.

    Its name is the ``supercategory`` of all others, and it has no boxes: it is no class.

    Args:
        categories: names by id of each file.
        contents: the files.
        problems: where it is noted.
    """
    heading = {}
    for path, content in contents.items():
        key, name = next(iter(categories[path].items()))
        above: dict[bool, set[str]] = {True: set(), False: set()}
        for category in content["categories"]:
            above[whole(category["id"]) == key].add(str(category.get("supercategory")))
        boxes = (a for a in content["annotations"] if isinstance(a, Mapping))
        if above != {True: {"none"}, False: {name}} or any(
            whole(a.get("category_id")) == key for a in boxes
        ):
            return dict(categories)
        heading[path] = key
    path, key = next(iter(heading.items()))
    problems.add(
        "noted", "class", "no class: the heading of all others", path, f"category {key}",
        f"{categories[path][key]!r}, without boxes",
    )  # fmt: skip
    return {
        path: {other: name for other, name in names.items() if other != heading[path]}
        for path, names in categories.items()
    }


def common_classes(categories: Mapping[Path, dict[int, str]], problems: Problems) -> list[str]:
    """The names of all classes: those of the first file by id, then what others add.

    Args:
        categories: names by id of each file, that of the training images first.
        problems: where files with other ids are noted; their classes are matched by name.

    Raises:
        DatasetError: two classes of a file have one name.
    """
    first, own = next(iter(categories.items()))
    merged = dict(own)
    for path, names in categories.items():
        twice = repeated(names.values())
        if twice:
            ids = [key for key, name in names.items() if name == twice[0]]
            raise DatasetError(
                f"{path}: the categories {ids} are all called {twice[0]!r}; expected a name for "
                "each class. Rename one, or give their boxes one category_id"
            )
        if any(merged.get(key, name) != name for key, name in names.items()):
            problems.add(
                "noted", "file", "category ids differ, matched by name", path, "",
                f"other than in {problems.name(first)}",
            )  # fmt: skip
        else:
            merged.update(names)
    classes = [name for _, name in sorted(merged.items())]
    if len(set(classes)) < len(classes):  # files that agree on no id of a name
        classes = list(own.values())
    every = [name for names in categories.values() for name in names.values()]
    return list(dict.fromkeys([*classes, *every]))
