"""The side that calls the CUDA library, over one that computes nothing; see `test_cuda_host.py`."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fake_cuda.arrays import FakeArray, FakeKind, InterfaceArray, Lender, OlderArray
from fake_dlpack import Producer
from fusedrnn import _core, cuda_arrays
from fusedrnn.runs import Run, to_records

T, B, I, H = 3, 2, 4, 5  # noqa: E741
STREAM, OTHER = 4096, 8192
SHAPES = {
    "x": (T, B, I),
    "w_ih": (H, I),
    "w_hh": (H, H),
    "b_ih": (H,),
    "b_hh": (H,),
    "h0": (B, H),
}

library = ctypes.CDLL(os.environ["FUSEDRNN_CUDA_LIBRARY"])
library.fake_cuda_journal.restype = ctypes.c_char_p
library.fake_cuda_outstanding.restype = ctypes.c_long


def journal() -> list[str]:
    return library.fake_cuda_journal().decode().splitlines()


@pytest.fixture
def kind() -> Iterator[FakeKind]:
    kind = FakeKind()
    cuda_arrays.register(FakeArray, kind)
    cuda_arrays.register(OlderArray, kind)
    journal()
    yield kind
    gc.collect()
    assert not kind.live
    assert library.fake_cuda_outstanding() == 0


def values(dtype: str = "float32") -> dict[str, Any]:
    return {name: np.ones(shape, dtype) for name, shape in SHAPES.items()}


def arrays(array_type: Any = FakeArray, **changed: Any) -> dict[str, Any]:
    return {name: array_type(value) for name, value in values().items()} | changed


def rejected(error: type[Exception], message: str, **changed: Any) -> None:
    for function in (fr.rnn, fr.rnn_forward):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            function(**arrays(**changed))


def test_what_the_library_is_given(kind: FakeKind) -> None:
    kind.stream = STREAM
    given = arrays()
    y, h_n = fr.rnn(**given)
    assert [type(array) for array in (y, h_n)] == [FakeArray, FakeArray]
    assert (y.values == 1).all()
    assert (h_n.values == 2).all()
    assert y.values.shape == (T, B, H)
    assert journal() == [
        f"forward cell=0 dtype=0 compute=0 shape={T},{B},{I},{H} device=0 stream={STREAM} "
        "allocator=1 lengths=none resets=none flags=0 reserve=0"
    ]
    for array in given.values():
        assert array.streams == [STREAM]
        assert [producer.deleted for producer in array.producers] == [1]


@pytest.mark.parametrize(("stream", "written"), [(0, 1), (1, 1), (2, 2), (STREAM, STREAM)])
def test_streams_as_dlpack_writes_them(kind: FakeKind, stream: int, written: int) -> None:
    kind.stream = stream
    given = arrays()
    fr.rnn(**given)
    assert {tuple(array.streams) for array in given.values()} == {(written,)}
    assert f" stream={stream} " in journal()[0]


def test_producers_older_than_versions(kind: FakeKind) -> None:
    kind.stream = STREAM
    given = arrays(OlderArray)
    y, _ = fr.rnn(**given)
    assert (y.values == 1).all()
    assert {tuple(array.streams) for array in given.values()} == {(STREAM,)}


def test_a_tape(kind: FakeKind) -> None:
    kind.stream = STREAM
    given = arrays()
    *_, tape = fr.rnn_forward(**given)
    assert list(kind.live.values()) == [1024]
    assert [given[name].producers[0].deleted for name in ("x", "w_ih", "w_hh")] == [0, 0, 0]
    kind.stream = OTHER
    dy = FakeArray(np.ones((T, B, H), "float32"))
    grads = fr.rnn_backward(tape, dy)
    assert dy.streams == [OTHER]
    for index, name in enumerate(("dx", "dw_ih", "dw_hh", "db_ih", "db_hh", "dh0")):
        assert (getattr(grads, name).values == index + 4).all(), name
    kept, forward, left, *later = journal()
    assert kept == f"keep device=0 bytes=1024 stream={STREAM} allocator=1"
    assert forward.endswith(" reserve=1")
    assert left == f"leave stream={STREAM} kept_on={STREAM}"
    assert later == [
        f"enter stream={OTHER} kept_on={STREAM}",
        f"backward device=0 stream={OTHER} allocator=1 lengths=0 resets=0 dy=1 accumulate=0",
        f"leave stream={OTHER} kept_on={STREAM}",
    ]
    del given
    thread = threading.Thread(target=tape.__dict__.clear)
    thread.start()
    thread.join()
    assert not kind.live
    assert journal() == ["free_kept"]


def test_dropout_is_between_the_runs(kind: FakeKind) -> None:
    """The row before it is read, and its gradient before it goes on."""
    kind.stream = STREAM
    runs = [
        Run("rnn_tanh", False, 0, 1, 0, 0, I, H, 0, 1),
        Run("rnn_tanh", False, 1, 2, 0, 0, H, H, 0, 1),
    ]
    network = _core.Network(to_records(runs), "float32", None, True)
    given = arrays()
    weights = tuple(given[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh"))
    upper = (FakeArray(np.ones((H, H), "float32")), *weights[1:])
    row = f"drop row=1 shape={T},{B},{H} rate=0.25 seed=7 device=0 stream={STREAM}"

    def calls() -> list[str]:
        lines = [line for line in journal() if line.startswith(("forward", "drop", "backward"))]
        return [line if line.startswith("drop") else line.split()[0] for line in lines]

    tape = network.forward(given["x"], weights + upper, save=True, dropout=(0.25, 7, 0))[3]
    assert calls() == ["forward", row, "forward"]
    assert tape is not None
    tape.backward(FakeArray(np.ones((T, B, H), "float32")), None, None, False)
    assert calls() == ["backward", row, "backward"]
    network.forward(given["x"], weights + upper)
    assert calls() == ["forward", "forward"]


def test_masks_may_be_on_either_side(kind: FakeKind) -> None:
    lengths, resets = np.array([1, 3]), np.zeros((T, B), bool)
    for given, shown in [
        ({"lengths": [1, 3], "resets": resets}, "lengths=host resets=host"),
        ({"lengths": FakeArray(lengths), "resets": resets}, "lengths=device resets=host"),
        ({"lengths": lengths, "resets": FakeArray(resets)}, "lengths=host resets=device"),
        ({"lengths": FakeArray(np.array([1, 9, 3, 9])[::2])}, "lengths=device resets=none"),
        ({"lengths": FakeArray(np.array([7, -1]))}, "lengths=device resets=none"),
    ]:
        fr.rnn(**arrays(), **given)
        assert f" {shown} " in journal()[0]
    message = f"lengths: expected values from 0 to T = {T}, got 4 at index 1"
    rejected(ValueError, message, lengths=[1, 4])
    there = FakeArray(lengths, device=1)
    message = "lengths: expected an array on cuda:0 (the device of x), got one on cuda:1"
    rejected(TypeError, message, lengths=there)
    assert there.streams == []


@pytest.mark.parametrize("name", ["w_ih", "w_hh", "b_ih", "b_hh", "h0"])
def test_everything_is_on_one_device(kind: FakeKind, name: str) -> None:
    host = values()[name]
    wanted = f"{name}: expected an array on cuda:0 (the device of x), got one on"
    rejected(TypeError, f"{wanted} the CPU", **{name: host})
    rejected(TypeError, f"{wanted} the CPU", **{name: Producer(host, versioned=True)})
    there = FakeArray(host, device=1)
    rejected(TypeError, f"{wanted} cuda:1", **{name: there})
    assert there.streams == []
    here = FakeArray(host)
    message = f"{name}: expected an array on the CPU (the device of x), got one on cuda:0"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        fr.rnn(**values() | {name: here})
    assert here.streams == []
    assert journal() == []


def test_upstream_gradients_on_another_device(kind: FakeKind) -> None:
    *_, tape = fr.rnn_forward(**arrays())
    dy = np.ones((T, B, H), "float32")
    for given, shown in ((dy, "the CPU"), (FakeArray(dy, 1), "cuda:1")):
        message = f"dy: expected an array on cuda:0 (the device of x), got one on {shown}"
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            fr.rnn_backward(tape, given)
    *_, tape = fr.rnn_forward(**values())
    message = "dy: expected an array on the CPU (the device of x), got one on cuda:0"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        fr.rnn_backward(tape, FakeArray(dy))


def test_devices_that_cannot_be_used(kind: FakeKind) -> None:
    for device, why in [(1, "it is too old"), (2, "there are 2 CUDA devices")]:
        x = FakeArray(values()["x"], device)
        rejected(RuntimeError, f"x: cuda:{device} cannot be used: {why}", x=x)
        assert x.streams == []


def test_what_lies_otherwise_is_copied_by_its_library(kind: FakeKind) -> None:
    strided = FakeArray(np.ones((T, B, 2 * I), "float32")[..., ::2])
    y, _ = fr.rnn(**arrays(x=strided))
    assert (y.values == 1).all()
    assert kind.copies == 1
    kind.can_copy = False
    rejected(ValueError, "x: expected a last axis of stride 1, got stride 2", x=strided)
    swapped = FakeArray(np.ones((B, T, I), "float32").swapaxes(0, 1))
    kind.copies = 0
    fr.rnn(**arrays(x=swapped))
    assert kind.copies == 0


def test_out_of_memory(kind: FakeKind) -> None:
    kind.failure = RuntimeError("the pool is empty")
    for function in (fr.rnn, fr.rnn_forward):
        with pytest.raises(MemoryError, match=r"^out of memory on the device$") as caught:
            function(**arrays())
        assert caught.value.__cause__ is kind.failure
    kind.failure = None
    *_, tape = fr.rnn_forward(**arrays())
    kind.failure = KeyboardInterrupt()
    with pytest.raises(MemoryError) as caught:
        fr.rnn_backward(tape)
    assert caught.value.__cause__ is kind.failure
    kind.failure = None
    fr.rnn_backward(tape)
    kind.allocate = lambda *_: "no pair"  # type: ignore[method-assign]
    with pytest.raises(MemoryError, match=r"^out of memory on the device$"):
        fr.rnn(**arrays())


def test_autograd_tensors_are_read(kind: FakeKind) -> None:
    class Tracked(FakeArray):
        requires_grad = True

        def detach(self) -> FakeArray:
            return FakeArray(self.values)

        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("Can't export tensors that require gradient")

    y, _ = fr.rnn(**arrays(x=Tracked(values()["x"])))
    assert type(y) is FakeArray


@pytest.mark.parametrize(("name", "number"), [("bfloat16", 1), ("tfloat32", 3)])
def test_compute_dtype(kind: FakeKind, name: str, number: int) -> None:
    *_, tape = fr.rnn_forward(**arrays(), compute_dtype=name)
    assert f" compute={number} " in journal()[1]
    assert (tape.core.network.dtype, tape.core.network.compute_dtype) == ("float32", name)


def test_compute_dtypes_that_are_not_there(kind: FakeKind) -> None:
    wanted = "compute_dtype: expected None, 'float32', 'bfloat16' or 'tfloat32' with arrays of"
    rejected(ValueError, f"{wanted} float32, got 'float16'", compute_dtype="float16")
    double = {name: FakeArray(value) for name, value in values("float64").items()}
    message = "compute_dtype: expected None or 'float64' with arrays of float64, got 'tfloat32'"
    rejected(ValueError, message, **double, compute_dtype="tfloat32")


class Unknown(Lender):
    """Of a library that is known through DLPack alone."""

    def __array_namespace__(self) -> Any:
        return sys.modules[__name__]


taken: list[tuple[Any, int]] = []


def from_dlpack(array: Any) -> Any:
    """As JAX does: the array's device, then its capsule, ordered for a stream of its own."""
    device = array.__dlpack_device__()
    capsule = array.__dlpack__(stream=OTHER)
    taken.append((capsule, device))
    return "taken over"


