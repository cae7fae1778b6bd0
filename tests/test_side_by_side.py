"""Runs that are taken at the same time on several threads: directions, and layers of a stack."""

from __future__ import annotations

from typing import Any

import ml_dtypes  # noqa: F401  # NumPy knows the name "bfloat16" from here on
import numpy as np
import pytest

import fusedrnn as fr
from support import LAYERS, same_bits

STACKS = [(1, True), (2, False), (3, False), (2, True), (5, False)]
stacks = pytest.mark.parametrize(
    ("layers", "bidirectional"), STACKS, ids=["bidirectional", "two", "three", "both", "five"]
)
# Few rows of many steps; blocks of rows that end amid the steps; a batch beyond one block.
SHAPES = [(300, 1, 12, 40), (70, 5, 30, 100), (9, 300, 20, 24)]


pytestmark = pytest.mark.usefixtures("keeps_threads")


def results_of(layer: Any, x: Any, options: dict[str, Any]) -> dict[str, Any]:
    """All that a forward, a backward and a frozen call give."""
    y, state, tape = layer.forward(x, **options)
    rng = np.random.default_rng(1)
    grads = layer.backward(tape, rng.standard_normal(y.shape).astype(y.dtype))
    frozen, _ = layer.freeze()(x, **options)
    states = state if isinstance(state, tuple) else (state,)
    named = {"y": y, "frozen": frozen} | {f"state{i}": s for i, s in enumerate(states)}
    return named | grads


@stacks
@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_the_bits_are_those_of_one_thread(
    cell: str, layers: int, bidirectional: bool, dtype: str, masked: bool
) -> None:
    for steps, batch, inputs, hidden in SHAPES:
        layer = LAYERS[cell](
            inputs, hidden, num_layers=layers, bidirectional=bidirectional, dtype=dtype, seed=0
        )
        rng = np.random.default_rng(0)
        x = rng.standard_normal((steps, batch, inputs)).astype(layer.dtype)
        given: dict[str, Any] = {}
        if masked:
            given = {
                "lengths": rng.integers(0, steps + 1, batch),
                "resets": rng.random((steps, batch)) < 0.1,
            }
        fr.set_num_threads(1)
        expected = results_of(layer, x, given)
        for threads in (2, 3, 5):
            fr.set_num_threads(threads)
            same_bits(results_of(layer, x, given), expected)


@pytest.mark.parametrize("layers", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("given", ["", "masked"])
def test_parts_of_a_few_steps(layers: int, dtype: str, given: str) -> None:
    # Rows go from layer to layer every four steps; the last of three begins after the first two.
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {}
    if given:
        options = {"lengths": np.array([61]), "resets": rng.random((64, 1)) < 0.1}
    for cell in (fr.RNN, fr.LSTM):
        layer = cell(128, 128, layers, dtype=dtype, seed=0)
        x = rng.standard_normal((64, 1, 128)).astype(layer.dtype)
        fr.set_num_threads(1)
        expected = results_of(layer, x, options)
        for threads in (2, 3):
            fr.set_num_threads(threads)
            results_of(layer, -x, options)  # so that memory does not hold what is expected
            same_bits(results_of(layer, x, options), expected)


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, True), (2, False), (2, True)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sequences_of_several_chunks(layers: int, bidirectional: bool, dtype: str) -> None:
    layer = fr.LSTM(8, 130, layers, bidirectional=bidirectional, dtype=dtype, seed=0)
    x = np.random.default_rng(0).standard_normal((2600, 2, 8)).astype(layer.dtype)
    results = []
    for threads in (1, 2):
        fr.set_num_threads(threads)
        results.append(results_of(layer, x, {}))
    same_bits(results[1], results[0])


@stacks
def test_noise_is_that_of_one_thread(layers: int, bidirectional: bool) -> None:
    noise = {"dropout": 0.3 if layers > 1 else 0.0, "weight_dropout": 0.2, "zoneout": 0.1}
    x = np.random.default_rng(0).standard_normal((70, 5, 30), dtype="float32")

    def train(threads: int) -> dict[str, Any]:
        fr.set_num_threads(threads)
        layer = fr.GRU(30, 100, layers, bidirectional=bidirectional, seed=0, **noise)
        y, _, tape = layer.train().forward(x)
        return {"y": y} | layer.backward(tape, y)

    expected = train(1)
    for threads in (2, 3):
        same_bits(train(threads), expected)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
def test_lean_memory_and_flow(bidirectional: bool) -> None:
    x = np.random.default_rng(0).standard_normal((1500, 2, 30), dtype="float32")
    results = []
    for threads in (1, 2):
        fr.set_num_threads(threads)
        for memory in ("default", "lean"):
            layer = fr.LSTM(30, 48, 2, bidirectional=bidirectional, memory=memory, seed=0)
            y, _, tape = layer.forward(x)
            grads, flow = layer.backward(tape, y, return_flow=True)
            results.append({"y": y} | grads | {f"flow {name}": n for name, n in flow.items()})
    for other in results[1:]:
        same_bits(other, results[0])
