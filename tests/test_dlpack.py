"""The DLPack protocol: who lends what, for how long, and what producers may get wrong."""

from __future__ import annotations

import ctypes
import gc
import re
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import fusedrnn as fr
from error_support import FLOATING, B, H, T, problem, rejected
from fake_dlpack import READ_ONLY, Deleter, Producer
from fusedrnn import _core
from support import Arguments, backward, forward, infer, same_bits

MAKE: dict[str, Callable[[Any], Any]] = {"torch": torch.from_numpy, "jax": jnp.asarray}
DTYPES = ("float32", "float64")


@pytest.fixture(autouse=True)
def _jax_in_double() -> Any:
    with jax.enable_x64(True):
        yield


def address(array: Any) -> int:
    if isinstance(array, torch.Tensor):
        return array.data_ptr()
    if isinstance(array, jax.Array):
        return int(array.unsafe_buffer_pointer())
    return int(array.ctypes.data)


# In without a copy, out without a copy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", MAKE)
def test_memory_is_shared_on_the_way_in(kind: str, dtype: str) -> None:
    array = MAKE[kind](np.arange(12, dtype=dtype).reshape(3, 4))
    imported = _core.as_array("a", array, (3, 4), dtype)
    assert imported.ctypes.data == address(array)
    assert imported.dtype == dtype
    assert np.array_equal(imported, np.arange(12).reshape(3, 4))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", MAKE)
def test_results_are_of_the_kind_and_dtype_of_x(kind: str, dtype: str) -> None:
    arguments = problem("lstm", dtype)
    expected, tape = forward("lstm", **arguments)
    dy = np.ones((T, B, H), dtype)
    expected_grads = backward("lstm", tape, dy=dy)
    given = {name: MAKE[kind](value) for name, value in arguments.items()}
    got, tape = forward("lstm", **given)
    grads = backward("lstm", tape, dy=MAKE[kind](dy))
    for results in (got, grads):
        assert all(type(value) is type(given["x"]) for value in results.values())
    same_bits(got, expected)
    same_bits(grads, expected_grads)


def test_what_a_tensor_s_strides_say() -> None:
    x = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    for view in (x.transpose(0, 1), x.permute(2, 1, 0), x[:, 1:], x[:, :, ::2], x.expand(2, 3, 4)):
        imported = _core.as_array("x", view)
        assert imported.ctypes.data == view.data_ptr()
        assert np.array_equal(imported, view.numpy())
    weights = (np.ones((1, 4), "float32"), np.zeros((1, 1), "float32"))
    views = (x.transpose(0, 1), x.flip(0), x[..., None].expand(2, 3, 4, 4)[:, :, 0])
    for view in views:
        y, _ = fr.rnn(view, *weights, nonlinearity="identity")
        assert torch.equal(y[..., 0], view.sum(-1))


