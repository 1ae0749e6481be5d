"""The fixes that make the registry's source archive of detectron2 0.5 work today.

A part of ``install_detectron2.py``; only the standard library is used.
"""

from __future__ import annotations

import re
from pathlib import Path

# detectron2 uses pkg_resources, which newer versions no longer have.
SETUPTOOLS = "setuptools>=62.3,<81"

# What detectron2 0.5 needs, with the pins that matter today. Not among them any more: black (pinned
# to a version that no longer works; only LazyConfig.to_py uses it), future and pydot (for Caffe2).
REQUIREMENTS = (
    "Pillow",
    "cloudpickle",
    "fvcore",
    "hydra-core",
    "iopath<0.1.10",
    "matplotlib",
    "omegaconf<2.4",
    "pycocotools",
    SETUPTOOLS,
    "tabulate",
    "tensorboard",
    "termcolor",
    "tqdm",
    "yacs",
)

OPERATORS_STUB = '''\
"""Stands in for the compiled operators, which this installation of detectron2 does not have."""


def __getattr__(name):
    raise ImportError(
        f"detectron2._C.{name} is a compiled operator, and detectron2 was installed without them "
        "(rotated boxes, deformable convolution and fast COCO evaluation need them). "
        "Install detectron2 from its repository to have them."
    )


def get_compiler_version():  # detectron2's environment report asks for all three
    return "none (no compiled operators)"


get_cuda_version = get_compiler_version


def has_cuda():  # asked for where there is a GPU
    return False
'''


class InstallError(Exception):
    """A way to install detectron2 did not work; the message says why."""


def substitute(path: Path, pattern: str, replacement: str, flags: int = 0) -> None:
    """Replace every match of a pattern in a file.

    Raises:
        InstallError: If that does not change the file.
    """
    before = path.read_text(encoding="utf-8")
    after = re.sub(pattern, replacement, before, flags=flags)
    if after == before:
        raise InstallError(f"nothing to fix in {path.name}: {pattern!r} changes nothing")
    path.write_text(after, encoding="utf-8")


def drop_extensions(source_dir: Path) -> None:
    """Keep the operators from being compiled: their sources do not build with today's torch."""
    setup_py = source_dir / "setup.py"
    substitute(setup_py, r"\n[ \t]*ext_modules=get_extensions\(\),", "")
    substitute(setup_py, r"\n[ \t]*cmdclass=\{[^}]*BuildExtension[^}]*\},", "")


def add_operators_stub(source_dir: Path) -> None:
    """Let modules import ``detectron2._C``; only using an operator of it is an error."""
    stub = source_dir / "detectron2" / "_C.py"
    if stub.exists():
        raise InstallError(f"nothing to fix: {stub.name} is there already")
    stub.write_text(OPERATORS_STUB, encoding="utf-8")


def rename_pillow_filter(source_dir: Path) -> None:
    """Use the name of the bilinear filter that Pillow 10 and newer still have."""
    transform = source_dir / "detectron2" / "data" / "transforms" / "transform.py"
    substitute(transform, r"\bImage\.LINEAR\b", "Image.BILINEAR")


def replace_numpy_aliases(source_dir: Path) -> None:
    """Use the builtin types whose aliases numpy 1.24 removed (``np.int`` and the like)."""
    aliases = re.compile(r"\bnp\.(int|bool|float|object|str)\b")
    total = 0
    for path in sorted((source_dir / "detectron2").rglob("*.py")):
        text, count = aliases.subn(r"\1", path.read_text(encoding="utf-8"))
        if count:
            path.write_text(text, encoding="utf-8")
            total += count
    if total == 0:
        raise InstallError("nothing to fix: no alias of numpy such as np.int is used")


def relax_requirements(source_dir: Path) -> None:
    """Require what works today instead of pins that cannot be met any more."""
    lines = "".join(f'        "{requirement}",\n' for requirement in REQUIREMENTS)
    substitute(
        source_dir / "setup.py",
        r"install_requires=\[.*?\n    \],",
        f"install_requires=[\n{lines}    ],",
        flags=re.DOTALL,
    )


def drop_tools(source_dir: Path) -> None:
    """Keep the archive's scripts from being installed as a top-level package named ``tools``."""
    substitute(source_dir / "setup.py", r'(exclude=\("configs", "tests\*")\)', r'\1, "tools*")')


def package_configs(source_dir: Path) -> None:
    """Package the configs of the model zoo.

    The archive holds them inside ``detectron2/model_zoo``, whereas its setup.py lists those of a
    folder at the top that only the repository has.
    """
    if not any((source_dir / "detectron2" / "model_zoo" / "configs").rglob("*.py")):
        raise InstallError("detectron2/model_zoo/configs holds no configs to package")
    substitute(
        source_dir / "setup.py",
        r'(package_data=\{"detectron2\.model_zoo": )get_model_zoo_configs\(\)\}',
        r'\1["configs/**/*.py", "configs/**/*.yaml"]}',
    )


def apply_fixes(source_dir: Path) -> None:
    """Fix the unpacked archive of detectron2 0.5 in place.

    Args:
        source_dir: The folder that holds its setup.py.

    Raises:
        InstallError: If a fix finds nothing to fix, for then this is not the source that the fixes
            were written for.
    """
    for fix in (
        drop_extensions,
        add_operators_stub,
        rename_pillow_filter,
        replace_numpy_aliases,
        relax_requirements,
        drop_tools,
        package_configs,
    ):
        try:
            fix(source_dir)
        except OSError as error:
            raise InstallError(f"fix {fix.__name__} cannot be applied: {error}") from error
