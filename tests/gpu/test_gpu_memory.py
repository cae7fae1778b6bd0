"""Device memory: nothing grows, and where there is none left nothing leaks and nothing breaks."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

import numpy as np
import pytest
from gpu_libraries import Emulated, Library, StreamLibrary

import fusedrnn as fr
from error_support import GATES
from support import HARD, Arguments, backward, by_name, forward, problem_of, same_bits

cells = pytest.mark.parametrize("cell", GATES)
SHAPE: Arguments = {"steps": 5, "batch": 4, "input_size": 7, "hidden_size": 19}


def live(library: StreamLibrary) -> int:
    gc.collect()
    return library.live_bytes()


@cells
def test_a_thousand_calls(library: Library, cell: str) -> None:
    if not isinstance(library, StreamLibrary):
        pytest.skip(f"{library.name} does not say what is in use")
    problem, upstream = problem_of(cell, "float32", **SHAPE, **HARD, seed=1)
    calls = 30 if isinstance(library, Emulated) else 1000

    def step() -> None:
        _, tape = forward(cell, **problem)
        backward(cell, tape, **upstream)

    for _ in range(3):
        step()
    before = live(library)
    for _ in range(calls):
        step()
    assert live(library) == before


@cells
def test_other_shapes_leave_nothing_behind(library: Library, cell: str) -> None:
    if not isinstance(library, StreamLibrary):
        pytest.skip(f"{library.name} does not say what is in use")
    problems = [
        problem_of(cell, "float32", steps=n, batch=1 + n % 3, hidden_size=4 + n, seed=n)
        for n in range(1, 12)
    ]
    for _ in range(2):  # the first time makes what the library keeps
        before = live(library)
        for problem, upstream in problems:
            _, tape = forward(cell, **problem)
            backward(cell, tape, **upstream)
        after = live(library)
    assert after == before


@pytest.fixture
def emulated(library: Library) -> Emulated:
    if not isinstance(library, Emulated):
        pytest.skip("allocations fail on demand over the emulator alone")
    return library


@cells
def test_out_of_memory_at_any_point(emulated: Emulated, cell: str) -> None:
    """MemoryError, nothing kept, and the next call is as right as ever."""
    problem, upstream = problem_of(cell, "float32", **SHAPE, **HARD, seed=2)
    expected, tape = forward(cell, **problem)
    expected_grads = backward(cell, tape, **upstream)
    given, above = emulated.give(problem), emulated.give(upstream)
    del tape

    def run() -> tuple[Any, Any]:
        y, _, tape = getattr(fr, f"{cell}_forward")(**given)
        return y, getattr(fr, f"{cell}_backward")(tape, **above)

    before = live(emulated)
    for failing in range(100):
        try:
            with emulated.emulator.failing_allocation(failing):
                y, grads = run()
            break
        except MemoryError:
            pass
        assert live(emulated) == before, failing
    assert failing > 3
    same_bits({"y": emulated.values(y)}, {"y": expected["y"]})
    same_bits(emulated.read(by_name(grads)), expected_grads)


def test_the_reason_of_a_memory_error(emulated: Emulated) -> None:
    """What the allocator of x's library raised, behind what was wanted and where."""
    given = emulated.give(problem_of("gru", "float32", **SHAPE)[0])
    fr.gru(**given)
    with emulated.emulator.failing_allocation(2), pytest.raises(MemoryError) as caught:
        fr.gru(**given)
    assert "cuda:0" in str(caught.value)
    assert isinstance(caught.value.__cause__, MemoryError)


def test_other_devices(emulated: Emulated) -> None:
    """Results, memory and work are where x is, whichever device is current."""
    problem, upstream = problem_of("lstm", "float32", **SHAPE, **HARD, seed=3)
    expected, tape = forward("lstm", **problem)
    expected_grads = backward("lstm", tape, **upstream)
    with emulated.emulator.devices(2):
        there = {name: emulated.array(value, device=1) for name, value in problem.items()}
        above = {name: emulated.array(value, device=1) for name, value in upstream.items()}
        y, (h_n, c_n), tape = fr.lstm_forward(**there)
        grads = fr.lstm_backward(tape, **above)
        arrays = {"y": y, "h_n": h_n, "c_n": c_n} | by_name(grads)
        assert {array.device for array in arrays.values()} == {1}
        got = {name: emulated.values(array) for name, array in arrays.items()}
        same_bits(got, expected | expected_grads)
        message = r"^w_ih: expected an array on cuda:1 \(the device of x\), got one on cuda:0$"
        with pytest.raises(TypeError, match=message):
            fr.lstm(**there | {"w_ih": emulated.array(problem["w_ih"])})
        missing = r"^h0: expected an array on cuda:0 \(the device of x\), got one on cuda:1$"
        with pytest.raises(TypeError, match=missing):
            fr.lstm(**emulated.give(problem) | {"h0": there["h0"]})
        del tape, grads, arrays, there, above, y, h_n, c_n
        gc.collect()
        emulated.emulator.synchronize()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_computes_on_the_cpu(library: Library) -> None:
    forward("gru", **problem_of("gru", "float32", **SHAPE)[0])
    x, w = np.ones((2, 1, 1), "float32"), np.ones((1, 1), "float32")
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        y, _ = fr.rnn(x, w, w, nonlinearity="identity")
        os._exit(0 if y.ravel().tolist() == [1, 2] else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
