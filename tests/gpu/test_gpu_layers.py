"""Layers on the device: the tests of the CPU, and what only a device has."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from gpu_libraries import StreamLibrary

import fusedrnn as fr
from half_support import Precision, precisions
from support import HARD, LAYERS, Arguments, outputs, same_bits
from test_layers import (  # noqa: F401
    cells,
    layer_and_problem,
    test_absent_upstream_gradients_are_zero,
    test_carried_state_continues_a_run,
    test_empty,
    test_half_a_pair_is_zero_in_the_other_half,
    test_inference_and_forward_give_the_same_bits,
    test_layouts_give_the_same_bits,
    test_oracle,
    test_parameters,
    test_reference,
    test_state_dict_of_the_other_dtype_is_cast,
    test_step_by_step,
)

pytestmark = pytest.mark.usefixtures("arrays_with_views")


def make(library: StreamLibrary, cell: str, *sizes: int, **options: Any) -> Any:
    return LAYERS[cell](*sizes, **options, **library.layer_options())


@cells
def test_where_a_layer_lies(library: StreamLibrary, cell: str) -> None:
    layer = make(library, cell, 3, 4, seed=0)
    assert layer.device == "cuda:0"
    assert repr(layer) == f"{cell.upper()}(3, 4, device='cuda:0')"
    host = LAYERS[cell](3, 4, seed=0)
    for name, array in layer.parameters().items():
        assert library.is_own(array)
        same_bits({name: library.values(array)}, {name: host.parameters()[name]})


@cells
def test_parameters_are_live_and_state_dicts_are_copies(library: StreamLibrary, cell: str) -> None:
    layer = make(library, cell, 2, 3, seed=0)
    x = library.array(np.ones((2, 1, 2), "float32"))
    before, saved = library.values(layer(x)[0]), layer.state_dict()
    weights = layer.parameters()["weight_ih_l0"]
    library.copy_into(weights, np.full(tuple(weights.shape), 0.5, "float32"))
    assert not np.array_equal(library.values(layer(x)[0]), before)
    layer.load_state_dict(saved)
    same_bits({"y": library.values(layer(x)[0])}, {"y": before})
    library.copy_into(saved["weight_ih_l0"], np.zeros(tuple(weights.shape), "float32"))
    same_bits({"y": library.values(layer(x)[0])}, {"y": before})


@cells
def test_copies_are_independent(library: StreamLibrary, cell: str) -> None:
    layer = make(library, cell, 2, 3, seed=0)
    x = library.array(np.ones((2, 1, 2), "float32"))
    before = library.values(layer(x)[0])
    twin = copy.deepcopy(layer)
    same_bits({"y": library.values(twin(x)[0])}, {"y": before})
    weights = twin.parameters()["weight_ih_l0"]
    library.copy_into(weights, np.full(tuple(weights.shape), 0.5, "float32"))
    assert not np.array_equal(library.values(twin(x)[0]), before)
    same_bits({"y": library.values(layer(x)[0])}, {"y": before})


@cells
@precisions
def test_other_precisions(library: StreamLibrary, cell: str, precision: Precision) -> None:
    """A layer is its functions, in any dtype; the CPU's parameters load into it."""
    layer = make(library, cell, 3, 9, dtype=precision.dtype, seed=0, **precision.options)
    host = LAYERS[cell](3, 9, dtype=precision.dtype, seed=1)
    layer.load_state_dict(host.parameters())
    values = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(precision.dtype)
    y, state, tape = layer.forward(library.array(values))
    grads = layer.backward(tape, y)
    weights = library.give(host.parameters())
    named = dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), weights.values(), strict=True))
    expected, h_n, expected_tape = getattr(fr, f"{cell}_forward")(
        library.array(values), **named, **precision.options
    )
    expected_grads = getattr(fr, f"{cell}_backward")(expected_tape, expected)
    got, last = outputs(y, state), outputs(expected, h_n)
    for name, array in last.items():
        value = library.values(got[name])
        same_bits({name: value if name == "y" else value[0]}, {name: library.values(array)})
    for ours, theirs in (("x", "dx"), ("weight_hh_l0", "dw_hh"), ("bias_ih_l0", "db_ih")):
        a, b = library.values(grads[ours]), library.values(getattr(expected_grads, theirs))
        same_bits({ours: a}, {ours: b})
    saved = {name: library.values(value) for name, value in layer.state_dict().items()}
    same_bits(saved, host.parameters())


@cells
def test_masks_may_stay_on_the_cpu(library: StreamLibrary, cell: str) -> None:
    layer, given, _ = layer_and_problem(cell, "float32", batch_first=True, **HARD, seed=1)
    expected = outputs(*layer(**given))
    masks = {name: given.pop(name) for name in ("lengths", "resets")}
    arrays: Arguments = {
        name: [library.array(half) for half in value]
        if isinstance(value, list)
        else library.array(value)
        for name, value in given.items()
    }
    masks["lengths"] = masks["lengths"].tolist()
    got = outputs(*layer.layer(**arrays, **masks))
    same_bits({name: library.values(array) for name, array in got.items()}, expected)


@cells
def test_errors(library: StreamLibrary, cell: str) -> None:
    layer = make(library, cell, 3, 4)
    values = np.ones((2, 1, 3), "float32")
    with pytest.raises(
        TypeError, match=r"^x: expected an array on cuda:0 \(the device of the layer"
    ):
        layer(values)
    x = library.array(values)
    with pytest.raises(TypeError, match=r"^x: expected an array on the CPU, got one on cuda:0$"):
        LAYERS[cell](3, 4)(x)
    with pytest.raises(ValueError, match=r"^x: expected shape \(\*, \*, 3\), got \(2, 1, 4\)$"):
        layer(library.array(np.ones((2, 1, 4), "float32")))
    with pytest.raises(
        TypeError, match=r"^x: expected dtype float32, got float64; use \.astype\('float32'\)$"
    ):
        layer(library.array(values.astype("float64")))
    with pytest.raises(ValueError, match=r"^freeze: expected a layer on the CPU, got "):
        layer.freeze()
    with pytest.raises(TypeError, match=r"^array_type: expected a type, got str$"):
        LAYERS[cell](3, 4, device="cuda", array_type="torch")
    wanted = r"^array_type: expected torch.Tensor, cupy.ndarray or a type .*, got ndarray$"
    with pytest.raises(ValueError, match=wanted):
        LAYERS[cell](3, 4, device="cuda", array_type=np.ndarray)
    with pytest.raises(RuntimeError, match=r"^device: cuda:63 cannot be used: there are? "):
        LAYERS[cell](3, 4, device="cuda:63")


@cells
def test_tfloat32(library: StreamLibrary, cell: str) -> None:
    layer = make(library, cell, 3, 4, compute_dtype="tfloat32")
    assert layer.compute_dtype == "tfloat32"
    *_, tape = layer.forward(library.array(np.ones((2, 1, 3), "float32")))
    assert tape.core.network.compute_dtype == "tfloat32"