def test_a_library_that_is_known_through_dlpack_alone(kind: FakeKind) -> None:
    given = arrays(Unknown)
    y, h_n = fr.rnn(**given)
    assert (y, h_n) == ("taken over", "taken over")
    assert {tuple(array.streams) for array in given.values()} == {(1,)}
    assert [device for _, device in taken] == [(2, 0), (2, 0)]
    lines = journal()
    assert lines[:2] == [
        f"allocate device=0 bytes={4 * T * B * H} stream=1",
        f"allocate device=0 bytes={4 * B * H} stream=1",
    ]
    assert " stream=1 allocator=0 " in lines[2]
    assert lines[3:] == [f"order device=0 1 before {OTHER}"] * 2
    assert library.fake_cuda_outstanding() == 2
    # What the call reads is not given back before what it writes.
    assert [given["x"].producers[0].deleted] == [0]
    *_, tape = fr.rnn_forward(**given)
    grads = fr.rnn_backward(tape)
    assert grads.dx == "taken over"
    del tape, grads
    taken.clear()
    gc.collect()
    assert library.fake_cuda_outstanding() == 0
    assert all(p.deleted == 1 for array in given.values() for p in array.producers)


def test_the_cuda_array_interface(kind: FakeKind) -> None:
    kind.stream = STREAM
    weights = values()["w_ih"]
    for stream, ordered in [(None, []), (1, [1]), (OTHER, [OTHER])]:
        y, _ = fr.rnn(**arrays(w_ih=InterfaceArray(weights, stream=stream)))
        assert (y.values == 1).all()
        expected = [f"order device=0 {one} before {STREAM}" for one in ordered]
        assert journal()[:-1] == expected
    fr.rnn(**arrays(w_ih=InterfaceArray(weights, strides=None)))
    resets = InterfaceArray(np.zeros((B, T), bool).T)
    fr.rnn(**arrays(resets=resets))
    assert " resets=device " in journal()[-1]
    cuda_arrays.register(InterfaceArray, kind)
    y, _ = fr.rnn(**arrays(x=InterfaceArray(values()["x"])))
    assert type(y) is FakeArray


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"typestr": ">f4"}, "a typestr of numbers in the machine's byte order, got '>f4'"),
        ({"typestr": "<V2"}, "a typestr of numbers in the machine's byte order, got '<V2'"),
        ({"typestr": "f"}, "a typestr of numbers in the machine's byte order, got 'f'"),
        ({"strides": (16, 3)}, "strides of whole elements, got others"),
        ({"strides": (16,)}, "a stride an axis, got other strides"),
        ({"shape": [5, 4]}, "tuples of ints, got list"),
        ({"shape": (5, "4")}, "tuples of ints, got tuple"),
        ({"data": None}, "data, got NoneType"),
        ({"data": ("0", False)}, "data, got tuple"),
        ({"mask": 3}, "no mask, got int"),
        ({"stream": 0}, "a stream that is not 0, which could be either default, got 0"),
    ],
)
def test_wrong_interfaces(kind: FakeKind, changed: dict[str, Any], wanted: str) -> None:
    given = InterfaceArray(values()["w_ih"], **changed)
    rejected(TypeError, f"w_ih: expected a __cuda_array_interface__ with {wanted}", w_ih=given)


