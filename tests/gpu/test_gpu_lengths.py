"""Batches whose lengths the host knows: the bits of those that the device knows, less work."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpu_libraries import Emulated, StreamLibrary
from numpy.typing import NDArray

import test_lengths
from support import BOUND, cast, check
from test_lengths import ORDERS, layers, memories, states_of

STEPS, BATCH = 11, 9
# What is a sequence's own. The rest is sums over all, which group otherwise without rows of zeros.
OWN = ("y", "inferred", "state", "dx", "dh0", "dc0", "dn0", "dm0", "flow")


@pytest.fixture(autouse=True)
def _with_layers(arrays_with_views: None) -> None:
    """Layers have their parameters on the device."""


def layer_of(library: StreamLibrary, name: str, **options: Any) -> Any:
    kind, own = test_lengths.LAYERS[name]
    options = {"bidirectional": True, "seed": 0, **own, **options}
    return kind(3, 14, **options, **library.layer_options())


@pytest.fixture
def same_addresses(library: StreamLibrary) -> Iterator[None]:
    """What was released is given out again at once: so do calls meet their graphs."""
    if isinstance(library, Emulated):
        library.emulator.call("set_quarantine", 0)
    yield
    if isinstance(library, Emulated):
        library.emulator.call("set_quarantine", 1 << 20)


def random_like(library: StreamLibrary, array: Any, rng: np.random.Generator) -> Any:
    values = library.values(array)
    return library.array(rng.standard_normal(values.shape).astype(values.dtype))


def train(
    library: StreamLibrary, layer: Any, x: Any, *, above: Any = None, **masks: Any
) -> dict[str, Any]:
    """Outputs, also of inference, and all gradients by name; `masks` as they are given."""
    x, rng = library.array(x), np.random.default_rng(1)
    dense = layer(x)[1]
    begin = tuple(random_like(library, s, rng) for s in states_of(dense))
    states = begin if isinstance(dense, tuple) else begin[0]
    y, state, tape = layer.forward(x, states, **masks)
    inferred, _ = layer(x, states, **masks)
    results = layer.backward(tape, random_like(library, y, rng), states, **(above or {}))
    grads, flow = results if isinstance(results, tuple) else (results, {})
    found = {"y": y, "inferred": inferred}
    found |= {f"state {i}": s for i, s in enumerate(states_of(state))}
    found |= {f"d{name}": grads[name] for name in grads}
    found |= {f"flow {name}": norms for name, norms in flow.items()}
    return {name: library.values(value) for name, value in found.items()}


def compare(
    library: StreamLibrary, layer: Any, x: Any, lengths: NDArray[Any], **options: Any
) -> dict[str, Any]:
    """Lengths on the host beside lengths on the device."""
    got = train(library, layer, x, lengths=lengths, **options)
    expected = train(library, layer, x, lengths=library.array(lengths), **options)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if not name.startswith(OWN):
            bound = 4 * BOUND.get(value.dtype.name, 2.0**-8)
            check({name: got[name]}, {name: value}, bound)
        elif isinstance(library, Emulated):
            assert got[name].tobytes() == value.tobytes(), name
        else:
            library.check_alike({name: got[name]}, {name: value})
    return got


def problem(dtype: str = "float32", order: str = "any") -> tuple[Any, NDArray[Any]]:
    x = np.random.default_rng(0).standard_normal((STEPS, BATCH, 3)).astype(dtype)
    lengths = ORDERS[order](STEPS, BATCH)
    if order == "any":
        lengths[:3] = 0, 1, STEPS
    x[np.arange(STEPS)[:, None] >= lengths] = np.nan
    return x, lengths


@layers
@memories
def test_every_cell(library: StreamLibrary, name: str, memory: str) -> None:
    """Both directions, stacked; x holds NaN where nothing may read it."""
    x, lengths = problem()
    layer = layer_of(library, name, num_layers=2, memory=memory)
    resets = np.random.default_rng(2).random((STEPS, BATCH)) < 0.2
    got = compare(library, layer, x, lengths, resets=resets)
    assert all(np.isfinite(value).all() for value in got.values())
    assert not got["y"][np.arange(STEPS)[:, None] >= lengths].any()


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "any"])
@pytest.mark.parametrize("longest", [STEPS, 7])
def test_orders(library: StreamLibrary, order: str, longest: int) -> None:
    """Also of batches in which no sequence reaches the last step."""
    x, lengths = problem(order=order)
    compare(library, layer_of(library, "lstm"), x, np.minimum(lengths, longest))


@pytest.mark.parametrize(("steps", "batch"), [(2, 450), (450, 2)])
def test_an_order_takes_several_launches(library: StreamLibrary, steps: int, batch: int) -> None:
    """A launch carries 440 numbers."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((steps, batch, 3)).astype("float32")
    layer = layer_of(library, "rnn", bidirectional=False)
    compare(library, layer, x, rng.integers(0, steps, batch, endpoint=True))


