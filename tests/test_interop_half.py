"""bfloat16 and float16 arrays of every kind: in without a copy, out as the kind of x.

NumPy knows bfloat16 by the package ml_dtypes, which others than users of NumPy need not have.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import re
import subprocess
import sys
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

import fusedrnn as fr
from error_support import FLOATING, FLOATS, GATES, problem, rejected, rejected_upstream, shapes
from fake_dlpack import Producer
from fusedrnn import _core, bf16
from half_support import PRECISIONS, UNIT, half_problem, halves
from support import HARD, LAYERS, Arguments, backward, check, forward, infer, same_bits
from test_hostile_inputs import LAYOUTS

TORCH = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def as_torch(array: Any) -> Any:
    """A tensor of its own of the same values, which NumPy's bfloat16 cannot be lent for."""
    if array.dtype.name in TORCH:
        return torch.from_numpy(array.astype(np.float32)).to(TORCH[array.dtype.name])
    return torch.from_numpy(array)


def as_numpy(array: Any) -> Any:
    if isinstance(array, torch.Tensor):
        name = str(array.dtype).removeprefix("torch.")
        return array.to(torch.float32).numpy().astype(name)
    return np.asarray(array)


MAKE: dict[str, Any] = {"numpy": lambda array: array, "torch": as_torch, "jax": jnp.asarray}
kinds = pytest.mark.parametrize("kind", MAKE)


def address(array: Any) -> int:
    if isinstance(array, torch.Tensor):
        return array.data_ptr()
    if isinstance(array, jax.Array):
        return int(array.unsafe_buffer_pointer())
    return int(array.ctypes.data)


def numbers(cell: str, dtype: str, **options: Any) -> tuple[Arguments, Arguments]:
    return half_problem(cell, PRECISIONS[dtype], batch=4, hidden_size=9, **options)


# In and out


@halves
@kinds
def test_memory_is_shared_on_the_way_in(kind: str, dtype: str) -> None:
    array = MAKE[kind](np.arange(12).reshape(3, 4).astype(dtype))
    imported = _core.as_array("a", array, (3, 4), dtype)
    assert imported.ctypes.data == address(array)
    assert np.array_equal(imported.view(dtype).astype(int), np.arange(12).reshape(3, 4))


@halves
@kinds
@pytest.mark.parametrize("cell", LAYERS)
def test_results_are_of_the_kind_and_dtype_of_x(cell: str, kind: str, dtype: str) -> None:
    arguments, upstream = numbers(cell, dtype, **HARD)
    expected, tape = forward(cell, **arguments)
    expected_grads = backward(cell, tape, **upstream)
    given = {name: MAKE[kind](value) for name, value in arguments.items()}
    got, tape = forward(cell, **given)
    grads = backward(cell, tape, **{name: MAKE[kind](v) for name, v in upstream.items()})
    for results, plain in ((got, expected), (grads, expected_grads)):
        for value in results.values():
            assert type(value) is type(given["x"])
            assert value.dtype == given["x"].dtype
        same_bits({name: as_numpy(value) for name, value in results.items()}, plain)


@kinds
def test_kinds_may_be_mixed(kind: str) -> None:
    arguments, upstream = numbers("lstm", "bfloat16", **HARD)
    expected, tape = forward("lstm", **arguments)
    expected_grads = backward("lstm", tape, **upstream)
    mixed = {name: MAKE[kind](value) for name, value in arguments.items()}
    got, tape = forward("lstm", **mixed | {"x": arguments["x"]})
    same_bits(got, expected)
    above = {name: MAKE[kind](value) for name, value in upstream.items()}
    same_bits(backward("lstm", tape, **above), expected_grads)


@pytest.mark.parametrize("kind", ["torch", "jax"])
@halves
def test_results_share_the_memory_they_were_written_to(kind: str, dtype: str) -> None:
    written = _core.empty((3, 40), dtype)
    given = MAKE[kind](np.zeros(1, dtype))
    result = fr.interop.converter_to_kind_of(given)(written)
    assert address(result) == written.ctypes.data
    assert tuple(result.shape) == (3, 40)


@pytest.mark.parametrize("kind", ["torch", "jax"])
def test_results_outlive_everything(kind: str) -> None:
    arguments, upstream = numbers("lstm", "bfloat16")
    expected, tape = forward("lstm", **arguments)
    expected |= backward("lstm", tape, **upstream)
    got, tape = forward("lstm", **{name: MAKE[kind](v) for name, v in arguments.items()})
    got |= backward("lstm", tape, **upstream)
    del tape
    gc.collect()
    churn = [np.full_like(value, np.nan) for value in arguments.values() for _ in range(5)]
    same_bits({name: as_numpy(value) for name, value in got.items()}, expected)
    del churn


