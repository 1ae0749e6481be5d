"""Distillation methods: one paper, one file."""

from .balance import Balance
from .base import DistillationError, KDMethod, MethodSet, Needs, Step
from .base.class_maps import ClassMap
from .bckd import BCKD
from .cankd import CanKD
from .crosskd import CrossKD
from .dsi import DSI
from .fgd import FGD
from .fkd import FKD
from .from_teacher import FromTeacher
from .frs import FRS
from .imitation import FGFI, DeFeat, FitNet, GIBox
from .kd import KD
from .ld import LD
from .mgd import MGD
from .pgd import PGD
from .pkd import PKD
from .tid import TID

__all__ = [
    "BCKD",
    "DSI",
    "FGD",
    "FGFI",
    "FKD",
    "FRS",
    "KD",
    "LD",
    "MGD",
    "PGD",
    "PKD",
    "TID",
    "CanKD",
    "Balance",
    "ClassMap",
    "CrossKD",
    "DeFeat",
    "DistillationError",
    "FitNet",
    "FromTeacher",
    "GIBox",
    "KDMethod",
    "MethodSet",
    "Needs",
    "Step",
    "method_classes",
]


def method_classes() -> dict[str, type[KDMethod]]:
    """{name of the class: class} of all methods here, by name, without regard to case."""
    exported = ((name, globals()[name]) for name in sorted(__all__, key=str.lower))
    return {
        name: value
        for name, value in exported
        if isinstance(value, type) and issubclass(value, KDMethod) and value is not KDMethod
    }
