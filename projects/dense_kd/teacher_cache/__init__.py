"""What a teacher made of an image, kept for the next time that it is shown the same one.

A teacher never changes. Where the same pixels come again, in the same padding, its pass over them
is the pass of the time before, and :class:`TeacherCache` has it: per image, as the maps that come
out of backbone and head, and of these only what the methods of a run read. Priors, decoded boxes
and expectations are made from them anew. For runs that see the same batches it has them by batch.
"""

from .cache import CACHE_PRECISIONS, CACHE_UNITS, IN_MEMORY, TeacherCache, key_of
from .fingerprint import Fingerprint

__all__ = ["CACHE_PRECISIONS", "CACHE_UNITS", "IN_MEMORY", "Fingerprint", "TeacherCache", "key_of"]