@halves
@kinds
@pytest.mark.parametrize("cell", LAYERS)
def test_layers_take_and_return_every_kind(cell: str, kind: str, dtype: str) -> None:
    make = MAKE[kind]
    layer = LAYERS[cell](4, 5, 2, dtype=dtype, seed=0)
    x = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(dtype)
    expected, state, tape = layer.forward(x)
    expected_grads = layer.backward(tape, expected, state)
    y, state, tape = layer.forward(make(x))
    grads = layer.backward(tape, y, state)
    y_t, _ = layer.step(make(x[0]))
    states = state if isinstance(state, tuple) else (state,)
    for value in (y, y_t, *states, *grads.values()):
        assert type(value) is type(make(x))
        assert value.dtype == make(x).dtype
    same_bits({"y": as_numpy(y)}, {"y": expected})
    same_bits({name: as_numpy(value) for name, value in grads.items()}, expected_grads)


@halves
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, dtype: str) -> None:
    arguments, upstream = numbers("gru", dtype, **HARD)
    expected, tape = forward("gru", **arguments)
    expected_grads = backward("gru", tape, **upstream)
    arrange = LAYOUTS[layout]
    got, tape = forward("gru", **{name: arrange(value) for name, value in arguments.items()})
    same_bits(got, expected)
    grads = backward("gru", tape, **{name: arrange(value) for name, value in upstream.items()})
    same_bits(grads, expected_grads)


def test_views_of_tensors() -> None:
    x = torch.arange(24, dtype=torch.bfloat16).reshape(2, 3, 4)
    weights = (torch.ones(1, 4, dtype=x.dtype), torch.zeros(1, 1, dtype=x.dtype))
    for view in (x, x.transpose(0, 1), x.flip(0), x[:, ::2], x[:, 1:]):
        y, _ = fr.rnn(view, *weights, nonlinearity="identity")
        assert torch.equal(y[..., 0], view.sum(-1))


def test_tensors_that_want_a_gradient_are_read_as_they_are() -> None:
    arguments, _ = numbers("gru", "bfloat16")
    expected = infer("gru", **arguments)
    leaves = {name: as_torch(value).requires_grad_() for name, value in arguments.items()}
    with torch.no_grad():
        got = infer("gru", **leaves)
    assert not any(value.requires_grad for value in got.values())
    same_bits({name: as_numpy(value) for name, value in got.items()}, expected)


# The module's own capsules

_is_capsule = ctypes.pythonapi.PyCapsule_IsValid
_is_capsule.argtypes = (ctypes.py_object, ctypes.c_char_p)


@pytest.mark.parametrize(
    ("max_version", "name"),
    [(None, b"dltensor"), ((0, 8), b"dltensor"), ((1, 0), b"dltensor_versioned")],
)
def test_capsules(max_version: tuple[int, int] | None, name: bytes) -> None:
    array = np.arange(6, dtype="float32").reshape(2, 3)[:, ::-2]
    lent = _core.LentArray(array)
    assert lent.__dlpack_device__() == (1, 0)
    capsule = lent.__dlpack__(max_version=max_version)
    assert _is_capsule(capsule, name)
    assert np.array_equal(np.from_dlpack(lent), array)


@pytest.mark.parametrize("max_version", [None, (1, 1)])
def test_capsules_keep_the_array_and_give_it_back(max_version: tuple[int, int] | None) -> None:
    array = _core.empty((5,), "bfloat16")
    watched = weakref.ref(array)
    unused = _core.LentArray(array).__dlpack__(max_version=max_version)
    tensor = torch.utils.dlpack.from_dlpack(_core.LentArray(array).__dlpack__())
    del array
    gc.collect()
    assert watched() is not None
    del unused
    gc.collect()
    assert watched() is not None
    del tensor
    gc.collect()
    assert watched() is None


@pytest.mark.parametrize("writeable", [False, True])
def test_capsules_of_read_only_arrays(writeable: bool) -> None:
    array = _core.empty((5,), "bfloat16")
    if not writeable:
        array.flags.writeable = False
    taken = _core.as_array("array", _core.LentArray(array))
    assert taken.ctypes.data == array.ctypes.data
    assert taken.flags.writeable is writeable


