"""fusedrnn.jax.nnx's RNN over Flax's cells: values, carries, gradients, types, what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fusedrnn.jax.nnx import RNN, to_flax
from jax_support import close, jax_of_tests, random

B, T, I, H = 3, 5, 4, 6  # noqa: E741
LENGTHS = np.array([5, 2, 3])
CELLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "lstm": (nnx.LSTMCell, {}),
    "optimized": (nnx.OptimizedLSTMCell, {}),
    "gru": (nnx.GRUCell, {}),
    "rnn": (nnx.SimpleCell, {}),
    "lstm, others": (nnx.LSTMCell, {"gate_fn": nnx.hard_sigmoid, "activation_fn": nnx.soft_sign}),
    "gru, others": (nnx.GRUCell, {"gate_fn": nnx.hard_sigmoid, "activation_fn": nnx.elu}),
    "rnn, softplus": (nnx.SimpleCell, {"activation_fn": nnx.softplus}),
    "rnn, leaky": (nnx.SimpleCell, {"activation_fn": nnx.leaky_relu}),
}
x = random(1, B, T, I, dtype="float32")
every_cell = pytest.mark.parametrize("name", list(CELLS))


@pytest.fixture(autouse=True)
def _jax() -> Iterator[None]:
    with jax_of_tests(x64=False):
        yield


def pair(name: str, cell_options: Any = None, **options: Any) -> tuple[Any, Any]:
    """Flax's RNN and ours over one cell, of random numbers in every parameter."""
    kind, own = CELLS[name]
    cell = kind(I, H, **own, **(cell_options or {}), rngs=nnx.Rngs(0))
    leaves, tree = jax.tree.flatten(nnx.state(cell, nnx.Param))
    drawn = [jnp.asarray(random(i, *p.shape), p.dtype) for i, p in enumerate(leaves)]
    nnx.update(cell, jax.tree.unflatten(tree, drawn))
    return nnx.RNN(cell, **options), RNN(cell, **options)


def carry_of(name: str, *batch: int) -> Any:
    h = random(9, *batch, H, dtype="float32")
    lstm = CELLS[name][0] in (nnx.LSTMCell, nnx.OptimizedLSTMCell)
    return (random(8, *batch, H, dtype="float32"), h) if lstm else h


@every_cell
def test_values_are_flaxs(name: str) -> None:
    theirs, ours = pair(name, return_carry=True)
    close(ours(x), theirs(x), 2e-6)
    given = {"initial_carry": carry_of(name, B), "seq_lengths": jnp.asarray(LENGTHS)}
    for options in ({}, {"reverse": True}, {"reverse": True, "keep_order": True}):
        (carry, y), (their_carry, their_y) = (rnn(x, **given, **options) for rnn in (ours, theirs))
        close(carry, their_carry, 2e-6)
        assert jax.tree.structure(carry) == jax.tree.structure(their_carry)
        exists = (np.arange(T)[None] < LENGTHS[:, None])[..., None]
        close(y, jnp.where(exists, their_y, 0), 2e-6)
    wide = random(2, T, 2, B, I, dtype="float32")
    close(ours(wide, time_major=True), theirs(wide, time_major=True), 2e-6)
    close(ours(x[0]), theirs(x[0]), 2e-6)


@every_cell
def test_parameters_and_gradients_are_flaxs(name: str) -> None:
    theirs, ours = pair(name)
    assert nnx.state(ours, nnx.Param) == nnx.state(theirs, nnx.Param)
    weights = random(4, B, T, H, dtype="float32")

    def gradients(module: Any) -> Any:
        return nnx.state(nnx.grad(lambda m: (m(x) * weights).sum())(module), nnx.Param)

    got, expected = nnx.jit(gradients)(ours), nnx.jit(gradients)(theirs)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    close(got, expected, 1e-5)


