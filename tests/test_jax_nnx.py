"""fusedrnn.jax.nnx's module beside Flax's: values, carries, gradients, noise, weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fusedrnn.jax as fj
from fusedrnn.jax.nnx import RNN, from_flax, to_flax
from jax_support import close, jax_of_tests, random

B, T, I, H = 3, 5, 4, 6  # noqa: E741
CELLS = {
    "lstm": nnx.LSTMCell,
    "optimized": nnx.OptimizedLSTMCell,
    "gru": nnx.GRUCell,
    "rnn": nnx.SimpleCell,
}
LENGTHS = np.array([5, 2, 3])
x = random(1, B, T, I, dtype="float32")


@pytest.fixture(autouse=True)
def _jax() -> Iterator[None]:
    with jax_of_tests(x64=False):
        yield


def randomised(name: str, **options: Any) -> tuple[Any, Any]:
    """Flax's module with random numbers in every parameter, biases too; and ours of it."""
    theirs = nnx.RNN(CELLS[name](I, H, rngs=nnx.Rngs(0)), **options)
    state = nnx.state(theirs.cell, nnx.Param)
    leaves, tree = jax.tree.flatten(state)
    drawn = [jnp.asarray(random(i, *leaf.shape, dtype="float32")) for i, leaf in enumerate(leaves)]
    nnx.update(theirs.cell, jax.tree.unflatten(tree, drawn))
    return theirs, from_flax(theirs)


def carry_of(name: str, *batch: int) -> Any:
    h = random(9, *batch, H, dtype="float32")
    return (random(8, *batch, H, dtype="float32"), h) if name in ("lstm", "optimized") else h


@pytest.mark.parametrize("name", list(CELLS))
@pytest.mark.parametrize(
    "options",
    [{}, {"reverse": True}, {"reverse": True, "keep_order": True, "time_major": True}],
    ids=["forth", "back", "back in order"],
)
def test_values_are_flaxs(name: str, options: dict[str, Any]) -> None:
    theirs, ours = randomised(name, return_carry=True, **options)
    inputs = x.swapaxes(0, 1) if options.get("time_major") else x
    close(ours(inputs), theirs(inputs), 2e-6)
    given = {"initial_carry": carry_of(name, B), "seq_lengths": jnp.asarray(LENGTHS)}
    (carry, y), (their_carry, their_y) = ours(inputs, **given), theirs(inputs, **given)
    close(carry, their_carry, 2e-6)
    assert jax.tree.structure(carry) == jax.tree.structure(their_carry)
    exists = np.arange(T)[None] < LENGTHS[:, None]
    exists = (exists.T if options.get("time_major") else exists)[..., None]
    close(y, jnp.where(exists, their_y, 0), 2e-6)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_axes_of_batches(name: str) -> None:
    theirs, ours = randomised(name)
    for inputs, batch in ((x[0], ()), (random(2, 2, 3, T, I, dtype="float32"), (2, 3))):
        close(ours(inputs), theirs(inputs), 2e-6)
        carry = carry_of(name, *batch)
        got = ours(inputs, return_carry=True, initial_carry=carry)
        close(got, theirs(inputs, return_carry=True, initial_carry=carry), 2e-6)
    steps = np.moveaxis(x, 1, 0)
    close(ours(steps, time_major=True), theirs(steps, time_major=True), 2e-6)


@pytest.mark.parametrize("name", list(CELLS))
def test_gradients_are_flaxs(name: str) -> None:
    theirs, ours = randomised(name)
    weights = random(4, B, T, H, dtype="float32")

    @nnx.jit
    def gradients(module: Any) -> Any:
        return nnx.grad(lambda module: (module(x) * weights).sum())(module)

    expected = nnx.to_pure_dict(gradients(theirs))["cell"]
    got = gradients(ours)
    for key in ("weight_ih_l0", "weight_hh_l0"):
        assert got[key][...].shape == getattr(ours, key)[...].shape
    kernels = {"i": got["weight_ih_l0"][...], "h": got["weight_hh_l0"][...]}
    for side, kernel in kernels.items():
        theirs_by_name = {k: v["kernel"] for k, v in expected.items() if _side(k) == side}
        columns = _ordered(name, theirs_by_name)
        close(kernel, jnp.concatenate(columns, 1).T, 4e-6)


def _side(name: str) -> str:
    return name[-1] if name.startswith("dense") else name[0]