@pytest.mark.parametrize(
    "dtype",
    [*(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "bool", "float16"],
)
def test_other_types_pass_as_they_are(dtype: str) -> None:
    array = torch.ones(3, dtype=getattr(torch, dtype))
    assert _core.as_array("a", array).dtype == dtype


def test_types_that_numpy_lacks() -> None:
    array = np.ones((T, B, 4), "float32")
    lent = Producer(array, versioned=True, dtype=(2, 8, 1))
    with pytest.raises(TypeError, match=r"^a: expected a dtype that NumPy has, got float8$"):
        _core.as_array("a", lent)
    with pytest.raises(TypeError, match=r"^a: expected dtype float32, got float8$"):
        _core.as_array("a", lent, None, "float32")
    rejected("gru", TypeError, f"x: expected {FLOATING}, got float8", x=lent)


def test_imported_shapes() -> None:
    array = np.zeros((3, 4))
    for shape, shown in [((3, 5), "(3, 5)"), ((None, 5), "(*, 5)"), ((3,), "(3,)"), ((), "()")]:
        message = re.escape(f"a: expected shape {shown}, got (3, 4)")
        with pytest.raises(ValueError, match=f"^{message}$"):
            _core.as_array("a", array, shape)
    assert _core.as_array("a", array, (None, 4)) is array
    assert type(_core.as_array("a", array.view(np.recarray), (3, None))) is np.ndarray
    assert _core.as_array("a", array[:, ::-2], (3, 2)).strides == (32, -16)


def test_empty_arrays() -> None:
    array = _core.empty((3, 0, 5), "float64")
    assert array.shape == (3, 0, 5)
    array = _core.empty((7, 5), "float32")
    assert array.ctypes.data % 64 == 0
    assert array.flags.writeable
    with pytest.raises(TypeError, match=f"^dtype: expected {FLOATING}, got int8$"):
        _core.empty((1,), "int8")
    with pytest.raises(ValueError, match=r"^shape: expected extents of at least 0, got -1$"):
        _core.empty((-1,), "float32")
    with pytest.raises(ValueError, match=r"^shape: shape .* is too large$"):
        _core.empty((2**40, 2**40), "float32")


# How long memory is lent


def test_each_tensor_is_returned_once() -> None:
    for versioned in (False, True):
        arguments = problem("lstm")
        lent = {name: Producer(value, versioned) for name, value in arguments.items()}
        infer("lstm", **lent)
        gc.collect()
        assert {name: p.deleted for name, p in lent.items()} == dict.fromkeys(lent, 1)


@pytest.mark.parametrize("versioned", [False, True])
def test_a_tape_keeps_what_it_refers_to(versioned: bool) -> None:
    arguments = problem("gru")
    lent: Arguments = {name: Producer(v, versioned) for name, v in arguments.items()}
    *_, tape = fr.gru_forward(**lent)
    kept = {name for name, p in lent.items() if not p.deleted}
    assert kept == {"x", "w_ih", "w_hh", "b_ih", "b_hh"}
    del tape
    gc.collect()
    assert all(p.deleted == 1 for p in lent.values())


@pytest.mark.parametrize("versioned", [False, True])
def test_a_failed_call_returns_what_it_took(versioned: bool) -> None:
    arguments = problem("gru")
    for wrong in ({"lengths": [9, 9]}, {"w_hh": np.zeros((1, 1), "float32")}, {"resets": 3}):
        lent: Arguments = {
            name: Producer(value, versioned)
            for name, value in arguments.items()
            if name not in wrong
        }
        with pytest.raises((TypeError, ValueError), match="expected"):
            fr.gru_forward(**lent, **wrong)
        gc.collect()
        assert all(p.deleted == p.lent for p in lent.values())


def test_a_view_keeps_its_tensor() -> None:
    lent = Producer(np.arange(6, dtype="float32").reshape(2, 3), versioned=True)
    view = _core.as_array("a", lent)[1:]
    gc.collect()
    assert lent.deleted == 0
    assert np.array_equal(view, [[3, 4, 5]])
    del view
    gc.collect()
    assert lent.deleted == 1


@pytest.mark.parametrize("kind", MAKE)
def test_results_outlive_what_they_came_from(kind: str) -> None:
    arguments = {name: MAKE[kind](value) for name, value in problem("gru").items()}
    results, tape = forward("gru", **arguments)
    grads = backward("gru", tape, dy=results["y"])
    copies = {name: np.asarray(value).copy() for name, value in (results | grads).items()}
    del arguments, tape
    gc.collect()
    churn = [np.full((T, B, H), np.nan) for _ in range(100)]
    same_bits(results | grads, copies)
    del churn


def test_results_that_are_dropped_are_freed() -> None:
    y, _ = fr.gru(**problem("gru"))
    watched = weakref.ref(y)
    tensor = torch.utils.dlpack.from_dlpack(y)
    del y
    gc.collect()
    assert watched() is not None
    del tensor
    gc.collect()
    assert watched() is None


# What producers may do


def test_tensors_that_say_they_are_read_only() -> None:
    values = np.arange(6, dtype="float32").reshape(2, 3)
    assert _core.as_array("a", Producer(values, versioned=True)).flags.writeable
    assert not _core.as_array(
        "a", Producer(values, versioned=True, flags=READ_ONLY)
    ).flags.writeable
    assert not _core.as_array("a", Producer(values, versioned=False)).flags.writeable
    arguments = problem("lstm")
    expected = infer("lstm", **arguments)
    lent = {name: Producer(value, True, flags=READ_ONLY) for name, value in arguments.items()}
    same_bits(infer("lstm", **lent), expected)


def test_strides_that_are_left_out_and_an_offset() -> None:
    arguments = problem("lstm")
    expected = infer("lstm", **arguments)
    for changed in ({"strides": None}, {"offset": 8}):
        for versioned in (False, True):
            lent = {name: Producer(v, versioned, **changed) for name, v in arguments.items()}
            same_bits(infer("lstm", **lent), expected)


def test_empty_tensors_without_an_address() -> None:
    arguments = problem("gru") | {"h0": None, "lengths": None, "resets": None}
    x = Producer(np.ones((0, B, 4), "float32"), versioned=True, data=None)
    y, h_n = fr.gru(**arguments | {"x": x})
    assert y.shape == (0, B, H)
    assert not np.asarray(h_n).any()


class Legacy:
    """As before the protocol had versions, or __dlpack_device__ was asked for."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.array.__dlpack__(stream=stream)


def test_producers_of_old() -> None:
    arguments = problem("lstm")
    expected = infer("lstm", **arguments)
    same_bits(infer("lstm", **{name: Legacy(v) for name, v in arguments.items()}), expected)


def test_tensors_that_want_a_gradient() -> None:
    arguments = problem("gru")
    expected = infer("gru", **arguments)
    x = torch.from_numpy(arguments["x"]).requires_grad_()
    with torch.no_grad():
        got = infer("gru", **arguments | {"x": x})
    same_bits(got, expected)
    assert not got["y"].requires_grad
    imported = _core.as_array("x", x)
    assert imported.ctypes.data == x.data_ptr()


def test_tensors_that_are_negated_as_they_are_read() -> None:
    arguments = problem("gru")
    expected = infer("gru", **arguments)
    pairs = torch.zeros(*arguments["x"].shape, dtype=torch.complex64)
    pairs.imag[...] = -torch.from_numpy(arguments["x"])
    x = pairs.conj().imag
    assert x.is_neg()
    same_bits(infer("gru", **arguments | {"x": x}), expected)
    assert not _core.as_array("x", x).flags.writeable  # a copy


class Odd:
    """Has what PyTorch's tensors have, by name."""

    requires_grad = False
    is_neg = 0

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.array.__dlpack__(**arguments)


def test_attributes_that_only_look_like_a_tensors() -> None:
    arguments = problem("gru")
    message = "x: expected an array whose memory can be read, got Odd whose is_neg "
    message += "raised TypeError: 'int' object is not callable"
    rejected("gru", TypeError, message, x=Odd(arguments["x"]))


CPU, CUDA, CUDA_HOST, ROCM = 1, 2, 3, 10


@pytest.mark.parametrize("versioned", [False, True])
def test_other_devices(versioned: bool) -> None:
    arguments = problem("gru")
    for device, shown in [((ROCM, 1), "rocm:1"), ((99, 0), "DLPack device type 99:0")]:
        message = f"x: expected an array on the CPU or a CUDA device, got one on {shown}"
        polite = Producer(arguments["x"], versioned, device=device)
        rejected("gru", TypeError, message, x=polite)
        assert polite.lent == 0  # its memory was not asked for
    for device, shown in [((CUDA, 0), "cuda:0"), ((CUDA, 3), "cuda:3"), ((ROCM, 1), "rocm:1")]:
        message = f"w_ih: expected an array on the CPU (the device of x), got one on {shown}"
        polite = Producer(arguments["w_ih"], versioned, device=device)
        rejected("gru", TypeError, message, w_ih=polite)
        assert polite.lent == 0
        got = f"Producer on {shown} whose __dlpack_device__ says cpu"
        for name in ("x", "w_ih"):
            quiet = Producer(arguments[name], versioned, device=device, says_device=(CPU, 0))
            message = f"{name}: expected an array whose memory can be read, got {got}"
            rejected("gru", TypeError, message, **{name: quiet})
            gc.collect()
            assert quiet.deleted == quiet.lent == 2
    pinned = Producer(arguments["x"], versioned, device=(CUDA_HOST, 0))
    same_bits(infer("gru", **arguments | {"x": pinned}), infer("gru", **arguments))


@pytest.mark.parametrize("name", ["lengths", "resets"])
def test_masks_on_another_device(name: str) -> None:
    arguments = problem("gru")
    there = Producer(arguments[name], True, device=(CUDA, 1))
    message = f"{name}: expected an array on the CPU (the device of x), got one on cuda:1"
    rejected("gru", TypeError, message, **{name: there})


@pytest.mark.parametrize("version", [(2, 0), (0, 8), (2**32 - 1, 7)])
def test_versions_to_come(version: tuple[int, int]) -> None:
    lent = Producer(problem("gru")["x"], versioned=True, version=version)
    got = f"version {version[0]}.{version[1]}"
    message = f"x: expected a DLPack tensor of major version 1, got {got}"
    rejected("gru", TypeError, message, x=lent)
    gc.collect()
    assert lent.deleted == lent.lent == 2


def test_a_later_minor_version() -> None:
    lent = Producer(problem("gru")["x"], versioned=True, version=(1, 99))
    same_bits(infer("gru", **problem("gru") | {"x": lent}), infer("gru", **problem("gru")))


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"data": None}, TypeError, "got Producer with a null pointer"),
        ({"shape": None}, ValueError, "x: expected a shape, got 3 dimensions without one"),
        ({"ndim": -1}, ValueError, "x: expected a shape, got -1 dimensions without one"),
        ({"ndim": 2**31 - 1}, ValueError, f"x: expected at most 8 dimensions, got {2**31 - 1}"),
        (
            {"shape": (3, -2, 4)},
            ValueError,
            "x: expected dimensions of at least 0, got shape (3, -2, 4)",
        ),
        (
            {"shape": (2**40, 2**40, 4), "strides": None},
            ValueError,
            f"x: shape {(2**40, 2**40, 4)} is too large",
        ),
        (
            {"strides": (2**61, 4, 1)},
            ValueError,
            f"x: expected strides within memory, got {2**61} for axis 0",
        ),
        (
            {"strides": (-(2**63), 4, 1)},
            ValueError,
            f"x: expected strides within memory, got {-(2**63)} for axis 0",
        ),
        ({"dtype": (2, 32, 4)}, TypeError, "float32 with 4 lanes"),
        ({"dtype": (4, 32, 1)}, TypeError, "bfloat32"),
        ({"dtype": (2, 0, 1)}, TypeError, "float0"),
        ({"dtype": (2, 32, 0)}, TypeError, "float32 with 0 lanes"),
        ({"dtype": (200, 32, 1)}, TypeError, "DLPack type code 200 of bits 32"),
    ],
)
def test_tensors_that_make_no_sense(
    changed: Any, error: type[Exception], message: str, versioned: bool
) -> None:
    lent = Producer(problem("gru")["x"], versioned, **changed)
    arguments = problem("gru") | {"x": lent}
    with pytest.raises(error, match=re.escape(message) + "$"):
        fr.gru(**arguments)
    gc.collect()
    assert lent.deleted == lent.lent == 1


