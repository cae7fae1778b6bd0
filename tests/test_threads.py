"""Threads, forks, the environment and the floating-point mode: what a process may do around calls.

Whatever needs a process of its own (an environment, a fork, an affinity) runs as a script in one,
with NumPy and this package alone in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from support import (
    HARD,
    Arguments,
    backward,
    directions,
    dtypes,
    forward,
    infer,
    problem_of,
    same_bits,
    variants,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="affinity and /proc are Linux's")
fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# From one thread's work to enough for several, cut by units and by rows.
SHAPES: list[dict[str, Any]] = [
    {"steps": 3, "batch": 1, "input_size": 5, "hidden_size": 9},
    {"steps": 12, "batch": 1, "input_size": 40, "hidden_size": 300},
    {"steps": 40, "batch": 21, "input_size": 33, "hidden_size": 130},
]
# Work for 64 threads, by units alone and by both.
MANY: list[dict[str, Any]] = [
    {"steps": 20, "batch": 1, "input_size": 32, "hidden_size": 512},
    {"steps": 6, "batch": 33, "input_size": 17, "hidden_size": 256},
]


pytestmark = pytest.mark.usefixtures("keeps_threads")


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in its own process; of what we read from the environment it gets `environment`.

    FUSEDRNN_ISA is handed on unless given, so that a run of the tests in one instruction set is one
    in all processes.
    """
    ours = {"FUSEDRNN_NUM_THREADS", "OMP_NUM_THREADS"}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def output(script: str, **environment: str) -> str:
    """What the script prints; it must end well and complain of nothing."""
    result = run(script, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


# Bits


@variants
@dtypes
@directions
def test_any_number_of_threads_gives_the_same_bits(
    cell: str, options: Arguments, dtype: str, reverse: bool
) -> None:
    for seed, shape in enumerate(SHAPES):
        problem, upstream = problem_of(cell, dtype, **shape, **HARD, seed=seed)
        expected: list[Any] = []
        for threads in (1, 2, 3):
            fr.set_num_threads(threads)
            got, tape = forward(cell, **problem, **options, reverse=reverse)
            results = [infer(cell, **problem, **options, reverse=reverse), got]
            results.append(backward(cell, tape, **upstream))
            expected = expected or results
            for now, before in zip(results, expected, strict=True):
                same_bits(now, before)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_more_threads_than_cpus_end_with_the_same_bits(cell: str) -> None:
    for shape in MANY:
        problem, upstream = problem_of(cell, "float32", **shape, seed=7)
        expected: list[Any] = []
        for threads in (1, 16, 64, 2, 64):
            fr.set_num_threads(threads)
            got, tape = forward(cell, **problem)
            results = [infer(cell, **problem), got, backward(cell, tape, **upstream)]
            expected = expected or results
            for now, before in zip(results, expected, strict=True):
                same_bits(now, before)


@dtypes
def test_denormals_are_flushed_by_every_thread_alike(dtype: str) -> None:
    tiny = np.finfo(dtype).tiny
    problem, upstream = problem_of("rnn", dtype, **SHAPES[2], seed=1)
    small = {name: value * tiny for name, value in problem.items() if name in ("x", "h0")}
    upstream = {name: value * tiny for name, value in upstream.items()}
    options = {"nonlinearity": "identity"}
    weights = {name: problem[name] for name in ("w_ih", "w_hh")}
    expected: Any = None
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        got, tape = forward("rnn", **weights, **small, **options)
        grads = backward("rnn", tape, **upstream)
        for value in (got | grads).values():
            assert not np.any((value != 0) & (np.abs(value) < tiny))
        expected = expected or got | grads
        same_bits(got | grads, expected)
    assert np.any(expected["y"])


def test_calls_from_many_threads_at_once() -> None:
    fr.set_num_threads(2)
    problems = [problem_of("lstm", "float32", **SHAPES[2], seed=seed) for seed in range(8)]

    def results_of(problem: Arguments, upstream: Arguments) -> dict[str, Any]:
        got, tape = forward("lstm", **problem)
        return got | backward("lstm", tape, **upstream)

    expected = [results_of(*problem) for problem in problems]
    together = threading.Barrier(len(problems))
    rounds: list[list[dict[str, Any]]] = [[] for _ in problems]

    def call(number: int) -> None:
        together.wait()
        rounds[number].extend(results_of(*problems[number]) for _ in range(5))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(len(problems))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, right in zip(rounds, expected, strict=True):
        assert len(got) == 5
        for result in got:
            same_bits(result, right)


def test_the_number_of_threads_may_change_amid_calls() -> None:
    problem, _ = problem_of("gru", "float32", **SHAPES[2], seed=3)
    expected = infer("gru", **problem)
    done = threading.Event()

    def change() -> None:
        n = 0
        while not done.is_set():
            fr.set_num_threads(1 + n % 4)
            n += 1

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(50):
            same_bits(infer("gru", **problem), expected)
    finally:
        done.set()
        changer.join()


# Processes

# A call large enough for several threads; `answer()` gives all its bits.
CALL = """
import os, sys, threading
import numpy as np
import fusedrnn

rng = np.random.default_rng(0)
def array(*shape):
    return rng.standard_normal(shape).astype("float32") / 10
x, w_ih, w_hh = array(40, 16, 30), array(480, 30), array(480, 120)
fusedrnn.set_num_threads(3)

def answer():
    y, (h_n, c_n), tape = fusedrnn.lstm_forward(x, w_ih, w_hh)
    grads = fusedrnn.lstm_backward(tape, dy=y)
    arrays = [y, h_n, c_n, grads.dx, grads.dw_ih, grads.dw_hh, grads.dh0, grads.dc0]
    return b"".join(a.tobytes() for a in arrays)

def workers():
    tasks = os.listdir("/proc/self/task")
    names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in tasks]
    return names.count("fusedrnn")
"""


@linux
def test_workers_are_made_when_they_are_needed() -> None:
    script = CALL + "print(workers()); answer(); print(workers())"
    before, after = output(script).split()
    assert before == "0"
    assert 1 <= int(after) <= 2


# In Python 3.12 and newer a fork beside our workers is warned of; it is what we promise to stand.
FORK = (
    "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
    + CALL
    + """
def in_child(ends):
    pid = os.fork()
    if pid == 0:
        right = answer() == expected
        if sys.platform == "linux":
            right = right and workers() > 0
        ends(0 if right else 1)
    assert os.waitpid(pid, 0)[1] == 0
expected = answer()
"""
)


@fork
@pytest.mark.parametrize("ends", ["os._exit", "sys.exit"])
def test_fork(ends: str) -> None:
    """The child has the parent's bits and workers of its own, and the parent still has its."""
    script = FORK + f"for _ in range(5): in_child({ends}); assert answer() == expected\n"
    assert output(script + "print('done')") == "done"


@fork
def test_fork_amid_the_calls_of_another_thread() -> None:
    script = FORK + (
        "stop = threading.Event()\n"
        "def call():\n"
        "    while not stop.is_set(): answer()\n"
        "caller = threading.Thread(target=call); caller.start()\n"
        "for _ in range(10): in_child(os._exit)\n"
        "stop.set(); caller.join(); assert answer() == expected; print('done')"
    )
    assert output(script) == "done"


@fork
def test_multiprocessing_by_fork() -> None:
    script = FORK + (
        "import multiprocessing\n"
        "def task(_): return answer()\n"
        "with multiprocessing.get_context('fork').Pool(3) as pool:\n"
        "    assert pool.map(task, range(12)) == [expected] * 12\n"
        "print('done')"
    )
    assert output(script) == "done"


def test_the_end_of_a_process_that_is_still_computing() -> None:
    script = CALL + (
        "ready = threading.Semaphore(0)\n"
        "def call():\n"
        "    while True: answer(); ready.release()\n"
        "for _ in range(3): threading.Thread(target=call, daemon=True).start()\n"
        "for _ in range(6): ready.acquire()\n"
        "print('done')"
    )
    for _ in range(3):
        assert output(script) == "done"


# The number of threads

THREADS = "import fusedrnn; print(fusedrnn.get_num_threads(), fusedrnn.info()['threads'])"


def test_set_and_get() -> None:
    for n in (1, 2, 7, 1024, np.int64(3)):
        fr.set_num_threads(int(n))
        assert fr.get_num_threads() == n
        assert fr.info()["threads"] == n


@pytest.mark.parametrize("n", [0, -1, 1025, 2**31 - 1])
def test_a_number_out_of_range(n: int) -> None:
    fr.set_num_threads(2)
    with pytest.raises(ValueError, match=r"^n: ") as error:
        fr.set_num_threads(n)
    assert str(error.value) == f"n: expected a number of threads from 1 to 1024, got {n}"
    assert fr.get_num_threads() == 2


@pytest.mark.parametrize("n", ["2", 2.0, None, True])
def test_what_is_no_number(n: Any) -> None:
    fr.set_num_threads(2)
    with pytest.raises(TypeError, match=r"^n: expected"):
        fr.set_num_threads(n)
    assert fr.get_num_threads() == 2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FUSEDRNN_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "5,2"}, 5),
        ({"FUSEDRNN_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"FUSEDRNN_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, 5),
        ({"FUSEDRNN_NUM_THREADS": "3", "OMP_NUM_THREADS": "many"}, 3),
    ],
)
def test_the_environment(environment: dict[str, str], expected: int) -> None:
    assert output(THREADS, **environment) == f"{expected} {expected}"


