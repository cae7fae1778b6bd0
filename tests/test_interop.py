"""Arrays of every kind go in without a copy, and results come out as the kind of x."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
import torch

import fusedrnn as fr
import reference
from support import Arguments, backward, check, forward, infer, problem_of, same_bits, variants


class Foreign:
    """An array of a library that is not installed: the protocol and nothing else."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class Namespaced(Foreign):
    """One that names its library, as the array API standard asks."""

    @classmethod
    def from_dlpack(cls, other: Any) -> Namespaced:
        return cls(np.from_dlpack(other))

    def __array_namespace__(self, **_: Any) -> type[Namespaced]:
        return Namespaced


class TorchSubclass(torch.Tensor):
    pass


# How NumPy's become arrays of a kind, and what the results then are.
KINDS: dict[str, Any] = {
    "numpy": (np.asarray, np.ndarray),
    "torch": (torch.from_numpy, torch.Tensor),
    "torch-subclass": (
        lambda array: torch.from_numpy(array).as_subclass(TorchSubclass),
        torch.Tensor,
    ),
    "jax": (jax.numpy.asarray, jax.Array),
    "namespaced": (Namespaced, Namespaced),
    "foreign": (Foreign, np.ndarray),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def as_numpy(value: Any) -> Any:
    return np.asarray(value.array if isinstance(value, Foreign) else value)


def convert(arguments: Arguments, kind: str) -> Arguments:
    return {name: KINDS[kind][0](value) for name, value in arguments.items()}


@variants
@kinds
def test_results_are_of_the_kind_of_x(cell: str, options: Arguments, kind: str) -> None:
    problem, upstream = problem_of(cell, "float32", batch=4, lengths=True, seed=20)
    expected, tape = forward(cell, **problem, **options)
    expected_grads = backward(cell, tape, **upstream)
    got, tape = forward(cell, **convert(problem, kind), **options)
    grads = backward(cell, tape, **convert(upstream, kind))
    for results, plain in ((got, expected), (grads, expected_grads)):
        assert all(isinstance(value, KINDS[kind][1]) for value in results.values())
        same_bits({name: as_numpy(value) for name, value in results.items()}, plain)


@kinds
def test_kinds_may_be_mixed(kind: str) -> None:
    problem, upstream = problem_of("lstm", "float32", lengths=True, resets=True, seed=21)
    expected, tape = forward("lstm", **problem)
    expected_grads = backward("lstm", tape, **upstream)
    mixed = {**convert(problem, kind), "x": problem["x"]}
    got, tape = forward("lstm", **mixed)
    same_bits(got, expected)
    same_bits(backward("lstm", tape, **convert(upstream, kind)), expected_grads)


@kinds
def test_layers_take_and_return_every_kind(kind: str) -> None:
    make, result = KINDS[kind]
    x = np.random.default_rng(0).standard_normal((3, 2, 4)).astype("float32")
    for layer in (fr.GRU(4, 5, 2, seed=0), fr.LSTM(4, 5, 2, seed=0)):
        expected, state, tape = layer.forward(x)
        expected_grads = layer.backward(tape, expected, state)
        y, state, tape = layer.forward(make(x))
        grads = layer.backward(tape, y, state)
        states = state if isinstance(state, tuple) else (state,)
        assert all(isinstance(value, result) for value in (y, *states, *grads.values()))
        same_bits({"y": as_numpy(y)}, {"y": expected})
        same_bits({name: as_numpy(value) for name, value in grads.items()}, expected_grads)
        y_t, _ = layer.step(make(x[0]))
        assert isinstance(y_t, result)


@pytest.mark.parametrize("kind", ["torch", "jax"])
def test_results_share_the_memory_they_were_written_to(kind: str) -> None:
    problem, _ = problem_of("gru", "float32", batch=4, hidden_size=33)
    convert_result = fr.interop.converter_to_kind_of(KINDS[kind][0](problem["x"]))
    y = fr.gru(**problem)[0]
    shared = convert_result(y)
    address = shared.data_ptr() if kind == "torch" else shared.unsafe_buffer_pointer()
    assert address == y.ctypes.data


@pytest.mark.parametrize("kind", ["torch", "jax"])
def test_results_outlive_everything(kind: str) -> None:
    problem, upstream = problem_of("lstm", "float32", batch=4, hidden_size=40, seed=22)
    expected = reference.gradients("lstm", **problem, **upstream)
    _, tape = forward("lstm", **convert(problem, kind))
    grads = backward("lstm", tape, **upstream)
    del tape
    churn = [np.full_like(value, np.nan) for value in problem.values() for _ in range(5)]
    check({name: np.asarray(value) for name, value in grads.items()}, expected, 2e-6)
    del churn


def test_given_gradients_come_back() -> None:
    """Of whatever kind they are; only new ones are of the kind of x."""
    problem, upstream = problem_of("gru", "float32", batch=4, hidden_size=33)
    _, tape = forward("gru", **convert(problem, "torch"))
    expected = backward("gru", tape, **upstream)
    dx = np.empty_like(problem["x"])
    grads = backward("gru", tape, **upstream, out={"dx": dx})
    assert grads["dx"] is dx
    assert isinstance(grads["dw_ih"], torch.Tensor)
    same_bits({"dx": dx}, {"dx": as_numpy(expected["dx"])})


def test_an_array_still_being_computed() -> None:
    """JAX returns before its results are there."""
    a, mean = jax.numpy.ones((600, 600), "float32"), jax.numpy.full((600, 600), 1 / 600, "float32")
    for _ in range(50):
        a = a @ mean
    x = a.reshape(60, 10, 600)
    w_ih, w_hh = np.ones((1, 600), "float32"), np.zeros((1, 1), "float32")
    y, _ = fr.rnn(x, w_ih, w_hh, nonlinearity="identity")
    np.testing.assert_allclose(y, np.full((60, 10, 1), 600), rtol=1e-4)


def test_tensors_that_want_a_gradient_are_read_as_they_are() -> None:
    """A module's parameters serve as weights; results are no part of PyTorch's graph."""
    problem, upstream = problem_of("gru", "float32")
    expected, tape = forward("gru", **problem)
    expected_grads = backward("gru", tape, **upstream)
    leaves = {name: torch.nn.Parameter(torch.from_numpy(value)) for name, value in problem.items()}
    got, tape = forward("gru", **leaves)
    grads = backward("gru", tape, **upstream)
    for results, plain in ((got, expected), (grads, expected_grads)):
        assert not any(value.requires_grad for value in results.values())
        same_bits(results, plain)


def test_lengths_and_resets_of_any_kind() -> None:
    problem, _ = problem_of("gru", "float32", steps=6, batch=5, seed=23)
    lengths, resets = [6, 0, 3, 1, 5], np.random.default_rng(0).random((6, 5)) < 0.4
    expected = infer("gru", **problem, lengths=lengths, resets=resets)
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        same_bits(
            infer("gru", **problem, lengths=np.array(lengths, dtype), resets=resets), expected
        )
    for make, _ in KINDS.values():
        given = {"lengths": make(np.array(lengths)), "resets": make(resets)}
        same_bits(infer("gru", **problem, **given), expected)


def test_no_other_library_is_imported() -> None:
    code = """
import sys, numpy as np, fusedrnn as fr
layer = fr.LSTM(3, 4)
y, state, tape = layer.forward(np.zeros((2, 1, 3), "float32"))
layer.backward(tape, y)
assert not {"torch", "jax", "cupy"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