@pytest.mark.parametrize(
    ("cell", "inputs", "bound"),
    [
        ({"param_dtype": "float16"}, "float16", 2e-3),
        ({"param_dtype": "bfloat16", "dtype": "bfloat16"}, "bfloat16", 2e-2),
        ({"dtype": "bfloat16"}, "float32", 2e-2),
        ({}, "bfloat16", 2e-6),
        ({}, "int32", 2e-6),
    ],
)
def test_types_are_flaxs(cell: dict[str, Any], inputs: str, bound: float) -> None:
    theirs, ours = pair("lstm", cell, return_carry=True)
    typed = jnp.asarray(2 * x, inputs)
    got, expected = ours(typed), theirs(typed)
    assert [p.dtype for p in jax.tree.leaves(got)] == [p.dtype for p in jax.tree.leaves(expected)]
    close(got, expected, bound)


def test_first_carries_are_those_of_the_cell() -> None:
    with pytest.warns(UserWarning, match="carry_init is provided"):
        theirs, ours = pair("gru", {"carry_init": nnx.initializers.normal(1.0)})
    close(ours(x), theirs(x), 2e-6)
    close(ours(x, rngs=nnx.Rngs(3)), theirs(x, rngs=nnx.Rngs(3)), 2e-6)
    seeded = RNN(ours.cell, rngs=nnx.Rngs(carry=5))
    close(seeded(x), nnx.RNN(ours.cell, rngs=nnx.Rngs(carry=5))(x), 2e-6)


class Widened(nnx.GRUCell):  # type: ignore[misc]
    """A subclass with the same equations, which is run, beside one with others."""


class Doubled(nnx.GRUCell):  # type: ignore[misc]
    def __call__(self, carry: Any, inputs: Any) -> Any:
        return super().__call__(carry, 2 * inputs)


def test_errors() -> None:
    def cell(kind: Any = nnx.GRUCell, **options: Any) -> Any:
        return kind(I, H, rngs=nnx.Rngs(0), **options)

    same = cell(Widened)
    close(RNN(same)(x), nnx.RNN(same)(x), 2e-6)
    wanted = r"cell: expected a layer of fusedrnn\.jax, or flax\.nnx's LSTMCell, .*, got "
    for wrong in (cell(Doubled), "gru", nnx.RNN(same)):
        with pytest.raises(TypeError, match=wanted + type(wrong).__name__):
            RNN(wrong)
    with pytest.raises(ValueError, match=r"cell\.gate_fn: expected one of .*, got gelu"):
        RNN(cell(gate_fn=nnx.gelu))
    with pytest.raises(ValueError, match=r"cell\.residual: expected False, got True"):
        RNN(cell(nnx.SimpleCell, residual=True))
    with pytest.raises(ValueError, match=r"cell\.dtype: .*, got float16 beside float32"):
        RNN(cell(dtype="float16"))
    with pytest.raises(ValueError, match="unroll: expected at least 1, got 0"):
        RNN(same, unroll=0)
    lora = cell()
    module = RNN(lora)
    lora.dense_i = nnx.LoRALinear(I, 3 * H, lora_rank=1, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"cell\.dense_i: expected a flax\.nnx\.Linear, got LoRAL"):
        module(x)
    scaled = cell()
    scaled.dense_h.dot_general = lambda *a, **k: 2 * jax.lax.dot_general(*a, **k)
    with pytest.raises(ValueError, match=r"cell\.dense_h\.dot_general: expected Flax's default"):
        RNN(scaled)
    with pytest.raises(
        ValueError, match=r"inputs: expected shape \[\.\.\., 4\], got shape \(3, 5, 3"
    ):
        RNN(same)(x[..., 1:])
    with pytest.raises(ValueError, match=r"initial_carry: expected shape \(3, 6\), got \(2, 6\)"):
        RNN(same)(x, initial_carry=np.zeros((2, H), np.float32))
    with pytest.raises(ValueError, match="initial_carry: expected 2 arrays, got another structure"):
        RNN(cell(nnx.LSTMCell))(x, initial_carry=np.zeros((B, H), np.float32))
    with pytest.raises(TypeError, match="module: expected one over a layer, got one over a cell"):
        to_flax(RNN(same))
