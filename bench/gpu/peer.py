"""What a peer on the GPU is: ways to run a case, of which the fastest right one counts."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..peers.base import UnavailableError
from .scenarios import Case, Problem


@dataclass(frozen=True)
class Job:
    """A case, prepared: one call for each set of data, and names for what the first returns.

    `keep` holds what a library was given the bare address of.
    """

    calls: Sequence[Callable[[], Any]]
    collect: Callable[[Any], dict[str, Any]]
    keep: Any = None


@dataclass(frozen=True)
class Variant:
    """A way to run a case; its calls are replayed as CUDA graphs where `graph`.

    `eager_too`: where the call cannot be captured, its plain calls are timed instead. Ways of one
    `group` launch the same kernels but for their arithmetic: of those, the fastest plain call alone
    is captured.
    """

    label: str
    make: Callable[[Sequence[Problem]], Job]
    graph: bool = False
    eager_too: bool = False
    group: str = ""


class Peer(abc.ABC):
    """A library. Making one raises UnavailableError where it is missing.

    `quick`: of its ways to run a case, those alone that are likely to be the fastest.
    """

    quick = False

    def __init__(self, name: str) -> None:
        self.name = name

    @abc.abstractmethod
    def version(self) -> str:
        """The library's version."""

    @abc.abstractmethod
    def variants(self, case: Case) -> list[Variant]:
        """Ways to run the case; UnavailableError says why there is none."""


__all__ = ["Job", "Peer", "UnavailableError", "Variant"]
