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

    `run` is what the clock sees. `collect` turns its result into float32 NumPy arrays under the
    names of `numpy_peer.reference`, for the verification, and is never timed. A job of the step
    scenario keeps its state: each `run` takes the next of the problem's inputs and goes on from
    the state of the call before, the first one from h0 (c0); its y is [1,B,H]. One of the memory
    scenario is a training step.

    `sample`, where given, times so many calls itself and returns the seconds of each: for jobs
    that run in another process. `keep` holds what a library was given the bare address of.
    """

    run: Callable[[], Any]
    collect: Callable[[Any], dict[str, Array]]
    sample: Callable[[int], list[float]] | None = None
    keep: Any = None


class Peer(abc.ABC):
    """A way to run the cells. Making one raises UnavailableError where its library is missing."""

    # At most so many rounds; a peer that nobody competes with need not cost a third of the time.
    max_rounds: ClassVar[int] = 1000
    # How long this library's worker threads may go on spinning after a call, in seconds. The
    # harness waits so long before it times the next peer, which needs their cores.
    settle_s: float = 0.01
    # The largest relative error that this peer may have where its own precision explains more
    # than the class allows.
    tolerance: ClassVar[float] = 0.0

    def __init__(self, name: str) -> None:
        self.name = name

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
        """Everything that a caller does once: conversions, weights into a layer, compilation."""

    def matmuls(self, a: Array, b: Array, dtype: str) -> list[Callable[[], Any]]:
        """Calls of the library's own matrix products, for the ceiling; none by default."""
        return []

    def release_memory(self) -> None:  # noqa: B027 (a default, not a forgotten method)
        """Give back what the library keeps for later calls, where it can; nothing by default."""

    def close(self) -> None:  # noqa: B027 (a default, not a forgotten method)
        """Give back what outlives the object; nothing by default."""


def require(package: str) -> Any:
    """Import a package that a peer needs, or raise UnavailableError with a word."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UnavailableError(f"{package} is not installed ({error})") from error


def only(scenario: str, *known: str) -> None:
    """Raise UnavailableError unless the scenario is one of `known`."""
    if scenario not in known:
        raise UnavailableError(f"has no {'training' if scenario == 'memory' else scenario}")
