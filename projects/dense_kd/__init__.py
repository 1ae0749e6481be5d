"""dense_kd: knowledge distillation for dense object detectors, on Detectron2.

Its names are those of :mod:`.public`. They are imported when one is asked for, for what needs
neither torch nor detectron2, as the help of ``dense-kd``, should not wait for them.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("detectron2") is None:
    raise ImportError(
        "dense_kd needs detectron2, which no package registry holds under that name: run "
        "`python tools/install_detectron2.py` of the dense_kd repository, or install it from its "
        "own"
    )

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .public import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # Modules first: one that is being imported may ask for another.
        module = f"{__name__}.{name}"
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
        public = importlib.import_module(f"{__name__}.public")
        if not hasattr(public, name):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = getattr(public, name)
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *importlib.import_module(f"{__name__}.public").__all__})
