"""What a peer is: something that runs a scenario on the harness's arrays."""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ..scenarios import Array, Problem


class UnavailableError(Exception):
    """The peer cannot run here (a package is missing) or does not have the scenario."""


@dataclass(frozen=True)
class Job:
    """One scenario, prepared.

    `run` is what the clock sees. `collect` turns its result into NumPy arrays under the names of
    `numpy_peer.reference`, for the verification, and is never timed.
    """

    run: Callable[[], Any]
    collect: Callable[[Any], dict[str, Array]]


class Peer(abc.ABC):
    """A library under test. Making one raises UnavailableError where the library is missing."""

    name: ClassVar[str]
    # At most so many rounds; a peer that nobody competes with need not cost a third of the time.
    max_rounds: ClassVar[int] = 1000
    # How long this library's worker threads may go on spinning after a call, in seconds. The
    # harness waits so long before it times the next peer, which needs their cores.
    settle_s: ClassVar[float] = 0.01

    @abc.abstractmethod
    def version(self) -> str:
        """The library's version."""

    def details(self) -> dict[str, Any]:
        """What else decides its speed (instruction set, BLAS), for the record."""
        return {}

    @abc.abstractmethod
    def set_threads(self, threads: int) -> None:
        """Pin the number of threads; raises RuntimeError where the library refuses."""

    @abc.abstractmethod
    def prepare(self, scenario: str, problem: Problem) -> Job:
        """Everything that a caller does once: conversions, weights into a layer."""

    def matmuls(self, a: Array, b: Array) -> list[Callable[[], Any]]:
        """Calls of the library's own matrix products, for the ceiling; none by default."""
        return []


def require(package: str) -> Any:
    """Import a package that a peer needs, or raise UnavailableError with a word."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UnavailableError(f"{package} is not installed ({error})") from error