class Raising:
    def __init__(self, error: BaseException, method: str) -> None:
        self.error, self.method = error, method

    def __dlpack_device__(self) -> tuple[int, int]:
        if self.method == "__dlpack_device__":
            raise self.error
        return CPU, 0

    def __dlpack__(self, **_: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("method", ["__dlpack__", "__dlpack_device__"])
def test_producers_that_raise(method: str) -> None:
    for error in (BufferError("locked"), TypeError("odd"), RuntimeError("broken"), KeyError("k")):
        message = (
            "w_ih: expected an array whose memory can be read, "
            f"got Raising whose {method} raised {type(error).__name__}: {error}"
        )
        rejected("gru", TypeError, message, w_ih=Raising(error, method))
    with pytest.raises(TypeError) as caught:
        fr.gru(**problem("gru") | {"x": Raising(BufferError("locked"), method)})
    assert isinstance(caught.value.__cause__, BufferError)


@pytest.mark.parametrize("method", ["__dlpack__", "__dlpack_device__"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_what_is_not_about_the_array_passes(error: type[BaseException], method: str) -> None:
    with pytest.raises(error):
        fr.gru(**problem("gru") | {"x": Raising(error(), method)})


class Returning:
    def __init__(self, result: Any, device: Any = (CPU, 0)) -> None:
        self.result, self.device = result, device

    def __dlpack_device__(self) -> Any:
        return self.device

    def __dlpack__(self, **_: Any) -> Any:
        return self.result() if callable(self.result) else self.result


def capsule(name: bytes | None) -> Any:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = (
        ctypes.py_object,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
    )
    return new(1, name, None)


NAME = b"numpy_array"


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (None, "NoneType"),
        (3, "int"),
        (np.zeros((T, B, 4), "float32"), "ndarray"),
        (lambda: capsule(NAME), "a capsule named numpy_array"),
        (lambda: capsule(None), "a capsule named nothing"),
    ],
)
def test_producers_that_return_something_else(result: Any, shown: str) -> None:
    message = f"x: expected a new DLPack capsule from __dlpack__, got {shown}"
    rejected("gru", TypeError, message, x=Returning(result))


def test_a_capsule_is_taken_once() -> None:
    source = np.zeros((T, B, 4), "float32")
    once = Returning(source.__dlpack__())
    fr.gru(**problem("gru") | {"x": once})
    message = "x: expected a new DLPack capsule from __dlpack__, got a capsule named used_dltensor"
    rejected("gru", TypeError, message, x=once)


@pytest.mark.parametrize("device", [None, 1, (1,), (1, 0, 0), ("cpu", 0), (2**40, 0), [1.5, 0]])
def test_devices_that_make_no_sense(device: Any) -> None:
    message = (
        "x: expected an array whose memory can be read, "
        "got Returning whose __dlpack_device__ is no pair of ints"
    )
    rejected("gru", TypeError, message, x=Returning(None, device))


class Refusing:
    """Its methods are there, and are none, or are gone once somebody asks for them."""

    __dlpack__ = None

    @property
    def __dlpack_device__(self) -> Any:
        raise RuntimeError("gone")


class Odder:
    __dlpack__ = property(lambda _: 1 / 0)


class Pair:
    def __len__(self) -> int:
        return 2

    def __getitem__(self, _: int) -> Any:
        raise KeyError("no pair")


def test_attributes_that_make_no_sense() -> None:
    got = "Refusing whose __dlpack__ raised TypeError: 'NoneType' object is not callable"
    message = f"x: expected an array whose memory can be read, got {got}"
    rejected("gru", TypeError, message, x=Refusing())
    message = "x: expected an array (NumPy, or an object with __dlpack__), got Odder"
    rejected("gru", TypeError, message, x=Odder())
    message = "x: expected an array whose memory can be read, got Returning whose __dlpack_device__"
    with pytest.raises(TypeError, match=message):
        fr.gru(**problem("gru") | {"x": Returning(None, Pair())})


@pytest.mark.parametrize("versioned", [False, True])
def test_tensors_that_are_never_given_back(versioned: bool) -> None:
    arguments = problem("gru")
    lent = {name: Producer(value, versioned) for name, value in arguments.items()}
    for producer in lent.values():
        producer.managed.deleter = Deleter()
    same_bits(infer("gru", **lent), infer("gru", **arguments))
    gc.collect()
    assert not any(producer.deleted for producer in lent.values())


def test_a_class_is_no_array() -> None:
    with pytest.raises(TypeError, match=r"^x: expected an array whose memory can be read, got "):
        fr.gru(**problem("gru") | {"x": torch.Tensor})


def test_a_capsule_is_read_once() -> None:
    """What a library's to_dlpack gives, without the library's object."""
    value = torch.arange(6.0).reshape(2, 3).requires_grad_()
    capsule = torch.utils.dlpack.to_dlpack(value)
    array = _core.as_array("x", capsule, (2, 3), "float32")
    assert array.ctypes.data == value.data_ptr()
    del capsule, value
    gc.collect()
    assert np.array_equal(array, np.arange(6.0).reshape(2, 3))
    capsule = torch.utils.dlpack.to_dlpack(torch.ones(2))
    _core.as_array("x", capsule)
    with pytest.raises(
        TypeError, match=r"^x: expected a new DLPack capsule .*, got a capsule named"
    ):
        _core.as_array("x", capsule)
    with pytest.raises(ValueError, match=r"^x: expected shape \(3,\), got \(2,\)"):
        _core.as_array("x", torch.utils.dlpack.to_dlpack(torch.ones(2)), (3,))
