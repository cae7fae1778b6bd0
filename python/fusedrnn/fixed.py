"""Objects whose public attributes stay as they were made."""

from __future__ import annotations

from typing import Any


class Fixed:
    """Refuses to set or delete the public attributes there are when `_fix` is called.

    What an object computes with was made from them: a later change would reach a part of it.
    """

    # Kept here, for an object whose `__dict__` anybody has asked for is slower to read: a single
    # step of a small cell would notice.
    _public: frozenset[str] = frozenset()
    _fixed: frozenset[str] = frozenset()

    def _fix(self) -> None:
        self._fixed = self._public

    def __setattr__(self, name: str, value: Any) -> None:
        self._check_free(name)
        super().__setattr__(name, value)
        if not name.startswith("_"):
            self._public = self._public | {name}

    def __delattr__(self, name: str) -> None:
        self._check_free(name)
        super().__delattr__(name)
        self._public = self._public - {name}

    def _check_free(self, name: str) -> None:
        if name in self._fixed:
            raise AttributeError(
                f"{name}: of {self!r} it cannot be changed; make a new {type(self).__name__}"
            )
