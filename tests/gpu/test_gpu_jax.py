"""fusedrnn.jax on CUDA devices: its handlers beside those of the CPU.

Over the emulator XLA's side of each call is made by hand (`xla_frames`), for there is no XLA that
runs there; on a GPU with JAX it is JAX's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpu_libraries import Emulated, Library

jax = pytest.importorskip("jax")  # a machine may have another library alone
fj: Any = pytest.importorskip("fusedrnn.jax", exc_type=ImportError)

import fusedrnn.jax.call as tracing  # noqa: E402
import fusedrnn.jax.network as calls  # noqa: E402
from fusedrnn import _core  # noqa: E402
from jax_support import jax_of_tests  # noqa: E402
from xla_frames import Device, XlaError  # noqa: E402

T, B, I, H = 7, 3, 4, 6  # noqa: E741
LENGTHS = {"lengths": np.array([7, 0, 3])}
RESETS = {"resets": np.random.default_rng(0).random((T, B)) < 0.3}
MASK = {"mask": np.random.default_rng(1).random((T, B)) < 0.7}
KEY = {"key": True}
BOUND = {"float64": 1e-12, "float32": 2e-6, "bfloat16": 3e-2, "float16": 4e-3}
# Layers with what they are made with, the arguments of a call, and its dtype.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "lstm": ("LSTM", {"num_layers": 2, "bidirectional": True}, LENGTHS | RESETS, "float32"),
    "gru, masked": ("GRU", {"bidirectional": True}, MASK | {"padding": "last"}, "float64"),
    "rnn, dropped": ("RNN", {"num_layers": 2, "dropout": 0.5}, KEY, "float32"),
    "lstm, noise": ("LSTM", {"zoneout": (0.3, 0.2), "recurrent_dropout": 0.4}, KEY, "float64"),
    "gru, weights dropped": ("GRU", {"weight_dropout": 0.4}, KEY, "float64"),
    "projection": ("LSTM", {"proj_size": 3}, {"return_cells": True}, "float64"),
    "peephole": ("LSTM", {"peephole": True}, {}, "float64"),
    "layer norm": ("LSTM", {"layer_norm": True}, LENGTHS, "float64"),
    "before": ("GRU", {"reset_after": False}, LENGTHS, "float64"),
    "clipped": ("LSTM", {"cell_clip": 0.3}, {}, "float64"),
    "heads": ("GRU", {"heads": 2}, {}, "float64"),
    "lean": ("LSTM", {"memory": "lean", "num_layers": 2}, RESETS, "float64"),
    "indrnn": ("IndRNN", {}, {}, "float64"),
    "slstm": ("SLSTM", {"heads": 2}, LENGTHS, "float64"),
    "minlstm": ("MinLSTM", {}, {}, "float64"),
    "world model": ("WorldModelGRU", {}, {}, "float64"),
    "computed in bfloat16": ("LSTM", {"compute_dtype": "bfloat16"}, {}, "float32"),
    "bfloat16": ("GRU", {}, LENGTHS, "bfloat16"),
    "float16": ("LSTM", {}, {}, "float16"),
}


@pytest.fixture(autouse=True)
def _jax() -> Iterator[None]:
    with jax_of_tests():
        yield


def random(seed: int, shape: tuple[int, ...], dtype: Any) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def traced(name: str) -> tuple[Any, str, list[Any]]:
    """What a layer's call hands to the primitive: plan, places and arrays."""
    kind, options, given, dtype = CASES[name]
    layer = getattr(fj, kind)(I, H, **options)
    params = {
        parameter: random(i, shape, dtype)
        for i, (parameter, shape) in enumerate(layer.shapes().items())
    }
    arguments = given | {"key": jax.random.key(7)} if "key" in given else given
    found: list[Any] = []

    class Primitive:
        @staticmethod
        def bind(*arrays: Any, **known: Any) -> Any:
            found.append((known["plan"], known["there"], [np.asarray(array) for array in arrays]))
            return bind(*arrays, **known)

    bind = tracing.network_p.bind
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "network_p", Primitive)
        layer.apply(params, random(40, (T, B, I), dtype), **arguments)
    return found[0]  # type: ignore[no-any-return]


def passes(plan: Any, there: str, arrays: list[Any]) -> list[Any]:
    """Results and gradients, and of plain types second derivatives too."""
    *results, reserve = calls.forward(plan, there, arrays, True)
    plain = calls.forward(plan, there, arrays, False)
    gradients = [random(60 + i, r.shape, r.dtype) for i, r in enumerate(results)]
    upstream, wanted = "1" * len(results), there[: plan.num_differentiable]
    found = [*results, *plain]
    found += calls.backward(plan, there, arrays, reserve, upstream, gradients, wanted)
    if arrays[0].dtype == np.float64:
        along = [random(80 + i, a.shape, a.dtype) for i, a in enumerate(arrays)]
        along = along[: wanted.count("1")]
        none = "0" * len(results)
        found += calls.jvp(plan, there, arrays, wanted, along)
        found += calls.second(plan, there, arrays, upstream, gradients, wanted, along, none, [])
    return [np.asarray(part) for part in found]