@pytest.mark.parametrize("environment", [{}, {"OMP_NUM_THREADS": "many"}])
def test_without_a_usable_environment(environment: dict[str, str]) -> None:
    cpus = fr.info()["cpus_available"]
    assert output(THREADS, **environment) == f"{cpus} {cpus}"


def test_the_setter_goes_before_the_environment() -> None:
    script = "import fusedrnn; fusedrnn.set_num_threads(4); print(fusedrnn.get_num_threads())"
    for value in ("3", "abc"):
        assert output(script, FUSEDRNN_NUM_THREADS=value, OMP_NUM_THREADS="5") == "4"


@pytest.mark.parametrize("value", ["abc", "0", "-2", "1025", "2.5"])
@pytest.mark.parametrize("call", ["fusedrnn.get_num_threads()", "fusedrnn.rnn(x, w, w)"])
def test_an_unusable_variable_is_an_error(value: str, call: str) -> None:
    script = (
        f"import numpy, fusedrnn; print('imported')\nx = numpy.ones((1, 1, 1)); w = x[0]\n{call}"
    )
    result = run(script, FUSEDRNN_NUM_THREADS=value)
    assert (result.returncode, result.stdout) == (1, "imported\n")
    message = f"FUSEDRNN_NUM_THREADS: expected a number of threads from 1 to 1024, got '{value}'"
    assert result.stderr.strip().splitlines()[-1] == f"ValueError: {message}"


