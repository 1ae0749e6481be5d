"""What methods get where no detector teaches."""

from __future__ import annotations

from typing import Any, NoReturn


class NoTeacher:
    """In place of a detector that is the teacher, of its pass, and of what it does in a step; to
    read anything of it, or to call it, is an error."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise LookupError(
            "no detector is the teacher of this run (teacher=None), as its methods say that they "
            "read none; a method that does has needs=Needs(predictions=True, features=True), which "
            "is the default, and such runs are refused"
        )

    __call__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Python asks for these, as to copy it
            raise AttributeError(name)
        self._refuse()


NO_TEACHER: Any = NoTeacher()
"""There is only one."""