def _ordered(name: str, kernels: dict[str, Any]) -> list[Any]:
    """Kernels gate by gate."""
    gates = {"lstm": ["i", "f", "g", "o"]}.get(name)
    if gates is None:
        return list(kernels.values())
    return [next(v for k, v in kernels.items() if k[1] == gate) for gate in gates]


@pytest.mark.parametrize("name", list(CELLS))
def test_weights_go_back_to_flax(name: str) -> None:
    theirs, ours = randomised(name)
    form = "nnx.LSTMCell" if name == "lstm" else "nnx"
    (params,) = to_flax(ours, form)
    nnx.update(theirs.cell, jax.tree.map(lambda p: 0 * p, nnx.state(theirs.cell, nnx.Param)))
    nnx.update(theirs.cell, params)
    close(theirs(x), ours(x), 2e-6)


def test_in_flaxs_bidirectional() -> None:
    pairs = [randomised("lstm"), randomised("gru")]
    theirs = nnx.Bidirectional(pairs[0][0], pairs[1][0], return_carry=True)
    ours = nnx.Bidirectional(pairs[0][1], pairs[1][1], return_carry=True)
    close(ours(x), theirs(x), 2e-6)
    got = ours(x, seq_lengths=jnp.asarray(LENGTHS))
    expected = theirs(x, seq_lengths=jnp.asarray(LENGTHS))
    close(got[0], expected[0], 2e-6)


def test_stacks_and_training() -> None:
    layer = fj.LSTM(I, H, 2, bidirectional=True, batch_first=True, dropout=0.5)
    module = RNN(layer, return_carry=True, rngs=nnx.Rngs(0))
    names = {path[0] for path, _ in nnx.to_flat_state(nnx.state(module, nnx.Param))}
    assert names == set(layer.shapes())
    (c, h), y = module(x)
    assert (c.shape, h.shape, y.shape) == ((4, B, H), (4, B, H), (B, T, 2 * H))
    assert np.abs(module(x)[1] - y).max() > 0.01  # another draw
    again = module(x, rngs=nnx.Rngs(dropout=3))
    close(module(x, rngs=nnx.Rngs(dropout=3)), again, 0)
    module.eval()
    params = {name: getattr(module, name)[...] for name in names}
    expected = layer.apply(params, x)
    close(module(x)[1], expected[0], 0)
    close(module(x)[0], expected[1][::-1], 0)
    carry = module(x)[0]
    close(module(x, initial_carry=carry)[1], layer.apply(params, x, carry[::-1])[0], 0)
    module.train()

    @nnx.jit
    def step(module: Any) -> Any:
        value, gradients = nnx.value_and_grad(lambda m: ((m(x)[1] - 0.3) ** 2).mean())(module)
        params = nnx.state(module, nnx.Param)
        nnx.update(module, jax.tree.map(lambda p, g: p - 0.5 * g, params, gradients))
        return value

    losses = [step(module) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    assert len({float(loss) for loss in losses}) == 20


def test_errors() -> None:
    cell = nnx.LSTMCell(I, H, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"rngs: expected flax\.nnx\.Rngs for the parameters of a"):
        RNN(fj.LSTM(I, H))
    with pytest.raises(TypeError, match=r"rnn: expected a flax\.nnx\.RNN, got LSTMCell"):
        from_flax(cell)
    bent = nnx.LSTMCell(I, H, gate_fn=nnx.hard_sigmoid, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"rnn\.cell: expected gate_fn sigmoid"):
        from_flax(nnx.RNN(bent))
    with pytest.raises(ValueError, match=r"rnn\.cell\.residual: expected False, got True"):
        from_flax(nnx.RNN(nnx.SimpleCell(I, H, residual=True, rngs=nnx.Rngs(0))))
    module = RNN(fj.GRU(I, H), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"inputs: expected shape \[\.\.\., 4\], got shape \(4,\)"):
        module(x[0, 0])
    with pytest.raises(ValueError, match=r"inputs: expected shape .* got shape \(3, 5, 3\)"):
        module(x[..., 1:])
    with pytest.raises(ValueError, match=r"initial_carry: expected shape \(3, 6\), got \(2, 6\)"):
        module(x, initial_carry=np.zeros((2, H), np.float32))
    pair = RNN(fj.LSTM(I, H), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="initial_carry: expected 2 arrays, got another structure"):
        pair(x, initial_carry=np.zeros((B, H), np.float32))