@linux
def test_the_affinity_of_the_process() -> None:
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import fusedrnn; print(fusedrnn.get_num_threads(), fusedrnn.info()['cpus_available'])"
    )
    assert output(script) == "1 1"


# The instruction set

ISA = "import fusedrnn; print(fusedrnn.info()['isa'])"


@pytest.mark.parametrize("isa", ["scalar", "neon", "avx2", "avx512", "avx512_bf16", "amx_bf16"])
def test_an_instruction_set_is_used_or_refused(isa: str) -> None:
    available = fr.info()["isas_available"]
    assert available[0] == "scalar"
    if isa in available:
        assert output(ISA, FUSEDRNN_ISA=isa) == isa
    else:
        result = run(ISA, FUSEDRNN_ISA=isa)
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith(f"ImportError: FUSEDRNN_ISA: {isa} cannot run on this machine (")
        assert last.endswith(f"); available: {', '.join(available)}")


def test_the_best_instruction_set_is_the_default() -> None:
    assert output(ISA, FUSEDRNN_ISA="") == fr.info()["isas_available"][-1]


@pytest.mark.parametrize("name", ["foo", "AVX2", " avx2"])
def test_an_unknown_instruction_set(name: str) -> None:
    result = run(ISA, FUSEDRNN_ISA=name)
    assert result.returncode == 1
    known = "scalar, neon, avx2, avx512, avx512_bf16, amx_bf16"
    message = f"FUSEDRNN_ISA: expected one of {known}, got '{name}'"
    assert result.stderr.strip().splitlines()[-1] == f"ImportError: {message}"


# The floating-point mode


@variants
@dtypes
def test_the_caller_keeps_its_floating_point_mode(
    cell: str, options: Arguments, dtype: str
) -> None:
    """NumPy's denormals are still there after a call, in its thread and in a new one."""
    tiny = np.full(64, np.finfo(dtype).tiny)
    half = np.full(64, 0.5, dtype)
    problem, upstream = problem_of(cell, dtype, **SHAPES[2], seed=4)
    for threads in (1, 2):
        fr.set_num_threads(threads)
        _, tape = forward(cell, **problem, **options)
        assert np.all(tiny * half != 0)
        backward(cell, tape, **upstream)
        assert np.all(tiny * half != 0)
        infer(cell, **problem, **options)
        assert np.all(tiny * half != 0)
    products: list[Any] = []
    other = threading.Thread(target=lambda: products.append(tiny * half))
    other.start()
    other.join()
    assert np.all(products[0] != 0)


def test_the_caller_keeps_its_mode_when_a_call_fails() -> None:
    with pytest.raises(ValueError, match=r"^w_hh: "):
        fr.gru(np.ones((2, 1, 3)), np.ones((6, 3)), np.ones((6, 3)))
    assert np.finfo("float64").tiny * 0.5 != 0