def test_interfaces_of_no_array(kind: FakeKind) -> None:
    given = InterfaceArray(values()["w_ih"], shape=(-1, 4))
    message = "w_ih: expected dimensions of at least 0, got shape (-1, 4)"
    rejected(ValueError, message, w_ih=given)
    given.interface = None  # type: ignore[assignment]
    wanted = "w_ih: expected a __cuda_array_interface__ with a dict, got NoneType"
    rejected(TypeError, wanted, w_ih=given)


def test_results_of_fewer_bits(kind: FakeKind) -> None:
    """The dtype by name: a library has its own object for it."""
    half = {name: FakeArray(value) for name, value in values("float64").items()}
    y, _ = fr.rnn(**half)
    assert y.values.dtype == np.float64
    assert " dtype=1 " in journal()[0]


def test_layers_and_frozen_weights_say_where_they_run(kind: FakeKind) -> None:
    layer = fr.RNN(I, H)
    x = FakeArray(values()["x"])
    for call in (layer, layer.forward, layer.freeze()):
        with pytest.raises(TypeError, match=r"^x: expected an array on the CPU, got one on cuda:0"):
            call(x)
    assert x.streams == []


def test_info(kind: FakeKind) -> None:
    known = fr.info()
    assert known["cuda_devices"] == ["cuda:0: Fake 0, compute capability 9.0, 1.5 GiB"]
    assert known["cuda"] == (
        "cuda:1: Fake 1, compute capability 5.2, 1.5 GiB: it is too old; "
        "a library that computes nothing"
    )
    _core.set_cuda_library("/nowhere")  # what is open stays
    assert fr.info() == known
