"""What timm, an extra, says of its models: which there are, and how their images are normalised."""

from __future__ import annotations

import difflib
from types import ModuleType
from typing import Any

from .errors import MissingExtraError


def require_timm() -> ModuleType:
    """The package timm.

    Raises:
        MissingExtraError: it is not installed; the message says how it is.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(
            "networks of timm need the package timm, which is an extra: "
            "pip install 'dense_kd[timm]'"
        ) from error
    return timm


def check_timm_name(name: str) -> None:
    """Check that timm has a model of that name; the tag of its weights may follow.

    Raises:
        MissingExtraError: timm is not installed.
        ValueError: it has none; the message says which names are near.
    """
    timm = require_timm()
    if isinstance(name, str) and ":" not in name and timm.is_model(name):
        return
    near = difflib.get_close_matches(str(name), timm.list_models(), n=5)
    raise ValueError(
        f"timm {timm.__version__} has no model {name!r}; "
        + (f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists those it has")
    )


def timm_normalisation(name: str) -> dict[str, Any]:
    """How a detector has to normalise images for the ImageNet weights of a model of timm.

    Args:
        name: of the model; the tag of its weights may follow.

    Returns:
        "pixel_mean", "pixel_std" (of pixels from 0 to 255) and "input_format", which are arguments
        of every detector.

    Raises:
        MissingExtraError: timm is not installed.
        ValueError: it has no such model, or no weights of it.
    """
    timm = require_timm()
    check_timm_name(name)
    weights = timm.models.get_pretrained_cfg(name)
    if weights is None or not weights.has_weights:
        raise ValueError(
            f"timm has no weights of {name} and so does not say how images are normalised for "
            "them; give pixel_mean, pixel_std and input_format"
        )
    return {
        "pixel_mean": [round(255 * value, 4) for value in weights.mean],
        "pixel_std": [round(255 * value, 4) for value in weights.std],
        "input_format": "RGB",
    }
