"""What `fusedrnn.nn` refuses, and how it says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import nn

T, B, V = 4, 2, 5
X = np.zeros((T, B, V), np.float32)
Y = np.zeros((T, B), np.int64)
LABELS = np.ones((B, 2), np.int64)
ATTENTION = nn.Attention(V, V)
MEMORY = np.zeros((3, B, V), np.float32)
LINEAR = nn.Linear(V, 3, seed=0)
EMBEDDING = nn.Embedding(V, 3, seed=0)
FLOAT = "dtype float32 or float64"


def refused(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


# Arguments, and what is said of them.
CROSS_ENTROPY: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"logits": X.astype(int)}, TypeError, f"logits: expected {FLOAT}, got int64"),
    ({"logits": X.astype(np.float16)}, TypeError, f"logits: expected {FLOAT}, got float16"),
    (
        {"logits": X.astype(ml_dtypes.bfloat16)},
        TypeError,
        f"logits: expected {FLOAT}, got bfloat16",
    ),
    (
        {"logits": X[:, :, :0]},
        ValueError,
        "logits: expected shape (..., V) with V > 0, got (4, 2, 0)",
    ),
    ({"logits": X[0, 0]}, ValueError, "logits: expected shape (..., V) with V > 0, got (5,)"),
    ({"targets": Y[:3]}, ValueError, "targets: expected shape (4, 2), got (3, 2)"),
    ({"targets": Y.astype(bool)}, TypeError, "targets: expected an integer dtype, got bool"),
    ({"targets": X[..., 0]}, TypeError, "targets: expected an integer dtype, got float32"),
    ({"targets": Y + 5}, ValueError, "targets: expected values from 0 to 4, got 5 at index (0, 0)"),
    (
        {"targets": Y - np.eye(4, 2, dtype=int)},
        ValueError,
        "targets: expected values from 0 to 4, got -1 at index (0, 0)",
    ),
    ({"lengths": [4]}, ValueError, "lengths: expected shape (2,), got (1,)"),
    ({"lengths": [4, 5]}, ValueError, "lengths: expected values from 0 to 4, got 5 at index 1"),
    ({"lengths": [-1, 4]}, ValueError, "lengths: expected values from 0 to 4, got -1 at index 0"),
    ({"lengths": [1.0, 2.0]}, TypeError, "lengths: expected an integer dtype, got float64"),
    ({"mask": Y}, TypeError, "mask: expected dtype bool or uint8, got int64"),
    (
        {"mask": np.ones((2, 4), bool)},
        ValueError,
        "mask: expected shape (4, 2), that of targets, or its first axes, got (2, 4)",
    ),
    ({"ignore_index": 1.5}, TypeError, "ignore_index: expected an int, got float"),
    (
        {"label_smoothing": 1.5},
        ValueError,
        "label_smoothing: expected a finite number of at least 0 and at most 1, got 1.5",
    ),
    (
        {"reduction": "avg"},
        ValueError,
        "reduction: expected 'mean', 'sum' or 'batch_mean', got 'avg'",
    ),
    (
        {"lengths": [0, 0]},
        ValueError,
        "targets: expected something that counts for the mean, got none in shape (4, 2)",
    ),
    (
        {"logits": X[:, :0], "targets": Y[:, :0], "reduction": "batch_mean"},
        ValueError,
        "targets: expected an axis B of at least 1 for reduction='batch_mean', got shape (4, 0)",
    ),
    ({"out": X[:3]}, ValueError, "out: expected shape (4, 2, 5), got (3, 2, 5)"),
    (
        {"out": X.astype(float)},
        TypeError,
        "out: expected dtype float32, got float64; use .astype('float32')",
    ),
    (
        {"out": np.zeros((V, B, T), np.float32).T},
        ValueError,
        f"out: expected a dense array, got one of strides (4, 16, 32) for shape ({T}, {B}, {V})",
    ),
    (
        {"out": read_only(X)},
        ValueError,
        "out: expected an array to write to, got one that is read-only",
    ),
]


@pytest.mark.parametrize(("changed", "error", "message"), CROSS_ENTROPY)
def test_cross_entropy(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"logits": X, "targets": Y} | changed
    refused(error, message, lambda: nn.cross_entropy_grad(**arguments))
    if "out" not in changed:
        refused(error, message, lambda: nn.cross_entropy(**arguments))


def test_gradients_over_a_part_of_the_logits() -> None:
    memory = np.zeros(T * B * V + 1, np.float32)
    logits, out = memory[1:].reshape(X.shape), memory[:-1].reshape(X.shape)
    message = "out: expected logits itself or memory of its own, got a part of logits"
    refused(ValueError, message, lambda: nn.cross_entropy_grad(logits, Y, out=out))
    refused(ValueError, message, lambda: nn.ctc_grad(logits, LABELS, out=out))


def test_lengths_of_no_batch() -> None:
    message = "lengths: expected None for targets of shape (2,), without an axis B"
    refused(ValueError, message, lambda: nn.cross_entropy(X[0], Y[0], lengths=[2]))


CTC: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"logits": X[0]}, ValueError, "logits: expected shape (*, *, *), got (2, 5)"),
    (
        {"logits": X[:, :, :0]},
        ValueError,
        "logits: expected shape (T, B, V) with V > 0, got (4, 2, 0)",
    ),
    ({"logits": X.astype(np.float16)}, TypeError, f"logits: expected {FLOAT}, got float16"),
    ({"targets": LABELS[:1]}, ValueError, "targets: expected shape (2, *), got (1, 2)"),
    (
        {"targets": LABELS * 5},
        ValueError,
        "targets: expected values from 0 to 4, got 5 at index (0, 0)",
    ),
    (
        {"targets": LABELS * 0},
        ValueError,
        "targets: expected labels that are not blank = 0, got one at (0, 0)",
    ),
    ({"lengths": [4, 9]}, ValueError, "lengths: expected values from 0 to 4, got 9 at index 1"),
    (
        {"target_lengths": [3, 1]},
        ValueError,
        "target_lengths: expected values from 0 to 2, got 3 at index 0",
    ),
    (
        {"target_lengths": 2},
        TypeError,
        "target_lengths: expected an array (NumPy, or an object with __dlpack__), got int",
    ),
    ({"blank": 5}, ValueError, "blank: expected below V = 5, got 5"),
    ({"blank": -1}, ValueError, "blank: expected at least 0, got -1"),
    ({"zero_infinity": 1}, TypeError, "zero_infinity: expected a bool, got int"),
    (
        {"logits": X[:, :0], "targets": LABELS[:0]},
        ValueError,
        "logits: expected at least one sequence, got shape (4, 0, 5)",
    ),
    ({"reduction": None}, TypeError, "reduction: expected a str, got NoneType"),
]


@pytest.mark.parametrize(("changed", "error", "message"), CTC)
def test_ctc(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"logits": X, "targets": LABELS} | changed
    refused(error, message, lambda: nn.ctc_grad(**arguments))


CALLS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: nn.mse(X, X[:3]), ValueError, "target: expected shape (4, 2, 5), got (3, 2, 5)"),
    (
        lambda: nn.mse(X, X.astype(float)),
        TypeError,
        "target: expected dtype float32, got float64; use .astype('float32')",
    ),
    (lambda: nn.mse(Y, Y), TypeError, f"y: expected {FLOAT}, got int64"),
    (
        lambda: nn.mse(X[:0], X[:0]),
        ValueError,
        "y: expected something that counts for the mean, got none in shape (0, 2, 5)",
    ),
    (
        lambda: nn.quantile(X, X[..., 0], [0.5]),
        ValueError,
        "y: expected shape (..., 1), got (4, 2, 5)",
    ),
    (
        lambda: nn.quantile(X, X[..., 0], [0.1, 0.2, 0.3, 0.4, 1.0]),
        ValueError,
        "quantiles[4]: expected a number above 0 and below 1, got 1.0",
    ),
    (
        lambda: nn.quantile(X, X[..., 0], 0.5),
        TypeError,
        "quantiles: expected a sequence of numbers, got float",
    ),
    (
        lambda: nn.quantile(X, X, [0.5] * 5),
        ValueError,
        "target: expected shape (4, 2), got (4, 2, 5)",
    ),
    (lambda: LINEAR(X[..., :4]), ValueError, "x: expected shape (..., 5), got (4, 2, 4)"),
    (
        lambda: LINEAR(X.astype(float)),
        TypeError,
        "x: expected dtype float32, got float64; use .astype('float32')",
    ),
    (
        lambda: LINEAR([1.0] * 5),
        TypeError,
        "x: expected an array (NumPy, or an object with __dlpack__), got list",
    ),
    (
        lambda: LINEAR.backward(LINEAR.forward(X)[1], X),
        ValueError,
        "dy: expected shape (4, 2, 3), got (4, 2, 5)",
    ),
    (lambda: nn.Linear(0, 3), ValueError, "input_size: expected at least 1, got 0"),
    (
        lambda: nn.Linear(2, 3, dtype="float16"),  # type: ignore[arg-type]
        ValueError,
        "dtype: expected 'float32' or 'float64', got 'float16'",
    ),
    (lambda: nn.Linear(2, 3, bias=1), TypeError, "bias: expected a bool, got int"),  # type: ignore[arg-type]
    (lambda: nn.Linear(2, 3, seed=-1), ValueError, "seed: expected at least 0, got -1"),
    (
        lambda: EMBEDDING([[0, 5]]),
        ValueError,
        "indices: expected values from 0 to 4, got 5 at index (0, 1)",
    ),
    (
        lambda: EMBEDDING([-1]),
        ValueError,
        "indices: expected values from 0 to 4, got -1 at index 0",
    ),
    (lambda: EMBEDDING([0.5]), TypeError, "indices: expected an integer dtype, got float64"),
    (
        lambda: EMBEDDING([[0], [0, 1]]),
        ValueError,
        "indices: expected rows of one length, got several",
    ),
    (
        lambda: nn.Embedding(3, 2, padding_index=3),
        ValueError,
        "padding_index: expected below 3, got 3",
    ),
    (
        lambda: nn.Dropout(1.0),
        ValueError,
        "rate: expected a finite number of at least 0 and below 1, got 1.0",
    ),
    (
        lambda: nn.Dropout(0.5).forward(X[None]),
        ValueError,
        "x: expected 1 to 3 dimensions, got shape (1, 4, 2, 5)",
    ),
    (lambda: nn.Dropout(0.5)(Y), TypeError, f"x: expected {FLOAT}, got int64"),
    (
        lambda: nn.Attention(4, 5),
        ValueError,
        "query_size: expected memory_size = 5 for score='scaled_dot', got 4",
    ),
    (
        lambda: nn.Attention(4, 4, attention_size=3),
        ValueError,
        "attention_size: expected None for score='scaled_dot', got 3",
    ),
    (
        lambda: nn.Attention(4, 4, score="cosine"),  # type: ignore[arg-type]
        ValueError,
        "score: expected 'dot', 'scaled_dot' or 'additive', got 'cosine'",
    ),
    (
        lambda: nn.MultiHeadAttention(4, 4, 3),
        ValueError,
        "num_heads: expected a divisor of query_size = 4, got 3",
    ),
    (
        lambda: ATTENTION(X, MEMORY, [3, 0]),
        ValueError,
        "lengths: expected values from 1 to 3, got 0 at index 1",
    ),
    (
        lambda: ATTENTION(X, MEMORY, [3, 4]),
        ValueError,
        "lengths: expected values from 1 to 3, got 4 at index 1",
    ),
    (
        lambda: ATTENTION(X, MEMORY[:0]),
        ValueError,
        "memory: expected at least one step, got shape (0, 2, 5)",
    ),
    (
        lambda: ATTENTION(X[:, :1], MEMORY),
        ValueError,
        "query: expected shape (*, 2, 5), got (4, 1, 5)",
    ),
    (
        lambda: ATTENTION(X, MEMORY[..., :3]),
        ValueError,
        "memory: expected shape (*, *, 5), got (3, 2, 3)",
    ),
    (
        lambda: ATTENTION(X.astype(float), MEMORY),
        TypeError,
        "query: expected dtype float32, got float64; use .astype('float32')",
    ),
    (
        lambda: ATTENTION(X, MEMORY, values=MEMORY[:2]),
        ValueError,
        "values: expected shape (3, 2, 5), got (2, 2, 5)",
    ),
    (
        lambda: ATTENTION(X, ATTENTION.prepare(MEMORY), [3, 3]),
        ValueError,
        "lengths: expected None, as the Memory has its own",
    ),
    (
        lambda: ATTENTION(X, nn.Attention(V, V, score="dot").prepare(MEMORY)),
        ValueError,
        "memory: expected one of this module, Attention(5, 5, score='scaled_dot'), "
        "got one of Attention(5, 5, score='dot')",
    ),
    (
        lambda: ATTENTION.step(X, MEMORY),
        ValueError,
        "query: expected shape (2, 5), got (4, 2, 5)",
    ),
    (
        lambda: ATTENTION.backward(ATTENTION.forward(X, MEMORY)[1], X, X),
        ValueError,
        "dweights: expected shape (4, 2, 3), got (4, 2, 5)",
    ),
    (
        lambda: ATTENTION.backward_memory(MEMORY, None),  # type: ignore[arg-type]
        TypeError,
        "memory: expected a Memory, got ndarray",
    ),
    (
        lambda: ATTENTION.backward_memory(ATTENTION.prepare(MEMORY), None),  # type: ignore[arg-type]
        TypeError,
        "total: expected a MemoryGradient, got NoneType",
    ),
    (
        lambda: ATTENTION.backward_memory(
            ATTENTION.prepare(MEMORY), nn.MemoryGradient(MEMORY, MEMORY)
        ),
        ValueError,
        "total.keys: expected shape (3, 2, 1, 5), got (3, 2, 5)",
    ),
    (
        lambda: nn.Sequential(nn.Dropout(0.5), 3),  # type: ignore[arg-type]
        TypeError,
        "modules[1]: expected a Module, got int",
    ),
    (
        lambda: nn.TimeDistributed(3),  # type: ignore[arg-type]
        TypeError,
        "module: expected a Module, got int",
    ),
    (
        lambda: nn.TimeDistributed(LINEAR)(X[0, 0]),
        ValueError,
        "x: expected at least 2 dimensions, got shape (5,)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), CALLS)
def test_calls(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    refused(error, message, call)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(2, 2, seed=0)
        self.rnn = fr.GRU(2, 2, seed=0)


class Early(nn.Module):
    def __init__(self) -> None:
        self.out = nn.Linear(2, 2)


def test_models() -> None:
    model = Model()
    shown = "Model(out=Linear(2, 2), rnn=GRU(2, 2))"
    assert repr(model) == shown
    refused(
        ValueError,
        f"cell: expected a part of {shown}, one of ['out', 'rnn']",
        lambda: model.named_gradients(cell={}),
    )
    refused(
        TypeError,
        "out: expected gradients by name, got list",
        lambda: model.named_gradients(out=[]),  # type: ignore[arg-type]
    )
    refused(
        ValueError,
        "out: expected a gradient of weight, got none",
        lambda: model.named_gradients(out={"bias": 0}),
    )
    elsewhere = fr.GRU(2, 2, seed=0)
    vars(elsewhere)["device"] = "cuda:0"
    refused(
        ValueError,
        "rnn: expected a layer on the CPU, got GRU(2, 2, device='cuda:0')",
        lambda: setattr(model, "rnn", elsewhere),
    )
    refused(AttributeError, "out: call super().__init__() before assigning parts", Early)
    with pytest.raises(AttributeError, match=r"^weight: of Linear\(2, 2\) it stays the array"):
        model.out.weight = np.zeros((2, 2), np.float32)
    with pytest.raises(AttributeError, match=r"^bias: of Linear\(2, 2\) it cannot be removed$"):
        del model.out.bias
    with pytest.raises(KeyError, match="expected a parameter of Model"):
        model.parameters()["out.w"] = 0
    refused(TypeError, "mode: expected a bool, got int", lambda: model.train(1))  # type: ignore[arg-type]


def test_arrays_of_odd_layouts_are_read() -> None:
    """Strided, reversed, read-only, unaligned: the same results as dense ones."""
    x = np.random.default_rng(0).standard_normal((T, B, V)).astype(np.float32)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    wide = np.repeat(x, 2, axis=2)[..., ::2]
    backwards = x[::-1].copy()[::-1]
    for other in (unaligned, wide, backwards, read_only(x)):
        for call in (
            LINEAR,
            lambda a: nn.cross_entropy_grad(a, Y)[1],
            lambda a: nn.ctc_grad(a, LABELS)[1],
            lambda a: ATTENTION(a, MEMORY + 1),
            lambda a: ATTENTION(MEMORY + 1, a),
            lambda a: nn.mse_grad(a, X)[1],
            lambda a: nn.Dropout(0.5, seed=0).forward(a)[0],
        ):
            np.testing.assert_array_equal(call(other), call(x))  # type: ignore[no-untyped-call]