@pytest.mark.usefixtures("same_addresses")
def test_graphs_belong_to_their_ends(library: StreamLibrary) -> None:
    """Of calls at the same addresses, the third of a kind replays a graph, and no other's."""
    values, lengths = problem()
    x, layer = library.array(np.nan_to_num(values)), layer_of(library, "gru")

    def call(given: Any, padding: str) -> dict[str, Any]:
        y, state, tape = layer.forward(x, lengths=given, padding=padding)
        grads = layer.backward(tape, y)
        return {
            name: library.values(array)
            for name, array in {"y": y, "state": state, "x": grads["x"]}.items()
        }

    kinds = [(given, p) for given in (lengths, lengths // 2) for p in ("zero", "last")]
    expected = [call(library.array(given), padding) for given, padding in kinds]
    for _ in range(2):
        for (given, padding), of_kind in zip(kinds, expected, strict=True):
            for _ in range(3):
                gc.collect()
                if isinstance(library, Emulated):
                    library.emulator.synchronize()
                library.check_alike(call(given, padding), of_kind)


@pytest.mark.parametrize("name", ["gru", "lstm-projected", "lstm-normed", "slstm"])
@pytest.mark.parametrize("above", [{}, {"clip_dh": 0.3}, {"return_flow": True, "clip_dh": 0.3}])
@memories
def test_padding_that_shows_the_last_state(
    library: StreamLibrary, name: str, above: Any, memory: str
) -> None:
    """Its gradients cross steps that are not walked, and are limited on their way."""
    x, lengths = problem()
    layer = layer_of(library, name, memory=memory)
    for padding in ("last", "zero"):
        for longest in (STEPS, 8):
            shorter = np.minimum(lengths, longest)
            compare(library, layer, x, shorter, padding=padding, above=above)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_dtypes(library: StreamLibrary, dtype: str) -> None:
    if dtype not in library.dtypes:
        pytest.skip(f"{library.name} has no {dtype}")
    x, lengths = problem()
    x = cast({"x": x}, dtype)["x"]
    compare(library, layer_of(library, "lstm", dtype=dtype), x, lengths)


@pytest.mark.parametrize("name", test_lengths.MIXED)
def test_mixed(library: StreamLibrary, name: str) -> None:
    compare(library, layer_of(library, name), *problem())


@memories
@pytest.mark.parametrize(
    "options",
    [
        {"zoneout": 0.3},
        {"recurrent_dropout": 0.3, "recurrent_dropout_mode": "candidate"},
        {"recurrent_dropout": 0.3, "recurrent_dropout_mode": "state"},
        {"dropout": 0.3, "num_layers": 2},
    ],
)
@pytest.mark.parametrize("name", ["gru-reset-before", "lstm"])
def test_noise_belongs_to_a_sequence(
    library: StreamLibrary, name: str, options: Any, memory: str
) -> None:
    got = []
    for own_lengths in (True, False):
        layer = layer_of(library, name, memory=memory, **options)
        layer.train()
        x, lengths = problem()
        given = lengths if own_lengths else library.array(lengths)
        y, _, tape = layer.forward(library.array(x), lengths=given)
        grads = layer.backward(tape, y)
        values = {"y": y, "x": grads["x"], "h0": grads["h0"]}
        got.append({key: library.values(value) for key, value in values.items()})
    library.check_alike(*got)


@pytest.mark.parametrize("name", ["gru-reset-before", "lstm-projected"])
def test_chunks_that_are_taken_again(library: StreamLibrary, name: str) -> None:
    """Three of them, the last of fewer steps: each has its own order, masks and sums."""
    steps, batch = 23, 400
    rng = np.random.default_rng(0)
    x = library.array(rng.standard_normal((steps, batch, 3)).astype("float32"))
    lengths = rng.integers(0, steps, batch, endpoint=True)
    found = []
    for given in (lengths, library.array(lengths)):
        layer = layer_of(library, name, memory="lean", recurrent_dropout=0.3)
        layer.train()
        y, _, tape = layer.forward(x, lengths=given)
        grads = layer.backward(tape, y)
        found.append({key: library.values(grads[key]) for key in grads})
    check(*found, 4 * BOUND["float32"])


def test_a_mask_beside_lengths(library: StreamLibrary) -> None:
    x, lengths = problem()
    mask = np.random.default_rng(4).random((STEPS, BATCH)) < 0.7
    compare(library, layer_of(library, "gru"), x, lengths, mask=mask)


def test_gates(library: StreamLibrary) -> None:
    x, lengths = problem()
    layer = layer_of(library, "gru")
    found = []
    for given in (lengths, library.array(lengths)):
        tape = layer.forward(library.array(x), lengths=given)[2]
        gates = tape.gates()
        found.append({name: library.values(gates[name]) for name in gates})
    library.check_alike(*found)


def test_lengths_may_change_after_the_forward_pass(library: StreamLibrary) -> None:
    x, lengths = problem()
    layer = layer_of(library, "lstm")
    grads = []
    for changes in (False, True):
        own = lengths.copy()
        y, _, tape = layer.forward(library.array(x), lengths=own)
        if changes:
            own[:] = STEPS
        found = layer.backward(tape, y)
        grads.append({name: library.values(found[name]) for name in found})
    library.check_alike(*grads)


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-reset-before", "lstm", "lstm-projected"])
@memories
def test_gate_maths_are_those_of_the_steps_that_exist(
    library: StreamLibrary, name: str, memory: str
) -> None:
    """A block of the gate kernels is a row here. The emulator's own tests count multiplications."""
    if not isinstance(library, Emulated):
        pytest.skip("a GPU counts no blocks")
    steps, batch = 32, 40
    layer = layer_of(library, name, memory=memory)
    x = library.array(np.random.default_rng(0).standard_normal((steps, batch, 3)).astype("f4"))
    lengths = np.full(batch, 4)
    lengths[5] = steps

    def rows(kernel: str, function: Any) -> tuple[int, Any]:
        before = library.emulator.blocks(kernel)
        result = function()
        return library.emulator.blocks(kernel) - before, result

    stages = 1 if name in ("rnn", "gru", "lstm") else 2
    living = 2 * stages * int(lengths.sum())
    assert rows("forward_step", lambda: layer(x, lengths=lengths))[0] == living
    count, (y, _, tape) = rows("forward_step", lambda: layer.forward(x, lengths=lengths))
    assert count == living
    count, _ = rows("backward_step", lambda: layer.backward(tape, y))
    # In reverse also the row behind each sequence that ends before the last step.
    assert count == living + stages * (batch - 1)
