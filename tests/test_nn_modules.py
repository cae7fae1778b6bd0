"""Modules of `fusedrnn.nn` alone: linear, embedding, dropout, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle.nn as oracle
import reference
from fusedrnn import nn
from support import BOUND, dtypes, same_bits

T, S, B = 3, 5, 2
EMBEDDING = nn.Embedding(3, 2, seed=0)


def random(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def check(got: Any, expected: Any, dtype: str) -> None:
    assert got.shape == np.asarray(expected).shape
    assert got.dtype == dtype
    assert reference.relative_error(got, expected) <= BOUND[dtype]


# --- linear ---


@dtypes
@pytest.mark.parametrize("bias", [True, False])
def test_linear(dtype: str, bias: bool) -> None:
    layer = nn.Linear(4, 3, bias=bias, dtype=dtype, seed=0)  # type: ignore[arg-type]
    x, dy = random((T, B, 4), dtype), random((T, B, 3), dtype, 1)

    def objective(x: Any, weight: Any, bias: Any = None) -> Any:
        y = [[oracle.linear(row, weight, bias) for row in step] for step in x]
        return oracle.weighted(dy, y)

    _, expected = oracle.gradients(objective, {"x": x, **layer.parameters()})
    y, tape = layer.forward(x)
    check(y, x @ layer.weight.T + (0 if layer.bias is None else layer.bias), dtype)
    same_bits({"y": layer(x)}, {"y": y})
    grads = layer.backward(tape, dy)
    assert list(grads) == ["x", *layer.parameters()]
    for name, value in expected.items():
        check(grads[name], value, dtype)


@dtypes
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(5000, 3, 2), (200, 70, 300), (3, 33, 1100), (1, 1, 1)]
)
def test_linear_of_sizes(dtype: str, rows: int, inputs: int, outputs: int) -> None:
    """Beyond the blocks of `products`."""
    layer = nn.Linear(inputs, outputs, dtype=dtype, seed=0)  # type: ignore[arg-type]
    x, dy = random((rows, inputs), dtype), random((rows, outputs), dtype, 1)
    y, tape = layer.forward(x)
    grads = layer.backward(tape, dy)
    wide, wide_dy = x.astype(np.float64), dy.astype(np.float64)
    weight, bias = layer.weight.astype(np.float64), layer.parameters()["bias"].astype(np.float64)
    check(y, wide @ weight.T + bias, dtype)
    check(grads["x"], wide_dy @ weight, dtype)
    check(grads["weight"], wide_dy.T @ wide, dtype)
    check(grads["bias"], wide_dy.sum(axis=0), dtype)


def test_linear_has_the_same_bits_for_a_row_whatever_the_others_and_the_threads() -> None:
    layer = nn.Linear(64, 300, seed=0)
    x = random((400, 64), "float32")
    before = fr.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            fr.set_num_threads(threads)
            y, tape = layer.forward(x)
            results.append({"y": y} | layer.backward(tape, y))
    finally:
        fr.set_num_threads(before)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])
    same_bits({"": layer(x[17])}, {"": results[0]["y"][17]})
    same_bits({"": layer(x[10:20])}, {"": results[0]["y"][10:20]})
    strided = np.asfortranarray(x)
    same_bits({"": layer(strided)}, {"": results[0]["y"]})


def test_linear_of_nothing() -> None:
    layer = nn.Linear(3, 2, seed=0)
    y, tape = layer.forward(np.zeros((0, B, 3), np.float32))
    assert y.shape == (0, B, 2)
    grads = layer.backward(tape, y)
    assert grads["x"].shape == (0, B, 3)
    assert not grads["weight"].any()
    assert not grads["bias"].any()


# --- embedding ---


@dtypes
def test_embedding(dtype: str) -> None:
    layer = nn.Embedding(9, 4, dtype=dtype, seed=0)  # type: ignore[arg-type]
    indices, dy = np.array([[1, 8], [1, 0], [8, 1]]), random((3, 2, 4), dtype, 1)
    y, tape = layer.forward(indices)
    same_bits({"": y}, {"": layer.weight[indices]})
    same_bits({"": layer(indices.astype(np.uint8))}, {"": y})
    expected = np.zeros((9, 4))
    np.add.at(expected, indices, dy.astype(np.float64))
    dense = layer.backward(tape, dy)["weight"]
    check(dense, expected, dtype)
    sparse = layer.backward(tape, dy, sparse=True)["weight"]
    assert sparse.indices.tolist() == [0, 1, 8]
    same_bits({"": sparse.dense()}, {"": dense})
    assert not dense[[2, 3, 4, 5, 6, 7]].any()


def test_embedding_of_padding() -> None:
    layer = nn.Embedding(5, 3, padding_index=2, seed=0)
    assert not layer.weight[2].any()
    y, tape = layer.forward([[2, 1], [2, 2]])
    gradient = layer.backward(tape, np.ones_like(y), sparse=True)["weight"]
    assert gradient.indices.tolist() == [1]
    y, tape = layer.forward([2])
    assert not layer.backward(tape, np.ones_like(y))["weight"].any()
    y, tape = layer.forward(np.zeros((0, 3), np.int64))
    assert layer.backward(tape, y)["weight"].shape == (5, 3)


# --- dropout ---


@dtypes
@pytest.mark.parametrize("width", [1, 4, 7, 130])
def test_dropout(dtype: str, width: int) -> None:
    layer = nn.Dropout(0.3, seed=5)
    first, _ = layer.dropout_state
    x, dy = random((T, B, width), dtype), random((T, B, width), dtype, 1)
    for call in range(2):
        y, tape = layer.forward(x)
        expected = [
            [oracle.dropout(x[t, b].tolist(), 0.3, (first + call) % 2**64, t, b) for b in range(B)]
            for t in range(T)
        ]
        check(y, expected, dtype)
        dx = layer.backward(tape, dy)["x"]
        same_bits({"": dx == 0}, {"": y == 0})
        kept = y != 0
        np.testing.assert_allclose(dx[kept], dy[kept] / 0.7, rtol=1e-6)
    assert layer.dropout_state == (first, 2)
    same_bits({"": layer(x)}, {"": x})
    layer.eval()
    y, tape = layer.forward(x)
    same_bits({"": y}, {"": x})
    same_bits({"": layer.backward(tape, dy)["x"]}, {"": dy})
    assert layer.dropout_state == (first, 2)


def test_dropout_of_rows_and_of_what_is_not_finite() -> None:
    x = np.full((4, 50), np.nan, np.float32)
    y, _ = nn.Dropout(0.5, seed=0).forward(x)
    assert 20 < (y == 0).sum() < 180
    whole, _ = nn.Dropout(0.5, seed=0).forward(x[None])
    same_bits({"": whole[0]}, {"": y})
    strided, _ = nn.Dropout(0.5, seed=0).forward(np.asfortranarray(x))
    same_bits({"": strided}, {"": y})
    row, _ = nn.Dropout(0.5, seed=0).forward(x[0])
    same_bits({"": row}, {"": y[0]})
    y, _ = nn.Dropout(0.0).forward(x)
    same_bits({"": y}, {"": x})


# --- attention ---

KINDS: dict[str, Any] = {
    "dot": lambda dtype: nn.Attention(4, 4, score="dot", dtype=dtype),
    "scaled_dot": lambda dtype: nn.Attention(4, 4, dtype=dtype),
    "additive": lambda dtype: nn.Attention(
        4, 3, score="additive", attention_size=5, dtype=dtype, seed=0
    ),
    "multi_head": lambda dtype: nn.MultiHeadAttention(4, 3, 2, output_size=5, dtype=dtype, seed=0),
}
kinds = pytest.mark.parametrize("kind", list(KINDS))


def attend(kind: str, arrays: dict[str, Any], t: int, b: int, length: int) -> Any:
    """y and weights of one query by the oracle; of several heads a list of weights."""
    query = arrays["query"][t][b]
    keys = [step[b] for step in arrays["memory"][:length]]
    values = [step[b] for step in arrays.get("values", arrays["memory"])[:length]]
    if kind in ("dot", "scaled_dot"):
        scale = 0.5 if kind == "scaled_dot" else 1.0
        return oracle.attend(query, keys, values, lambda q, k: oracle.dot_score(q, k, scale))
    if kind == "additive":
        projected = oracle.linear(query, arrays["query.weight"])
        keys = [oracle.linear(k, arrays["memory.weight"], arrays["memory.bias"]) for k in keys]
        return oracle.attend(
            projected, keys, values, lambda q, k: oracle.additive_score(q, k, arrays["v"])
        )

    def project(name: str, row: Any) -> Any:
        return oracle.linear(row, arrays[f"{name}.weight"], arrays[f"{name}.bias"])

    query = project("query", query)
    keys, values = [project("key", k) for k in keys], [project("value", v) for v in values]
    joined, weights = [], []
    for head in (slice(0, 2), slice(2, 4)):
        y, a = oracle.attend(
            query[head],
            [k[head] for k in keys],
            [v[head] for v in values],
            lambda q, k: oracle.dot_score(q, k, 0.5**0.5),
        )
        joined += y
        weights.append(a)
    return project("out", joined), weights


@kinds
@dtypes
@pytest.mark.parametrize("apart", [False, True], ids=["memory", "values"])
def test_attention(kind: str, dtype: str, apart: bool) -> None:
    module = KINDS[kind](dtype)
    lengths = [S, 2]
    given = {
        "query": random((T, B, 4), dtype),
        "memory": random((S, B, module.memory_size), dtype, 1),
    }
    if apart:
        given["values"] = random((S, B, module.memory_size), dtype, 2)
    given["memory"][2:, 1] = np.nan  # beyond the length, and looked at by nobody
    if apart:
        given["values"][2:, 1] = np.inf
    dy = random((T, B, module.output_size), dtype, 3)
    heads = (2,) if kind == "multi_head" else ()
    dweights = random((T, B, *heads, S), dtype, 4)
    dweights[:, 1, ..., 2:] = np.nan
    shown: dict[str, Any] = {}

    def objective(**arrays: Any) -> Any:
        terms = []
        for t in range(T):
            for b, length in enumerate(lengths):
                y, weights = attend(kind, arrays, t, b, length)
                shown[f"{t}{b}"] = [[float(v.value) for v in y], weights]
                terms.append(oracle.weighted(dy[t, b], y))
                terms.append(oracle.weighted(dweights[t, b, ..., :length], weights))
        return oracle.total(terms)

    _, expected = oracle.gradients(objective, {**given, **module.parameters()})
    y, tape = module.forward(given["query"], given["memory"], lengths, values=given.get("values"))
    check(y, [[shown[f"{t}{b}"][0] for b in range(B)] for t in range(T)], dtype)
    grads = module.backward(tape, dy, dweights)
    inputs = ["query", "memory", "values"] if apart else ["query", "memory"]
    assert list(grads) == [*inputs, *module.parameters()]
    # Of differences of scores the sum is 0: no sum of rounded terms has relative accuracy.
    size = np.sqrt(sum(np.sum(np.square(np.asarray(value))) for value in expected.values()))
    for name, value in expected.items():
        assert grads[name].shape == np.asarray(value).shape
        assert grads[name].dtype == dtype
        error = np.sqrt(np.sum(np.square(grads[name] - np.asarray(value))))
        assert error <= BOUND[dtype] * size, name
    again, weights = module(
        given["query"], given["memory"], lengths, values=given.get("values"), return_weights=True
    )
    same_bits({"": again}, {"": y})
    assert weights.shape == dweights.shape
    assert not weights[:, 1, ..., 2:].any()
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)


@kinds
@dtypes
def test_attention_by_steps_is_that_of_all_steps(kind: str, dtype: str) -> None:
    module = KINDS[kind](dtype)
    steps, batch, memory_steps, lengths = 11, 3, 37, [37, 1, 20]
    query = random((steps, batch, 4), dtype)
    memory = random((memory_steps, batch, module.memory_size), dtype, 1)
    dy = random((steps, batch, module.output_size), dtype, 2)
    y, tape = module.forward(query, memory, lengths)
    grads = module.backward(tape, dy)
    prepared = module.prepare(memory, lengths)
    summed: dict[str, Any] = {}
    total: Any = None
    for t in reversed(range(steps)):
        y_t, weights_t = module.step(query[t], prepared, return_weights=True)
        same_bits(
            {"y": y_t, "weights": weights_t}, {"y": y[t], "weights": tape.saved["weights"][t]}
        )
        again, tape_t = module.forward_step(query[t], prepared)
        same_bits({"": again}, {"": y_t})
        grads_t = module.backward(tape_t, dy[t])
        of_query, part = module.backward_step(tape_t, dy[t])
        same_bits(of_query, {name: grads_t[name] for name in of_query})
        total = part if total is None else total + part
        same_bits({"": grads_t.pop("query")}, {"": grads["query"][t]})
        summed = {name: summed.get(name, 0) + value for name, value in grads_t.items()}
    # The projections gone back through once.
    at_once = module.backward_memory(prepared, total)
    assert at_once.keys() == summed.keys() - (of_query.keys() - {"query"})
    for name, value in [*summed.items(), *at_once.items()]:
        np.testing.assert_allclose(value, grads[name], rtol=1e-4, atol=20 * np.finfo(dtype).eps)
    # A Memory in the place of the arrays, and a sequence alone.
    same_bits({"": module(query, prepared)}, {"": y})
    alone = module(query[:, 2:].copy(), memory[:, 2:].copy(), lengths[2:])
    same_bits({"": alone}, {"": y[:, 2:].copy()})


@kinds
def test_attention_has_the_same_bits_whatever_the_threads(kind: str) -> None:
    module = KINDS[kind]("float32")
    query = random((20, 9, 4), "float32")
    memory = random((60, 9, module.memory_size), "float32", 1)
    before = fr.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 4):
            fr.set_num_threads(threads)
            y, tape = module.forward(query, memory, np.arange(1, 10) * 6)
            results.append({"y": y} | module.backward(tape, y))
    finally:
        fr.set_num_threads(before)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


def test_gradients_of_attention_go_to_clipping_and_optimisers_as_they_are() -> None:
    module = KINDS["additive"]("float64")
    y, tape = module.forward(random((T, B, 4)), random((S, B, 3), seed=1))
    grads = module.backward(tape, y)
    parameters = module.parameters()
    expected = np.sqrt(sum(np.sum(grads[name] ** 2) for name in parameters))
    query = grads["query"].copy()
    assert fr.clip_grad_norm(grads, expected / 2) == pytest.approx(expected)
    same_bits({"": grads["query"]}, {"": query})
    before = parameters["v"].copy()
    fr.SGD(parameters, lr=1.0).step(grads)
    same_bits({"": parameters["v"]}, {"": before - grads["v"]})
    sparse = EMBEDDING.backward(EMBEDDING.forward([1])[1], np.ones((1, 2), np.float32), sparse=True)
    with pytest.raises(
        TypeError, match=r"^weight: expected an array to write to, got RowGradient$"
    ):
        fr.clip_grad_norm(sparse, 1.0)
    with pytest.raises(TypeError, match=r"^grads\['weight'\]: expected an array"):
        fr.SGD(EMBEDDING.parameters(), lr=1.0).step(sparse)


def test_attention_of_large_scores() -> None:
    module = nn.Attention(2, 2, score="dot")
    query = np.array([[[1e4, 0]]], np.float32)
    memory = np.array([[[1e4, 1]], [[1e4, 3]], [[-1e4, 5]]], np.float32)
    y, tape = module.forward(query, memory)
    np.testing.assert_allclose(y, [[[1e4, 2]]])
    assert all(np.isfinite(g).all() for g in module.backward(tape, np.ones_like(y)).values())


def test_attention_of_no_query() -> None:
    for make in KINDS.values():
        module = make("float32")
        memory = random((S, B, module.memory_size), "float32")
        y, tape = module.forward(np.zeros((0, B, 4), np.float32), memory)
        assert y.shape == (0, B, module.output_size)
        grads = module.backward(tape, y)
        assert not grads["memory"].any()
        module(np.zeros((T, 0, 4), np.float32), memory[:, :0])


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(700, 70, 33), (3, 600, 5), (0, 4, 3)])
def test_linear_adds_up_more_terms_than_it_packs_at_a_time(
    rows: int, inputs: int, outputs: int
) -> None:
    random = np.random.default_rng(0)
    layer = nn.Linear(inputs, outputs, dtype="float64", seed=0)
    x, dy = random.standard_normal((rows, inputs)), random.standard_normal((rows, outputs))
    y, tape = layer.forward(x)
    np.testing.assert_allclose(y, x @ layer.weight.T + layer.bias, rtol=0, atol=1e-12)
    grads = layer.backward(tape, dy)
    np.testing.assert_allclose(grads["x"], dy @ layer.weight, rtol=0, atol=1e-11)
    np.testing.assert_allclose(grads["weight"], dy.T @ x, rtol=0, atol=1e-11)
    np.testing.assert_allclose(grads["bias"], dy.sum(axis=0), rtol=0, atol=1e-11)
