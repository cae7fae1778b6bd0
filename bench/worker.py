"""A peer in a process of its own.

For peers whose settings hold for a whole process (JAX's thread pool, the compiler's switches), and
with `--isolate` for all: then a crash costs one row. The process is tied to as many CPUs as it has
threads before the peer's library is imported. Calls are timed inside it; it makes the random
problem itself, from the same seed, and sends back results for the verification alone.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import machine
from .peers import PEERS, Job, Peer, UnavailableError, make_peer
from .scenarios import Array, Problem, Shape, random_problem
from .timing import samples

# A request that takes longer, in seconds, ends the process.
TIME_LIMIT_S = 240.0


def load_peer(name: str, *, isolate: bool = False) -> Peer:
    """The peer of that name; raises UnavailableError where a package that it needs is missing.

    `isolate` puts it into a process of its own even where it could share this one.
    """
    return WorkerPeer(name) if isolate or PEERS[name].isolated else make_peer(name)


class WorkerPeer(Peer):
    """The peer of that name in other processes, one for each number of threads."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._processes: dict[int, _Process] = {}
        self._threads = 1
        # Absent packages show here; the process then serves the first cases.
        facts = self._request("describe")
        self._version, self._details = facts["version"], facts["details"]
        self.settle_s, self.tolerance = facts["settle_s"], facts["tolerance"]  # type: ignore[misc]
        self.max_rounds = facts["max_rounds"]  # type: ignore[misc]

    def version(self) -> str:
        return str(self._version)

    def details(self) -> dict[str, Any]:
        return {"own_process": True, **self._details}

    def set_threads(self, threads: int) -> None:
        self._threads = threads
        self._request("set_threads", threads)

    def prepare(self, scenario: str, problem: Problem) -> Job:
        self._request("prepare", scenario, problem.shape, problem.dtype, problem.seed)
        return Job(
            lambda: self._request("run"),
            lambda _: self._collected(),
            lambda calls: list(self._request("sample", calls)),
        )

    def peak(self, problem: Problem) -> tuple[int, dict[str, Array]]:
        """Bytes that a training step holds at most beyond its inputs, and the step's results.

        Of a process that has taken one other step, of at most two time steps.
        """
        found = int(self._request("peak", problem.shape, problem.dtype, problem.seed))
        return found, self._collected()

    def close(self) -> None:
        for process in self._processes.values():
            process.close()
        self._processes.clear()

    def _collected(self) -> dict[str, Array]:
        arrays: dict[str, Array] = self._request("collect")
        return arrays

    def _request(self, name: str, *arguments: Any) -> Any:
        if self._threads not in self._processes:
            self._processes[self._threads] = _Process(self.name, self._threads)
        try:
            return self._processes[self._threads].request(name, *arguments)
        except _GoneError as why:
            del self._processes[self._threads]
            raise RuntimeError(str(why)) from why


class _GoneError(Exception):
    """The process has ended or was ended."""


class _Process:
    """One process and the pipe to it."""

    def __init__(self, name: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, name, threads), daemon=True, name=f"bench {name}"
        )
        self._process.start()
        theirs.close()

    def request(self, *words: Any) -> Any:
        try:
            self._pipe.send(words)
            if not self._pipe.poll(TIME_LIMIT_S):
                self.close()
                raise _GoneError(f"{words[0]} took longer than {TIME_LIMIT_S:.0f} s")
            status, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(10)
            code = self._process.exitcode
            self.close()
            raise _GoneError(f"its process ended with code {code}") from error
        if status == "unavailable":
            raise UnavailableError(value)
        if status == "failed":
            raise RuntimeError(value)
        return value

    def close(self) -> None:
        self._pipe.close()  # which ends a process that waits for a request
        self._process.join(0.5)
        if self._process.is_alive():
            self._process.kill()
        self._process.join(10)


def _serve(pipe: Any, name: str, threads: int) -> None:
    """Answer requests until the other end closes the pipe."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    served = _Served(name)
    while True:
        try:
            word, *arguments = pipe.recv()
        except EOFError:
            return
        handler: Callable[..., Any] = getattr(served, word)
        try:
            answer = ("ok", handler(*arguments))
        except UnavailableError as why:
            answer = ("unavailable", str(why))
        except Exception as why:  # the row tells of it
            last = traceback.extract_tb(why.__traceback__)[-1]
            answer = ("failed", f"{type(why).__name__}: {why} ({last.name}:{last.lineno})")
        pipe.send(answer)


class _Served:
    """What the process does for each request."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._peer: Peer | None = None
        self._job: Job | None = None
        self._result: Any = None

    def _made(self) -> Peer:
        if self._peer is None:
            self._peer = make_peer(self._name)
        return self._peer

    def describe(self) -> dict[str, Any]:
        peer = self._made()
        return {
            "version": peer.version(),
            "details": peer.details(),
            "settle_s": peer.settle_s,
            "tolerance": peer.tolerance,
            "max_rounds": peer.max_rounds,
        }

    def set_threads(self, threads: int) -> None:
        self._made().set_threads(threads)

    def prepare(self, scenario: str, shape: Shape, dtype: str, seed: int) -> None:
        self._job = self._result = None  # the memory of the case before
        problem = random_problem(shape, seed=seed, dtype=dtype)
        self._job = self._made().prepare(scenario, problem)

    def peak(self, shape: Shape, dtype: str, seed: int) -> int:
        # What a library loads and starts once is not a step's.
        self.prepare("memory", replace(shape, steps=min(shape.steps, 2)), dtype, seed)
        self.run()
        self.prepare("memory", shape, dtype, seed)
        # Nor is it free to use what the call before left behind.
        self._made().release_memory()
        try:
            before = machine.start_peak()
        except OSError as why:
            raise UnavailableError(f"no peak of memory without Linux's /proc ({why})") from why
        self.run()
        return machine.held_bytes(peak=True) - before

    def _prepared(self) -> Job:
        if self._job is None:
            raise RuntimeError("nothing is prepared")
        return self._job

    def run(self) -> None:
        self._result = self._prepared().run()

    def collect(self) -> dict[str, Array]:
        return self._prepared().collect(self._result)

    def sample(self, calls: int) -> list[float]:
        return samples(self._prepared().run, calls)