def by_hand(library: Emulated, **device: Any) -> Any:
    """What takes the place of `network._call`: frames of ours, on a stream of its own."""

    def call(target: str, plan: Any, there: str, arrays: Any, results: Any, which: str) -> Any:
        training = there[plan.num_places - 1] == "1"
        attributes = plan.attributes(np.asarray(arrays[0]).dtype.name, training)
        attributes |= {"arguments": there, "results": which}
        given = [library.array(np.asarray(array)) for array in arrays]
        room = [library.array(np.full(r.shape, 7).astype(r.dtype)) for r in results]
        stream = library.new_stream()
        xla = Device(library.emulator, stream.handle, **device)
        handler = _core.xla_handlers()["CUDA"][target]
        xla.call(handler, given, room, attributes)
        stream.synchronize()
        assert not xla.memory
        assert xla.allocations
        return [library.values(result) for result in room]

    return call


def check_alike(got: list[Any], expected: list[Any], bound: float) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        left, right = one.astype("float64"), other.astype("float64")
        scale = max(1.0, float(np.abs(right).max(initial=0)))
        assert np.abs(left - right).max(initial=0) <= bound * scale


@pytest.mark.parametrize("name", CASES)
def test_handlers(library: Library, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(library, Emulated):
        return  # there it is XLA that calls them
    plan, there, arrays = traced(name)
    expected = passes(plan, there, arrays)
    monkeypatch.setattr(calls, "_call", by_hand(library))
    bound = BOUND["bfloat16" if plan.compute_dtype else arrays[0].dtype.name]
    check_alike(passes(plan, there, arrays), expected, bound)


def test_a_reserve_has_the_room_that_a_formula_says(library: Library) -> None:
    """Tracing asks no device: cells' tables say what the library takes, to the byte."""
    if not isinstance(library, Emulated):
        return
    for name in CASES:
        plan, _, arrays = traced(name)
        dtype = arrays[0].dtype.name
        networks = [plan.network(dtype)]
        networks += [plan.network(dtype, dual=True)] if dtype == "float64" else []
        for network in networks:
            for steps, batch in ((T, B), (1, 1), (0, B), (30, 129)):
                room, cuda = network.reserve_bytes_anywhere(steps, batch)
                assert cuda == network.reserve_bytes(steps, batch, 0)
                assert room >= max(cuda, network.reserve_bytes(steps, batch))


def test_errors(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(library, Emulated):
        return
    plan, there, arrays = traced("lstm")

    def fails(message: str, code: int, **device: Any) -> None:
        monkeypatch.setattr(calls, "_call", by_hand(library, **device))
        with pytest.raises(XlaError, match=message) as caught:
            calls.forward(plan, there, arrays, True)
        assert caught.value.code == code

    fails("^out of memory", 8, fails="memory")
    fails("^XLA: no stream here$", 13, fails="stream")
    monkeypatch.setattr(calls.Plan, "reserve_bytes", lambda *_: 64)
    fails("^reserve: expected .* bytes, .* got 64", 3)
    monkeypatch.undo()
    xla = Device(library.emulator, library.new_stream().handle)
    handler = _core.xla_handlers()["CUDA"]["fusedrnn_forward"]
    with pytest.raises(XlaError, match="expected one that tells the device") as caught:
        xla.call(handler, [], [], {}, api_size=64)
    assert caught.value.code == 14


@pytest.mark.parametrize("name", ["lstm", "gru, masked", "rnn, dropped", "lean"])
def test_jaxs_gpu(library: Library, name: str) -> None:
    if library.name != "jax":
        return
    kind, options, given, dtype = CASES[name]
    layer = getattr(fj, kind)(I, H, **options)
    arguments = given | {"key": jax.random.key(7)} if "key" in given else given

    @jax.jit
    def both(params: Any, x: Any) -> Any:
        def loss(params: Any, x: Any) -> Any:
            y, state = layer.apply(params, x, **arguments)
            return (y**2).sum() + sum((s**3).sum() for s in jax.tree.leaves(state))

        return jax.value_and_grad(loss, (0, 1))(params, x)

    params = {n: random(i, s, dtype) for i, (n, s) in enumerate(layer.shapes().items())}
    results = []
    for platform in ("gpu", "cpu"):
        with jax.default_device(jax.devices(platform)[0]):
            found = jax.tree.leaves(both(params, random(40, (T, B, I), dtype)))
            results.append([np.asarray(part) for part in found])
    check_alike(*results, BOUND[dtype] * 10)
