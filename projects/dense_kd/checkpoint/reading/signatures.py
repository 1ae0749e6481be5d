"""What a file is that is no checkpoint of ours: by how it begins, by its keys, by what it holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_PATTERNS: dict[str, bytes] = {
    "a pointer of Git LFS, not the file itself (fetch that with 'git lfs pull')": (
        rb"version https://git-lfs"
    ),
    "a web page, not the file that was to be downloaded": rb"\s*<(!doctype|html|\?xml|head)",
    "a file of safetensors, which is not read here (load it with its own library and torch.save "
    "the tensors)": rb"[\s\S]{8}\{\s*\"",
    "JSON or a config": rb"\s*[{\[]\s*[\"{\[\]}]",
    "compressed (unpack it first)": rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd",
    "an HDF5 file, such as Keras writes": rb"\x89HDF",
    "one array of numpy (.npy)": rb"\x93NUMPY",
    "a picture": rb"\x89PNG|\xff\xd8\xff",
    "a PDF": rb"%PDF",
}

_TAR = (257, b"ustar")


def describe(head: bytes) -> str | None:
    """What a file that begins with ``head`` (512 bytes) is, None if it may be a checkpoint."""
    if not head:
        return "empty"
    if not head.strip(b"\0"):
        return "nothing but zeros, as a disk that was full may leave it"
    if head[_TAR[0] : _TAR[0] + len(_TAR[1])] == _TAR[1]:
        return "a tar archive (unpack it, or if torch before 0.1.10 wrote it, save it anew there)"
    for what, pattern in _PATTERNS.items():
        if re.match(pattern, head, re.IGNORECASE):
            return what
    return None


_KEYS = {
    "DETR": r"transformer\.(encoder|decoder)\.|class_embed\.",
    "one of ultralytics' YOLO": r"model\.\d+\.(conv|cv\d|m\.|bn)|\d+\.(conv|cv\d)\.",
    "a two-stage detector of detectron2": r"proposal_generator\.|roi_heads\.",
    "a two-stage detector of mmdetection": r"rpn_head\.|roi_head\.",
    "SSD or VGG": r"features\.\d+\.(weight|bias)$|backbone\.features\.",
    "a vision transformer": r"blocks\.\d+\.attn\.|encoder\.layers\.",
    "a language model": r"(transformer\.h|bert|lm_head|layers\.\d+\.self_attn)",
}
"""{kind of model: what one of its keys begins with}"""


def describe_keys(keys: Iterable[str]) -> str | None:
    """Whose weights have such keys, None if that is not known."""
    keys = list(keys)
    return next((who for who, p in _KEYS.items() if any(re.match(p, k) for k in keys)), None)


def describe_content(content: Any) -> str:
    """The content of a file that holds no weights, in words."""
    if isinstance(content, Mapping):
        if {"state", "param_groups"} <= set(content):
            return "the state of an optimizer"
        if "optimizer" in content and len(content) < 5:
            return f"an optimizer without a model (keys {sorted(map(str, content))})"
        found = str(sorted(map(str, content))[:10])
        kinds = ((key, type(value).__name__) for key, value in content.items())
        other = next(((k, kind) for k, kind in kinds if kind not in ("Tensor", "ndarray")), None)
        return (
            f"{found}, of which {other[0]!r} is a {other[1]}, expected a tensor" if other else found
        )
    if isinstance(content, (list, tuple)):
        return f"a {type(content).__name__} of {len(content)} values"
    return f"one {type(content).__name__}"
