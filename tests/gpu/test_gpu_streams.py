"""Work on the caller's stream: its order, graphs, several streams and threads at once, and bits."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
from gpu_libraries import Library, StreamLibrary

import fusedrnn as fr
from error_support import GATES
from support import (
    HARD,
    Arguments,
    backward,
    by_name,
    directions,
    forward,
    outputs,
    problem_of,
    same_bits,
    variants,
)

cells = pytest.mark.parametrize("cell", GATES)
SHAPE: Arguments = {"steps": 6, "batch": 5, "input_size": 9, "hidden_size": 21}


@pytest.fixture(autouse=True)
def _with_streams(library: Library) -> None:
    if not isinstance(library, StreamLibrary):
        pytest.skip(f"{library.name} has no streams to choose from")


def results_of(cell: str, problem: Arguments, upstream: Arguments, **options: Any) -> Arguments:
    got, tape = forward(cell, **problem, **options)
    return got | backward(cell, tape, **upstream)


def train(cell: str, given: Arguments, above: Arguments, **options: Any) -> Arguments:
    """A step with arrays of the device, whose results nobody has waited for."""
    y, state, tape = getattr(fr, f"{cell}_forward")(**given, **options)
    grads = getattr(fr, f"{cell}_backward")(tape, **above)
    return outputs(y, state) | by_name(grads)


@variants
@directions
def test_the_same_bits_every_time(
    library: StreamLibrary, cell: str, options: Arguments, reverse: bool
) -> None:
    options = {**options, "reverse": reverse}
    problem, upstream = problem_of(cell, "float32", **SHAPE, **HARD, seed=1)
    expected = results_of(cell, problem, upstream, **options)
    for schedule in library.schedules(100):
        with schedule:
            same_bits(results_of(cell, problem, upstream, **options), expected)


@cells
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_the_same_bits_in_other_dtypes(library: StreamLibrary, cell: str, dtype: str) -> None:
    problem, upstream = problem_of(cell, dtype, **SHAPE, **HARD, seed=2)
    expected = results_of(cell, problem, upstream)
    for schedule in library.schedules(20):
        with schedule:
            same_bits(results_of(cell, problem, upstream), expected)


@cells
def test_two_streams_at_once(library: StreamLibrary, cell: str) -> None:
    """Each works in the order of its own calls, and neither waits for the other."""
    problems = [problem_of(cell, "float32", **SHAPE, **HARD, seed=seed) for seed in (3, 4)]
    expected = [results_of(cell, *problem) for problem in problems]
    given = [[library.give(part) for part in problem] for problem in problems]
    for schedule in library.schedules(20):
        done: dict[int, list[Arguments]] = {}
        both = threading.Barrier(2)

        def run(index: int, done: Any = done, both: Any = both) -> None:
            with library.stream():
                both.wait()
                results = [train(cell, *given[index]) for _ in range(3)]
                done[index] = [library.read(one) for one in results]

        with schedule:
            threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for index in range(2):
            for results in done[index]:
                same_bits(results, expected[index])


@cells
def test_work_follows_what_writes_its_inputs(library: StreamLibrary, cell: str) -> None:
    """A call in between writes and reads what is put on the same stream, and waits for nothing."""
    problem, upstream = problem_of(cell, "float32", **SHAPE, **HARD, seed=5)
    expected, _ = forward(cell, **problem)
    second = problem | {"x": expected["y"], "w_ih": problem["w_hh"]}
    expected_second = results_of(cell, second, upstream)
    for schedule in library.schedules(20):
        with schedule, library.stream():
            given, above = library.give(problem), library.give(upstream)
            y, *_ = getattr(fr, cell)(**given)
            results = train(cell, given | {"x": y, "w_ih": given["w_hh"]}, above)
            same_bits(library.read(results), expected_second)


@cells
def test_backward_on_another_stream(library: StreamLibrary, cell: str) -> None:
    """The tape is gone before that stream has come to its work."""
    problem, upstream = problem_of(cell, "float32", **SHAPE, **HARD, seed=6)
    _, tape = forward(cell, **problem)
    expected = backward(cell, tape, **upstream)
    for schedule in library.schedules(20):
        with schedule, library.stream():
            given, above = library.give(problem), library.give(upstream)
            *_, tape = getattr(fr, f"{cell}_forward")(**given)
            with library.stream():
                grads = getattr(fr, f"{cell}_backward")(tape, **above)
                del tape
                gc.collect()
                churn = [library.nans(2000) for _ in range(8)]  # in its memory, if it were free
                same_bits(library.read(by_name(grads)), expected)
            del churn


@cells
def test_threads_share_a_tape(library: StreamLibrary, cell: str) -> None:
    problem, upstream = problem_of(cell, "float32", **SHAPE, **HARD, seed=7)
    _, tape = forward(cell, **problem)
    expected = backward(cell, tape, **upstream)
    failures: list[BaseException] = []

    def run(tape: Any) -> None:
        try:
            for _ in range(5):
                with library.stream():
                    same_bits(backward(cell, tape, **upstream), expected)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(tape,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    del tape  # the last of them to end frees it
    for thread in threads:
        thread.join()
    assert not failures, failures


@cells
def test_a_tape_may_end_on_another_thread(library: StreamLibrary, cell: str) -> None:
    problem, _ = problem_of(cell, "float32", **SHAPE, seed=8)
    forward(cell, **problem)
    gc.collect()
    before = library.live_bytes()
    tapes = [forward(cell, **problem)[1]]
    gc.collect()
    assert library.live_bytes() > before
    thread = threading.Thread(target=tapes.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert library.live_bytes() == before


@variants
@directions
def test_captured_inference(
    library: StreamLibrary, cell: str, options: Arguments, reverse: bool
) -> None:
    """A graph reads its inputs anew each time it runs, lengths and resets too."""
    options = {**options, "reverse": reverse}
    problems = [problem_of(cell, "float32", **SHAPE, **HARD, seed=seed)[0] for seed in (9, 10, 11)]
    given = library.give(problems[0])
    (y, state), replay = library.capture(lambda: getattr(fr, cell)(**given, **options))
    for problem in (*problems[1:], problems[0]):
        for name, value in problem.items():
            library.copy_into(given[name], value)
        replay()
        expected, _ = forward(cell, **problem, **options)
        same_bits(library.read(outputs(y, state)), expected)


@variants
@directions
def test_captured_training(
    library: StreamLibrary, cell: str, options: Arguments, reverse: bool
) -> None:
    """A tape that was made in a capture lives as long as the graph that reads it."""
    options = {**options, "reverse": reverse}
    problems = [problem_of(cell, "float32", **SHAPE, **HARD, seed=seed) for seed in (12, 13)]
    given, above = (library.give(part) for part in problems[0])
    results, replay = library.capture(lambda: train(cell, given, above, **options))
    gc.collect()
    for problem, upstream in (problems[1], problems[0]):
        for arrays, values in ((given, problem), (above, upstream)):
            for name, value in values.items():
                library.copy_into(arrays[name], value)
        replay()
        same_bits(library.read(results), results_of(cell, problem, upstream, **options))


@cells
def test_host_masks_in_a_capture_are_values(library: StreamLibrary, cell: str) -> None:
    """They are part of the graph: no pointer into the caller's memory stays."""
    problem, _ = problem_of(cell, "float32", **SHAPE, **HARD, seed=14)
    expected, _ = forward(cell, **problem)
    masks = {name: problem[name].copy() for name in ("lengths", "resets")}
    given = library.give({name: value for name, value in problem.items() if name not in masks})
    (y, state), replay = library.capture(lambda: getattr(fr, cell)(**given, **masks))
    masks["lengths"][...] = 0
    masks["resets"][...] = True
    replay()
    same_bits(library.read(outputs(y, state)), expected)
