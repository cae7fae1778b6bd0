"""Probes of the machine: probes.c, compiled on the fly and run in as many threads as a table has.

The rates are sums over the threads: GFLOP/s from registers, GB/s of reads from each level of
memory, on 2 MB pages and, for the second-level cache, on 4 KB pages too. Beside them stand how many
cores the threads have, and the latency between two of them.

Each thread is tied to a CPU of its own: where the system puts new threads, at times two on one CPU,
is no fact of the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE = Path(__file__).with_name("probes.c")
# A measurement takes at least so many seconds, and the best of so many counts.
MIN_TIME = 0.02
REPEATS = 7
FMA_ROUNDS = 2_000_000  # of the count of cores: some milliseconds, before and after every case
TRIPS = 16000  # of a number between two threads, a multiple of 16


class ProbeError(Exception):
    """The probes cannot be had here."""


class Probes:
    """The compiled probes; raises ProbeError with a word where there is no compiler."""

    def __init__(self) -> None:
        compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), "")
        if not compiler:
            raise ProbeError("no C compiler (cc, gcc, clang or $CC)")
        native = "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "probes.so"
            command = [*compiler.split(), "-O3", native, "-ffp-contract=fast", "-shared", "-fPIC"]
            try:
                done = subprocess.run(
                    [*command, "-o", str(library), str(SOURCE)],
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise ProbeError(f"{compiler} does not run ({error})") from error
            if done.returncode != 0:
                raise ProbeError(f"{compiler} failed: {done.stderr.strip().splitlines()[-1:]}")
            self._library = ctypes.CDLL(str(library))
        self._declare()

    def _declare(self) -> None:
        library = self._library
        for name in ("fma", "bf16", "amx"):
            getattr(library, f"probe_{name}_operations").restype = ctypes.c_double
            run = getattr(library, f"probe_{name}")
            run.restype, run.argtypes = ctypes.c_double, [ctypes.c_long]
        library.probe_allocate.restype = ctypes.c_void_p
        library.probe_allocate.argtypes = [ctypes.c_size_t, ctypes.c_int]
        library.probe_release.argtypes = [ctypes.c_void_p]
        library.probe_read.restype = ctypes.c_double
        library.probe_read.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
        library.probe_core_latency.restype = ctypes.c_double
        library.probe_core_latency.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long]

    def measure(self, threads: int, cache_bytes: dict[str, int]) -> dict[str, float]:
        """All rates; `cache_bytes` has the sizes of L1d, L2 and L3 as far as they are known.

        What the machine lacks is left out.
        """
        rates = {}
        for name in ("fma", "bf16", "amx"):
            operations = getattr(self._library, f"probe_{name}_operations")()
            run = getattr(self._library, f"probe_{name}")
            if operations and run(1) >= 0:
                rates[f"{name}_gflops"] = self._rate(run, operations, threads)
        for name, (size, huge) in _buffers(cache_bytes, threads).items():
            rates[f"{name}_gbs"] = self._read_rate(size, huge, threads)
        return {name: float(f"{rate:.4g}") for name, rate in rates.items()}

    def cores(self, threads: int) -> float:
        """How many times one thread's rate of arithmetic so many threads reach together.

        Less than their number where two CPUs are hardware threads of one core, as those of a
        virtual machine are at times.
        """
        alone, together = (
            min(_together(self._library.probe_fma, FMA_ROUNDS, count) for _ in range(REPEATS))
            for count in (1, threads)
        )
        return float(f"{threads * alone / together:.3g}")

    def core_latency_ns(self) -> float:
        """Nanoseconds in which a number goes from one thread to another and back.

        CPUs of one die do it in a fifth of the time that those of two dies take, and those of a
        virtual machine move: it is worth measuring beside whatever threads do together.
        """
        memory = self._library.probe_allocate(4096, 0)
        if memory is None:
            raise ProbeError("no memory for 4096 bytes")

        def trips(side: int) -> float:
            _take_cpu(side)
            return float(self._library.probe_core_latency(memory, side, TRIPS))

        try:
            with ThreadPoolExecutor(2) as threads:
                first, second = threads.map(trips, (0, 1))
            return float(f"{min(first, second):.3g}")
        finally:
            self._library.probe_release(memory)

    def _read_rate(self, size: int, huge: bool, threads: int) -> float:
        library = self._library
        memory = [library.probe_allocate(size, int(huge)) for _ in range(threads)]
        try:
            if None in memory:
                raise ProbeError(f"no memory for {size} bytes")
            local = threading.local()
            free = list(memory)

            def read(rounds: int) -> None:
                if not hasattr(local, "memory"):
                    local.memory = free.pop()
                library.probe_read(local.memory, size, rounds)

            # Each measurement has new threads, so each starts with all buffers.
            return self._rate(read, size, threads, lambda: free.__setitem__(slice(None), memory))
        finally:
            for pointer in memory:
                library.probe_release(pointer)

    def _rate(
        self,
        run: Callable[[int], object],
        work: float,
        threads: int,
        restart: Callable[[], object] = lambda: None,
    ) -> float:
        """Billions of units of work a second in all threads, of which a round does `work`."""
        rounds, best = 1, 0.0
        while True:
            restart()
            seconds = _together(run, rounds, threads)
            if seconds >= MIN_TIME:
                break
            rounds *= 2
        for _ in range(REPEATS):
            restart()
            best = max(best, rounds * threads * work / _together(run, rounds, threads) / 1e9)
        return best


def _together(run: Callable[[int], object], rounds: int, threads: int) -> float:
    """Seconds from the common start to the last end of `run(rounds)` in each of so many threads."""
    start = threading.Barrier(threads)
    spans: list[tuple[float, float]] = []

    def body(number: int) -> None:
        _take_cpu(number)
        run(1)  # brings this thread's memory into its caches
        start.wait()
        began = time.perf_counter()
        run(rounds)
        spans.append((began, time.perf_counter()))

    workers = [threading.Thread(target=body, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return max(end for _, end in spans) - min(began for began, _ in spans)


def _take_cpu(number: int) -> None:
    """Tie this thread to that one of the CPUs it may use, where the system allows it."""
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {cpus[number % len(cpus)]})


def _buffers(cache_bytes: dict[str, int], threads: int) -> dict[str, tuple[int, bool]]:
    """Bytes for each thread, and whether on huge pages, of each read probe.

    Half a level's size, so that it fits beside whatever else is there; more than twice the last
    level for memory.
    """
    l1 = cache_bytes.get("L1d", 32 << 10)
    l2 = cache_bytes.get("L2", 512 << 10)
    l3 = cache_bytes.get("L3", 0)
    buffers = {
        "l1": (_whole(l1 // 2), True),
        "l2": (_whole(l2 // 2), True),
        "l2_small_pages": (_whole(l2 // 2), False),
        "memory": (_whole(max(2 * l3, 4 * l2, 64 << 20) // threads), True),
    }
    if l3 // (2 * threads) > 2 * l2:
        buffers["l3"] = (_whole(l3 // (2 * threads)), True)
    return buffers


def _whole(size: int) -> int:
    """Rounded down to what `probe_read` takes in one iteration."""
    return size // 4096 * 4096