def test_what_a_capsule_cannot_be_asked_for() -> None:
    lent = _core.LentArray(_core.empty((5,), "bfloat16"))
    asked: list[Arguments] = [{"stream": 1}, {"dl_device": (2, 0)}, {"copy": True}]
    for options in asked:
        with pytest.raises(BufferError, match=f"^{next(iter(options))}: expected "):
            lent.__dlpack__(**options)
    lent.__dlpack__(stream=None, dl_device=(1, 0), copy=False)


# Types that are something else


@pytest.mark.parametrize(
    "dtype",
    [
        "V2",
        "float8_e5m2",
        "float8_e4m3fn",
        "int4",
        "complex64",
        [("bits", "u2")],
        [("bfloat16", "i2")],
        [("bfloat16", "u1"), ("more", "u1")],
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["x", "w_hh", "dy"])
def test_what_is_no_float_of_16_bits(name: str, dtype: Any) -> None:
    shape = (3, 2, 5) if name == "dy" else shapes("lstm")[name]
    array = np.zeros(shape, dtype)
    message = f"{name}: expected {FLOATING}, got {array.dtype}"
    (rejected_upstream if name == "dy" else rejected)("lstm", TypeError, message, **{name: array})


@pytest.mark.parametrize("dtype", [(4, 32, 1), (4, 8, 1), (2, 8, 1), (4, 16, 2), (5, 16, 1)])
def test_tensors_of_other_types(dtype: tuple[int, int, int]) -> None:
    lent = Producer(problem("gru")["x"], versioned=True, dtype=dtype)
    with pytest.raises(TypeError, match=f"^x: expected {FLOATING}, got "):
        fr.gru(**problem("gru") | {"x": lent})


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("name", FLOATS[1:])
def test_one_dtype_a_call(cell: str, name: str) -> None:
    if name not in shapes(cell):
        return
    for own, other in (("bfloat16", "float16"), ("float16", "float32"), ("bfloat16", "float32")):
        arguments = problem(cell, own)
        message = (
            f"{name}: expected dtype {own} (the dtype of x), got {other}; use .astype('{own}')"
        )
        wrong = {name: arguments[name].astype(other)}
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            forward(cell, **arguments | wrong)
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            forward(cell, **arguments | {name: as_torch(wrong[name])})


# Parameters


@pytest.mark.parametrize("given", ["bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)])
def test_parameters_are_arrays_of_ml_dtypes(given: Any) -> None:
    layer = fr.LSTM(3, 4, dtype=given, seed=0)
    assert layer.dtype == "bfloat16"
    assert repr(layer) == "LSTM(3, 4, dtype='bfloat16')"
    for arrays in (layer.parameters(), layer.state_dict()):
        assert {value.dtype for value in arrays.values()} == {np.dtype(ml_dtypes.bfloat16)}
    x = np.ones((2, 1, 3), "bfloat16")
    before = layer(x)[0]
    layer.parameters()["weight_ih_l0"][...] = 0.5  # they are live
    assert not np.array_equal(layer(x)[0], before)


@halves
@pytest.mark.parametrize("source", ["float32", "float64", "bfloat16", "float16"])
def test_state_dicts_are_cast_as_numpy_casts(source: str, dtype: str) -> None:
    layer = fr.GRU(3, 4, dtype=dtype, seed=0)
    state = fr.GRU(3, 4, dtype=source, seed=1).state_dict()
    layer.load_state_dict(state)
    expected = {name: value.astype(dtype) for name, value in state.items()}
    same_bits(layer.parameters(), expected)
    back = fr.GRU(3, 4, dtype=source, seed=2)
    back.load_state_dict({name: as_torch(value) for name, value in expected.items()})
    same_bits(back.parameters(), {name: v.astype(source) for name, v in expected.items()})


def test_casts_are_those_of_ml_dtypes() -> None:
    patterns = np.arange(2**16, dtype=np.uint32) << 16
    with np.errstate(all="ignore"):
        for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
            array = (patterns | np.uint32(lower)).view(np.float32)
            got, expected = bf16.cast(array, "bfloat16"), array.astype("bfloat16")
            number = ~np.isnan(array)
            same_bits({"": got.view("bfloat16")[number]}, {"": expected[number]})
            assert np.isnan(got.view("bfloat16")[~number].astype(np.float32)).all()
        every = np.arange(2**16, dtype=np.uint16).view("bfloat16")
        for dtype in ("float32", "float64", "float16"):
            np.testing.assert_array_equal(bf16.cast(every, dtype), every.astype(dtype))
        same_bits({"": bf16.cast(every, "bfloat16").view("u2")[:100]}, {"": every.view("u2")[:100]})


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@halves
def test_copies_are_equal_and_independent(duplicate: Any, dtype: str) -> None:
    layer = fr.GRU(3, 4, dtype=dtype, seed=0)
    x = np.ones((2, 1, 3), dtype)
    y, _ = layer(x)
    twin = duplicate(layer)
    same_bits({"y": twin(x)[0]}, {"y": y})
    twin.parameters()["weight_ih_l0"][...] = 0
    same_bits({"y": layer(x)[0]}, {"y": y})


@pytest.mark.parametrize("cell", LAYERS)
@halves
def test_layers_of_pytorch(cell: str, dtype: str) -> None:
    """Within what PyTorch's and our own roundings explain."""
    theirs = getattr(torch.nn, cell.upper())(6, 20, 2, bidirectional=True, dtype=TORCH[dtype])
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        torch.nn.init.uniform_(parameter, -0.3, 0.3)
    ours = LAYERS[cell](6, 20, 2, bidirectional=True, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(7, 3, 6).to(TORCH[dtype])
    with torch.no_grad():
        expected, _ = theirs(x)
    y, _, tape = ours.forward(x)
    assert y.dtype == x.dtype
    check({"y": y.double()}, {"y": expected.double()}, 4 * UNIT[dtype])
    exact = theirs.double()
    exact(x.double())[0].sum().backward()
    grads = ours.backward(tape, torch.ones_like(y))
    for name, parameter in exact.named_parameters():
        check({"": grads[name].double()}, {"": parameter.grad}, 8 * UNIT[dtype])


# Without ml_dtypes


def alone(code: str) -> subprocess.CompletedProcess[str]:
    """In a process in which the package cannot be imported."""
    preamble = "import sys; sys.modules['ml_dtypes'] = None\nimport numpy as np, fusedrnn as fr\n"
    return subprocess.run(
        [sys.executable, "-c", preamble + code], capture_output=True, text=True, check=False
    )


def test_pytorch_needs_no_ml_dtypes() -> None:
    done = alone("""
import torch
layer = fr.LSTM(3, 4, 2, bidirectional=True, dtype="bfloat16")
x = torch.ones(2, 1, 3, dtype=torch.bfloat16)
layer.load_state_dict(torch.nn.LSTM(3, 4, 2, bidirectional=True).state_dict())
y, state, tape = layer.forward(x)
grads = layer.backward(tape, y, state)
assert {v.dtype for v in (y, *state, *grads.values())} == {torch.bfloat16}
w = torch.ones(1, 3, dtype=x.dtype), torch.ones(1, 1, dtype=x.dtype)
y, h_n, tape = fr.rnn_forward(x, *w)
assert fr.rnn_backward(tape, y).dx.dtype == y.dtype == torch.bfloat16
""")
    assert done.returncode == 0, done.stderr


def test_float16_needs_no_ml_dtypes() -> None:
    done = alone("""
layer = fr.GRU(3, 4, dtype="float16", seed=0)
y, h_n, tape = layer.forward(np.ones((2, 1, 3), "float16"))
assert y.dtype == layer.backward(tape, y)["x"].dtype == np.float16
fr.GRU(3, 4, compute_dtype="bfloat16")(np.ones((2, 1, 3), "float32"))
""")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("call", ["parameters", "state_dict"])
def test_numpy_arrays_of_bfloat16_need_ml_dtypes(call: str) -> None:
    failed = alone(f"fr.GRU(3, 4, dtype='bfloat16').{call}()")
    assert failed.stderr.strip().splitlines()[-1] == (
        "ImportError: bfloat16 in NumPy arrays needs the package ml_dtypes, which cannot be "
        "imported: pip install ml_dtypes"
    )


def test_it_is_not_imported_for_others() -> None:
    code = """
import sys, numpy as np, fusedrnn as fr
for options in ({"dtype": "float16"}, {"compute_dtype": "bfloat16"}, {"dtype": "float64"}):
    layer = fr.GRU(3, 4, **options)
    layer.load_state_dict(layer.state_dict())
    y, h_n, tape = layer.forward(np.ones((2, 1, 3), layer.dtype))
    layer.backward(tape, y)
fr.GRU(3, 4, dtype="bfloat16")
assert "ml_dtypes" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
