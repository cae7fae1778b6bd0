"""memory="lean" on the device, whose products may sum in another order than the default's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_libraries import StreamLibrary

import fusedrnn as fr
import test_indrnn
import test_mingru
import test_slstm
from half_support import Precision, in_double, precisions
from support import BOUND, LAYERS, Arguments, by_name, cast, check, directions, forward, place
from support import problem_of as plain_problem
from test_lstm_variants import options_of, problem_with

# Three chunks of steps, the last of fewer.
SHAPE: dict[str, Any] = {"steps": 23, "batch": 400, "input_size": 4, "hidden_size": 5}
CELLS = (
    *("rnn", "gru", "gru before", "lstm", "peephole", "coupled", "projection"),
    *("indrnn", "mingru", "minlstm", "slstm", "clip"),
)
cells = pytest.mark.parametrize("cell", CELLS)


def problem_of(cell: str, dtype: str) -> tuple[str, Arguments, Arguments, Arguments]:
    """A function, its arguments and options, and the gradients from above."""
    if cell in ("peephole", "coupled", "projection"):
        given, upstream = (cast(part, dtype) for part in problem_with(cell, dtype, **SHAPE))
        return "lstm", given, upstream, options_of(cell)
    if cell == "indrnn":
        return cell, *test_indrnn.problem_of(dtype, **SHAPE), {}
    if cell == "slstm":
        return cell, *test_slstm.problem_of(dtype, **SHAPE), {}
    if cell in ("mingru", "minlstm"):
        return cell, *test_mingru.problem_of(cell, dtype, **SHAPE), {}
    name = "lstm" if cell == "clip" else cell.removesuffix(" before")
    given, upstream = plain_problem(name, dtype, 0.5, lengths=True, resets=True, **SHAPE)
    clipped = {"clip": 1.0, "cell_clip": 2.0} if cell == "clip" else {}
    return name, given, upstream, {"reset_after": False} if name != cell != "clip" else clipped


def gradients(
    function: str, given: Arguments, upstream: Arguments, options: Arguments
) -> Arguments:
    found, tape = forward(function, **given, **options)
    asked = place().give(upstream)
    grads, flow = getattr(fr, f"{function}_backward")(tape, **asked, return_flow=True, clip_dh=5.0)
    found |= place().read(by_name(grads))
    return found | place().read({f"flow {name}": norms for name, norms in flow.items()})


def check_lean(cell: str, dtype: str, bound: float, **options: Any) -> None:
    function, given, upstream, own = problem_of(cell, dtype)
    results = [
        in_double(gradients(function, given, upstream, {**own, **options, "memory": memory}))
        for memory in ("lean", "default")
    ]
    check(*results, bound)


@cells
@directions
def test_functions(cell: str, reverse: bool) -> None:
    check_lean(cell, "float32", BOUND["float32"], reverse=reverse)


def test_float64() -> None:
    check_lean("lstm", "float64", BOUND["float64"])


@pytest.mark.parametrize("cell", ["gru before", "lstm", "projection"])
@precisions
def test_16_bits(cell: str, precision: Precision) -> None:
    check_lean(cell, precision.dtype, precision.unit / 4, **precision.options)


@pytest.mark.usefixtures("arrays_with_views")
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_layers(library: StreamLibrary, cell: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 23, 4)).astype("float32")
    results = []
    for memory in ("lean", "default"):
        layer = LAYERS[cell](
            4, 5, 2, bidirectional=True, batch_first=True, dropout=0.3, seed=0, memory=memory,
            **library.layer_options(),
        )  # fmt: skip
        y, _, tape = layer.forward(library.array(x))
        grads = layer.backward(tape, y)
        results.append({name: library.values(grads[name]) for name in grads})
    check(*results, BOUND["float32"])


@pytest.mark.usefixtures("arrays_with_views")
@pytest.mark.parametrize("mode", ["state", "candidate"])
@pytest.mark.parametrize(
    ("cell", "options"), [("gru", {"reset_after": False}), ("lstm", {"peephole": True})]
)
def test_noise(library: StreamLibrary, cell: str, options: Arguments, mode: Any) -> None:
    x = np.random.default_rng(0).standard_normal((12, 400, 4)).astype("float32")
    results = []
    for memory in ("lean", "default"):
        layer = LAYERS[cell](
            4, 5, bidirectional=True, recurrent_dropout=0.35, recurrent_dropout_mode=mode,
            zoneout=0.2, seed=0, memory=memory, **options, **library.layer_options(),
        )  # fmt: skip
        y, _, tape = layer.forward(library.array(x))
        grads = layer.backward(tape, y)
        results.append({name: library.values(grads[name]) for name in grads})
    check(*results, BOUND["float32"])


def test_gates() -> None:
    function, given, _, _ = problem_of("gru", "float32")
    tape = forward(function, **given, memory="lean")[1]
    with pytest.raises(ValueError, match=r"^gates: expected a tape with memory='default'"):
        tape.gates()
