"""What `layer.parameters()` returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from fusedrnn.layers.devices import Array


class Parameters(dict[str, Array]):
    """A layer's parameters by name. What is assigned to a name is written into the layer's array.

    `p[name] = values`, `p[name] -= step`, `p.update(...)` and `p |= ...` take what
    `Layer.load_state_dict` takes, for some of the names: arrays of any kind, in the parameter's
    shape, of any floating dtype. Either all of an `update` is written or nothing. Names neither
    come nor go: a `KeyError` or `TypeError` says so. Copies (`p.copy()`, `p | other`, `dict(p)`,
    pickles) are dicts as any other.
    """

    def __init__(
        self, arrays: Mapping[str, Array], owner: object, write: Callable[[dict[str, Any]], None]
    ) -> None:
        super().__init__(arrays)
        self._owner = owner
        self._write = write

    def __setitem__(self, name: str, value: Any) -> None:
        # Of p[a], p[b] = p[b], p[a] the second would read what the first has written.
        for other, array in self.items():
            if other != name and _shares_memory(array, value):
                raise ValueError(
                    f"{name}: expected values of its own, got the array of {other}; give a copy"
                )
        self.update({name: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        values = dict(*args, **kwargs)
        for name in values:
            self._check(name)
        # After p[name] -= step the array itself comes back, already changed.
        self._write({name: value for name, value in values.items() if value is not self[name]})

    def __ior__(self, other: Any) -> Parameters:  # type: ignore[override,misc]
        self.update(other)
        return self

    def setdefault(self, name: str, default: Any = None) -> Array:
        self._check(name)
        return self[name]

    def __delitem__(self, name: str) -> NoReturn:
        self._refuse("del")

    def pop(self, *args: Any) -> NoReturn:
        self._refuse("pop")

    def popitem(self) -> NoReturn:
        self._refuse("popitem")

    def clear(self) -> NoReturn:
        self._refuse("clear")

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def _check(self, name: object) -> None:
        if name not in self:
            raise KeyError(f"{name}: expected a parameter of {self._owner!r}, one of {list(self)}")

    def _refuse(self, operation: str) -> NoReturn:
        raise TypeError(
            f"{operation}: the parameters of {self._owner!r} can be changed, not removed; "
            "take a copy: dict(layer.parameters())"
        )


def _shares_memory(array: Array, value: Any) -> bool:
    if isinstance(array, np.ndarray) and isinstance(value, np.ndarray):
        return np.may_share_memory(array, value)
    return array is value
