"""Parameters from and to Flax's cells, of linen and of nnx, which run them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from convert_support import (
    B,
    H,
    I,
    T,
    blocks,
    close,
    layer_of,
    rejected,
    same_layer,
    sequence,
    states,
)
from fusedrnn.convert import from_flax, to_flax

jax = pytest.importorskip("jax")
linen = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")

LINEN = {
    "rnn": [linen.SimpleCell],
    "gru": [linen.GRUCell],
    "lstm": [linen.LSTMCell, linen.OptimizedLSTMCell],
}
NNX = {
    "rnn": [("nnx", nnx.SimpleCell)],
    "gru": [("nnx", nnx.GRUCell)],
    "lstm": [("nnx", nnx.OptimizedLSTMCell), ("nnx.LSTMCell", nnx.LSTMCell)],
}
linen_cells = pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name, kinds in LINEN.items() for kind in kinds],
    ids=lambda v: getattr(v, "__name__", ""),
)
nnx_cells = pytest.mark.parametrize(
    ("name", "form", "kind"),
    [(name, *pair) for name, pairs in NNX.items() for pair in pairs],
    ids=lambda v: getattr(v, "__name__", ""),
)


def randomised(tree: Any) -> Any:
    """The same names and shapes with random numbers, of biases too."""
    rng = np.random.default_rng(6)
    return jax.tree.map(lambda leaf: rng.uniform(-0.5, 0.5, leaf.shape).astype(np.float32), tree)


def carry_of(layer: Any, run: int = 0) -> Any:
    """Flax has c first."""
    given = [state[run] for state in states(layer)]
    return (given[1], given[0]) if len(given) == 2 else given[0]


def run_steps(step: Any, carry: Any, x: Any, reverse: bool = False) -> tuple[Any, Any]:
    """The cell over [T,B,I], a step at a time."""
    ys: list[Any] = [None] * len(x)
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        carry, ys[t] = step(carry, x[t])
    return np.stack(ys), carry


def check_same_function(step: Any, layer: Any) -> None:
    x, state = sequence(layer), states(layer)
    y, state_n = layer(x, tuple(state) if len(state) == 2 else state[0])
    expected_y, carry = run_steps(step, carry_of(layer), x)
    close(y, expected_y)
    expected = carry[::-1] if len(state) == 2 else [carry]
    for got, wanted in zip(state_n if len(state) == 2 else [state_n], expected, strict=True):
        close(got[0], wanted)


def linen_params(cell: Any) -> Any:
    x = np.zeros((B, I), np.float32)
    carry = cell.initialize_carry(jax.random.key(0), x.shape)
    return randomised(jax.eval_shape(cell.init, jax.random.key(0), carry, x)["params"])


def linen_step(cell: Any, params: Any) -> Any:
    return jax.jit(lambda carry, x: cell.apply({"params": params}, carry, x))


@linen_cells
def test_a_linen_cell(name: str, kind: Any) -> None:
    cell = kind(H)
    params = linen_params(cell)
    layer = from_flax(params)
    assert repr(layer) == repr(layer_of(name))
    check_same_function(linen_step(cell, params), layer)
    (back,) = to_flax(layer)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@linen_cells
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_to_a_linen_cell(name: str, kind: Any, bias: bool) -> None:
    layer = layer_of(name, bias=bias)
    (params,) = to_flax(layer)
    cell = kind(H)
    assert jax.tree.structure(params) == jax.tree.structure(linen_params(cell))
    check_same_function(linen_step(cell, params), layer)
    check_same_function(linen_step(cell, params), from_flax(params))


def nnx_cell(kind: Any) -> Any:
    zeros = nnx.initializers.zeros_init()  # the usual values are compiled anew for each shape
    return kind(I, H, rngs=nnx.Rngs(0), kernel_init=zeros, recurrent_kernel_init=zeros)


def nnx_params(cell: Any) -> Any:
    return nnx.to_pure_dict(nnx.state(cell, nnx.Param))


def nnx_step(cell: Any) -> Any:
    graph, state = nnx.split(cell)
    return jax.jit(nnx.merge(graph, state))


@nnx_cells
def test_an_nnx_cell(name: str, form: str, kind: Any) -> None:
    cell = nnx_cell(kind)
    nnx.update(cell, randomised(nnx_params(cell)))
    params = nnx_params(cell)
    layer = from_flax(params)
    assert repr(layer) == repr(layer_of(name))
    same_layer(from_flax(nnx.state(cell, nnx.Param)), layer)
    check_same_function(nnx_step(cell), layer)
    (back,) = to_flax(layer, form)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@nnx_cells
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_to_an_nnx_cell(name: str, form: str, kind: Any, bias: bool) -> None:
    layer = layer_of(name, bias=bias)
    if name == "gru" and bias:
        layer.parameters()["bias_hh_l0"][2 * H :] = 0
    (params,) = to_flax(layer, form)
    cell = nnx_cell(kind)
    nnx.update(cell, params)
    check_same_function(nnx_step(cell), layer)


@pytest.mark.parametrize("name", LINEN)
def test_both_directions_of_two_layers(name: str) -> None:
    layer = layer_of(name, num_layers=2, bidirectional=True)
    trees = to_flax(layer)
    assert len(trees) == 4
    cell, below = LINEN[name][0](H), sequence(layer)
    y, state_n = layer(below, tuple(states(layer)) if name == "lstm" else states(layer)[0])
    finals = []
    for k in range(2):
        both = [
            run_steps(
                linen_step(cell, trees[2 * k + d]), carry_of(layer, 2 * k + d), below, bool(d)
            )
            for d in range(2)
        ]
        below = np.concatenate([side for side, _ in both], axis=-1)
        finals += [carry[1] if name == "lstm" else carry for _, carry in both]
    close(y, below)
    close(state_n[0] if name == "lstm" else state_n, np.stack(finals))
    back = from_flax(trees, bidirectional=True)
    assert repr(back) == repr(layer)
    close(back(sequence(layer))[0], layer(sequence(layer))[0])


def test_linens_own_loop() -> None:
    layer = layer_of("gru", batch_first=True)
    (params,) = to_flax(layer)
    loop = linen.RNN(linen.GRUCell(H), name="loop")
    x = sequence(layer)
    close(layer(x)[0], loop.apply({"params": {"cell": params}}, x))
    same_layer(from_flax(params, batch_first=True), from_flax([params], batch_first=True))


# Flax' sources: parts ii if ig io, ir iz in.
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_gates(name: str) -> None:
    layer = layer_of(name)
    (params,), own = to_flax(layer), layer.state_dict()
    (fused,) = to_flax(layer_of(name, bias=False), "nnx")
    for k, gate in enumerate("rzn" if name == "gru" else "ifgo"):
        for side in ("i", "h"):
            rows = blocks(name, own[f"weight_{side}h_l0"])[gate]
            np.testing.assert_array_equal(params[f"{side}{gate}"]["kernel"].T, rows)
            columns = fused[f"dense_{side}"]["kernel"][:, k * H : (k + 1) * H]
            without = layer_of(name, bias=False).state_dict()[f"weight_{side}h_l0"]
            np.testing.assert_array_equal(columns.T, blocks(name, without)[gate])
        b_ih, b_hh = (blocks(name, own[f"bias_{side}_l0"])[gate] for side in ("ih", "hh"))
        if gate == "n":
            np.testing.assert_array_equal(params["in"]["bias"], b_ih)
            np.testing.assert_array_equal(params["hn"]["bias"], b_hh)
        else:
            biased = "i" if name == "gru" else "h"
            np.testing.assert_array_equal(params[f"{biased}{gate}"]["bias"], b_ih + b_hh)


def test_a_nonlinearity_is_said() -> None:
    cell = linen.SimpleCell(H, activation_fn=linen.relu)
    params = linen_params(cell)
    layer = from_flax(params, nonlinearity="relu")
    assert layer.nonlinearity == "relu"
    check_same_function(linen_step(cell, params), layer)
    rejected(
        ValueError,
        "nonlinearity: expected None for the gru, got 'relu'",
        *(from_flax, to_flax(layer_of("gru"))),
        nonlinearity="relu",
    )


@pytest.mark.parametrize("form", ["linen", "nnx"])
def test_bfloat16(form: str) -> None:
    layer = layer_of("lstm", dtype="bfloat16")
    (params,) = to_flax(layer, form)
    back = from_flax(params)
    assert back.dtype == "bfloat16"
    np.testing.assert_array_equal(
        back.state_dict()["weight_ih_l0"], layer.state_dict()["weight_ih_l0"]
    )
    same_layer(from_flax(jax.tree.map(jax.numpy.asarray, params)), back)


# Errors


def test_wrong_trees() -> None:
    (gru,), (fused,) = to_flax(layer_of("gru")), to_flax(layer_of("lstm"), "nnx")
    kernel, zeros = gru["ir"]["kernel"], np.zeros
    for params, error, message in [
        (3, TypeError, "params: expected a mapping or a list of mappings, got int"),
        ([], ValueError, "params: expected one for each layer, got 0"),
        ([gru, 3], TypeError, "params[1]: expected a mapping, got int"),
        ([gru, gru], ValueError, f"params[1]: expected input size {H}, got {I}"),
        (
            {"params": gru},
            ValueError,
            "params['params']: expected a mapping of kernel and perhaps bias, got the names "
            + ", ".join(gru),
        ),
        (
            gru | {"x": 3},
            ValueError,
            "params['x']: expected a mapping of kernel and perhaps bias, got int",
        ),
        (
            gru | {"hr": {"kernel": kernel}},
            ValueError,
            f"params['hr']['kernel']: expected shape ({H}, {H}), got ({I}, {H})",
        ),
        (
            gru | {"ir": {"kernel": kernel, "bias": zeros(I, "f4")}},
            ValueError,
            f"params['ir']['bias']: expected shape ({H},), got ({I},)",
        ),
        (
            gru | {"ir": {"kernel": kernel}},
            ValueError,
            "params: expected biases in hn in ir iz, got them in hn in iz",
        ),
        (
            gru | {"hr": {"kernel": gru["hr"]["kernel"], "bias": zeros(H, "f4")}},
            ValueError,
            "params: expected biases in hn in ir iz, got them in hn hr in ir iz",
        ),
        (
            gru | {"hr": {"kernel": zeros((H, H))}},
            ValueError,
            "params: expected one dtype, got float32, float64",
        ),
        (
            gru | {"hr": {"kernel": zeros((H, H), int)}},
            TypeError,
            "params['hr']['kernel']: expected a dtype among float32, float64, bfloat16, float16, "
            "got int64",
        ),
        (
            {k: v for k, v in gru.items() if k != "hz"},
            ValueError,
            "params: expected the names of a cell (h i; h i; hn hr hz in ir iz; hn hr hz in ir iz; "
            "hf hg hi ho if ig ii io; hf hg hi ho if_ ig ii io; or dense_h dense_i), "
            "got hn hr in ir iz",
        ),
        (
            fused | {"dense_h": {"kernel": zeros((H, 2 * H), "f4")}},
            ValueError,
            "params['dense_h']['kernel']: expected shape (H, G*H) with G 1, 3 or 4, "
            f"got ({H}, {2 * H})",
        ),
        (
            fused | {"dense_i": {"kernel": zeros((I, 3 * H), "f4")}},
            ValueError,
            f"params['dense_i']['kernel']: expected shape (*, {4 * H}), got ({I}, {3 * H})",
        ),
        (
            fused | {"dense_h": {"kernel": fused["dense_h"]["kernel"]}},
            ValueError,
            "params: expected biases in dense_h, got them in none",
        ),
    ]:
        rejected(error, message, from_flax, params)
    rejected(
        ValueError, "params: expected two for each layer, got 1", from_flax, gru, bidirectional=True
    )


def test_what_flax_does_not_have() -> None:
    for layer, message in [
        (fr.IndRNN(I, H), "RNN, GRU or LSTM, which Flax has"),
        (fr.LSTM(I, H, peephole=True), "no peepholes, which Flax has not"),
        (fr.LSTM(I, H, coupled=True), "no coupled gates, which Flax has not"),
        (fr.LSTM(I, H, proj_size=2), "no projection (proj_size=0), which Flax has not"),
        (fr.GRU(I, H, reset_after=False), "reset_after=True, which Flax has"),
    ]:
        rejected(ValueError, f"layer: expected {message}, got {layer!r}", to_flax, layer)
    rejected(
        ValueError,
        "layer, l0: expected a bias_hh of 0 for gate n, for nnx.GRUCell has none, got other "
        "numbers; form 'linen' has it",
        *(to_flax, layer_of("gru"), "nnx"),
    )
    rejected(
        ValueError,
        "form: expected 'linen', 'nnx' or 'nnx.LSTMCell', got 'haiku'",
        *(to_flax, layer_of("gru"), "haiku"),
    )
    layer = layer_of("gru")
    rejected(
        ValueError,
        f"form: expected 'linen' or 'nnx' for {layer!r}, got 'nnx.LSTMCell'",
        *(to_flax, layer, "nnx.LSTMCell"),
    )
    assert (B, T) == (3, 5)
