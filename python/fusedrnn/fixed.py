"""Objects whose public attributes stay as they were made."""

from __future__ import annotations

from typing import Any


class Fixed:
    """Refuses to set or delete the public attributes there are when `_fix` is called.

    What an object computes with was made from them: a later change would reach a part of it.
    """

    def _fix(self) -> None:
        self._fixed = frozenset(name for name in vars(self) if not name.startswith("_"))

    def __setattr__(self, name: str, value: Any) -> None:
        self._check_free(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._check_free(name)
        super().__delattr__(name)

    def _check_free(self, name: str) -> None:
        if name in self.__dict__.get("_fixed", ()):
            raise AttributeError(
                f"{name}: of {self!r} it cannot be changed; make a new {type(self).__name__}"
            )
