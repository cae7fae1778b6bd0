"""fusedrnn.jax's functions of single cells: values, gradients, transformations, errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fusedrnn as fr
import fusedrnn.jax as fj
from jax_support import B, H, I, T, close, jax_of_tests, lstm_weights, random, scanned_lstm

MASKS: dict[str, Any] = {
    "lengths": np.array([5, 0, 3]),
    "resets": np.random.default_rng(0).random((T, B)) < 0.3,
    "mask": np.random.default_rng(1).random((T, B)) < 0.8,
}
LSTM: dict[str, Any] = {"w_ih": (4 * H, I), "w_hh": (4 * H, H), "b_ih": (4 * H,), "c0": (B, H)}
COUPLED: dict[str, Any] = {"w_ih": (3 * H, I), "w_hh": (3 * H, H), "w_peephole": (2 * H,)}
PROJECTED: dict[str, Any] = {"w_ih": (4 * H, I), "w_hh": (4 * H, 2), "w_hr": (2, H), "h0": (B, 2)}
GRU: dict[str, Any] = {"w_ih": (3 * H, I), "w_hh": (3 * H, H), "b_hh": (3 * H,), "h0": (B, H)}
NORMED: dict[str, Any] = {"g_ih": (4 * H,), "b_ih": (4 * H,), "g_hh": (4 * H,), "b_hh": (4 * H,)}
# function, shapes of arrays, options
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("rnn", {"w_ih": (H, I), "w_hh": (H, H), "b_ih": (H,), "h0": (B, H)}, {"clip": 0.5}),
    ("rnn", {"w_ih": (H, I), "w_hh": (H, H)}, {"nonlinearity": "relu", "reverse": True}),
    ("indrnn", {"w_ih": (H, I), "w_hh": (H,), "h0": (B, H)}, MASKS),
    ("gru", GRU, MASKS | {"padding": "last", "memory": "lean"}),
    ("gru", GRU | {"reset_h": (H,)}, MASKS | {"reset_after": False, "reverse": True}),
    ("lstm", LSTM, MASKS | {"return_cells": True}),
    ("lstm", LSTM | {"w_hh": (4 * H, H // 2)}, {"heads": 2, "memory": "lean"}),
    ("lstm", LSTM | {"w_peephole": (3 * H,), "reset_c": (H,)}, MASKS | {"cell_clip": 0.3}),
    ("lstm", COUPLED, {"coupled": True, "return_cells": True}),
    ("lstm", PROJECTED, {"activations": ("hard_sigmoid", "softsign", "tanh")}),
    (
        "lstm_layer_norm",
        {"w_ih": (4 * H, I), "w_hh": (4 * H, H)} | NORMED | {"g_c": (H,), "b_c": (H,)},
        {},
    ),
    ("mingru", {"w_ih": (2 * H, I), "b_ih": (2 * H,)}, MASKS),
    ("minlstm", {"w_ih": (3 * H, I), "h0": (B, H)}, {}),
    ("slstm", LSTM, {"return_cells": True, "reverse": True}),
]


@pytest.fixture(autouse=True)
def _jax() -> Iterator[None]:
    with jax_of_tests():
        yield


def upstream_of(results: Any) -> Any:
    return jax.tree.map(lambda r: random(r.size, *r.shape).astype(r.dtype), results)


def expected_of(
    function: str, x: Any, arrays: dict[str, Any], options: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """Results, random gradients of them, and the gradients of what was given."""
    *results, tape = getattr(fr, f"{function}_forward")(x, **arrays, **options)
    upstream = upstream_of(results)
    ends = upstream[1] if isinstance(upstream[1], tuple) else (upstream[1],)
    named = {f"d{s}_n": end for s, end in zip("hcnm", ends, strict=False)}
    cells = {f"d{s}": cell for s, cell in zip("cnm", upstream[2:], strict=False)}
    gradients = getattr(fr, f"{function}_backward")(tape, upstream[0], **named, **cells)
    return tuple(results), upstream, {n: getattr(gradients, f"d{n}") for n in ("x", *arrays)}


def total(results: Any, upstream: Any) -> Any:
    pairs = zip(jax.tree.leaves(results), jax.tree.leaves(upstream), strict=True)
    return sum((jnp.asarray(r) * u).sum() for r, u in pairs)


@pytest.mark.parametrize(("function", "shapes", "options"), CASES)
def test_values_and_gradients_are_the_bits_of_the_plain_function(
    function: str, shapes: dict[str, Any], options: dict[str, Any]
) -> None:
    x = random(1, T, B, I)
    arrays = {name: random(i, *shape) for i, (name, shape) in enumerate(shapes.items())}
    results, upstream, expected = expected_of(function, x, arrays, options)

    @jax.jit
    def loss(x: Any, arrays: Any) -> Any:
        found = getattr(fj, function)(x, **arrays, **options)
        return total(found, upstream), found

    (dx, others), found = jax.grad(loss, (0, 1), has_aux=True)(x, arrays)
    close(found, results, 0)
    close({"x": dx, **others}, expected, 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_narrower_types(dtype: str) -> None:
    x, *weights = (jnp.asarray(a, dtype) for a in (random(5, T, B, I), *lstm_weights()))
    results, upstream, expected = expected_of(
        "lstm", x, dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), weights, strict=True)), {}
    )
    found = fj.lstm(x, *weights)
    assert found[0].dtype == dtype
    close(found, results, 0)
    gradients = jax.vjp(fj.lstm, x, *weights)[1](tuple(upstream))
    assert gradients[1].dtype == dtype
    close(gradients, list(expected.values()), 0)


def test_compute_dtype() -> None:
    x, *weights = (jnp.asarray(a, "float32") for a in (random(5, T, B, I), *lstm_weights()))
    narrow = {"compute_dtype": "bfloat16"}
    close(fj.lstm(x, *weights, **narrow), fr.lstm(x, *weights, **narrow), 0)
    assert np.abs(fj.lstm(x, *weights, **narrow)[0] - fj.lstm(x, *weights)[0]).max() > 0
    halves = [jnp.asarray(a, "bfloat16") for a in (x, *weights)]
    close(fj.lstm(*halves, **narrow), fr.lstm(*halves), 0)

    def loss(x: Any) -> Any:
        return fj.lstm(x, *weights, **narrow)[0].sum()

    assert np.isfinite(jax.grad(loss)(x)).all()
    with pytest.raises(ValueError, match="compute_dtype: expected None"):
        jax.jvp(loss, (x,), (x,))


def test_single_and_empty_sequences() -> None:
    x, weights, h = random(5, T, B, I), lstm_weights(), random(6, B, H)
    one = {"lengths": np.array(3), "resets": MASKS["resets"][:, 0], "return_cells": True}
    for n in (3, np.array(3)):
        given = one | {"lengths": n}
        close(fj.lstm(x[:, 0], *weights, h[0], **given), fr.lstm(x[:, 0], *weights, h[0], **one), 0)
    for shape in ((0, B, I), (T, 0, I)):
        empty = np.zeros(shape)
        close(fj.lstm(empty, *weights), fr.lstm(empty, *weights), 0)
        gradients = jax.grad(lambda w, e=empty: fj.lstm(e, *w)[1][0].sum())(weights)
        close(gradients, [np.zeros_like(w) for w in weights], 0)


def loss(x: Any, weights: Any, h: Any) -> Any:
    return weigh(*fj.lstm(x, *weights, h)[:2])


def plain_loss(x: Any, weights: Any, h: Any) -> Any:
    return weigh(*scanned_lstm(x, weights, h, jnp.zeros_like(h)))


def weigh(y: Any, state: Any) -> Any:
    return (y**2).sum() + jnp.sin(state[0]).sum() + (state[1] ** 3).sum()


def both(transform: Any, *arguments: Any) -> None:
    """That it gives the same for ours and for JAX's own operations."""
    close(jax.jit(transform(loss))(*arguments), jax.jit(transform(plain_loss))(*arguments), 1e-12)


def arguments_of() -> tuple[Any, Any, Any]:
    return random(5, T, B, I), lstm_weights(), random(6, B, H)


def test_derivatives_of_first_and_second_order() -> None:
    given = arguments_of()
    along = jax.tree.map(lambda a: random(a.size, *a.shape), given)
    both(lambda f: jax.value_and_grad(f, (0, 1, 2)), *given)
    both(lambda f: lambda *a: jax.jvp(f, a, along), *given)

    def dot(f: Any) -> Any:
        return lambda *a: total(jax.grad(f, (0, 1, 2))(*a), along)

    both(lambda f: jax.grad(dot(f), (0, 1, 2)), *given)  # reverse over reverse
    both(lambda f: lambda *a: jax.jvp(jax.grad(f, (0, 1, 2)), a, along), *given)

    def slope(f: Any) -> Any:
        return lambda x, w, h: jax.jvp(lambda x: f(x, w, h), (x,), (along[0] * x,))[1]

    both(lambda f: jax.grad(slope(f), (0, 1)), *given)  # reverse over forward


def test_second_derivatives_with_every_kind_of_argument() -> None:
    options = {"lengths": MASKS["lengths"], "resets": MASKS["resets"], "return_cells": True}
    x, weights, h = arguments_of()
    arrays = [x, *weights, h, random(9, B, H), random(10, 3 * H), random(11, H)]

    def results(arrays: Any) -> Any:
        *first, w_peephole, reset_h = arrays
        y, (h, c), cells = fj.lstm(*first, w_peephole=w_peephole, reset_h=reset_h, **options)
        return (y**2).sum() + (h * c).sum() + (cells**3).sum()

    along = [random(20 + i, *a.shape) for i, a in enumerate(arrays)]
    step, gradient = 1e-4, jax.jit(jax.grad(results))
    moved = [
        gradient([a + s * b for a, b in zip(arrays, along, strict=True)]) for s in (-step, step)
    ]
    numeric = jax.tree.map(lambda low, high: (high - low) / (2 * step), *moved)

    @jax.jit
    def both_ways(arrays: Any) -> Any:
        forth = jax.jvp(jax.grad(results), (arrays,), (along,))[1]
        return forth, jax.grad(lambda a: total(jax.grad(results)(a), along))(arrays)

    for found in both_ways(arrays):
        close(found, numeric, 1e-6)


def test_third_derivatives_are_errors() -> None:
    x, weights, h = arguments_of()
    third = jax.grad(lambda h: jax.hessian(loss, 2)(x, weights, h).sum())
    for transform in (third, jax.jacfwd(jax.jacfwd(lambda h: loss(x, weights, h)))):
        with pytest.raises(NotImplementedError, match=r"fusedrnn.jax: expected first derivatives"):
            transform(h)


def test_backward_takes_what_forward_left() -> None:
    x, weights, h = arguments_of()
    text = str(jax.make_jaxpr(jax.grad(loss, 1))(x, weights, h))
    assert text.count("= fusedrnn_network[") == 1
    assert text.count("= fusedrnn_network_backward[") == 1
    assert "fusedrnn_network_jvp" not in text
    assert "wanted=011110000" in text  # no gradient of x, nor of states
    assert "saves=False" in str(jax.make_jaxpr(loss)(x, weights, h))


@pytest.mark.parametrize("axes", [(0, None, 1), (None, 0, None)])
def test_vmap(axes: Any) -> None:
    x, weights, h = arguments_of()
    more = [
        given
        if axis is None
        else jax.tree.map(lambda a, axis=axis: jnp.stack([a, 0.5 * a], axis), given)
        for given, axis in zip((x, weights, h), axes, strict=True)
    ]
    both(lambda f: jax.vmap(jax.value_and_grad(f, (0, 1)), axes), *more)
    both(lambda f: jax.grad(lambda *a: jax.vmap(f, axes)(*a).sum(), (0, 1, 2)), *more)
    calls = str(jax.make_jaxpr(jax.vmap(loss, axes))(*more))
    assert ("scan" in calls) == (axes[1] is not None)


def test_vmap_of_masks_and_derivatives() -> None:
    x, weights, h = arguments_of()
    lengths, resets = np.array([[5, 0, 3], [1, 2, 4]]), np.stack([MASKS["resets"]] * 2)

    def run(lengths: Any, resets: Any) -> Any:
        return fj.lstm(x, *weights, h, lengths=lengths, resets=resets, return_cells=True)

    found = jax.vmap(run, (0, None))(lengths, resets[0])
    close(jax.tree.map(lambda r: r[1], found), run(lengths[1], resets[1]))
    both(lambda f: jax.vmap(jax.hessian(f, 2), (0, None, None)), jnp.stack([x, -x]), weights, h)


def test_inside_of_loops_and_checkpoints() -> None:
    x, weights, h = arguments_of()
    xs = jnp.stack([x, -x, 2 * x])

    def chunks(f: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            return jnp.tanh(h + f(x, weights, h)), f(x, weights, h)

        return lambda h: jax.lax.scan(jax.checkpoint(step), h, xs)[1].sum()

    close(jax.grad(chunks(loss))(h), jax.grad(chunks(plain_loss))(h), 1e-11)
    choose = jax.jit(lambda b, h: jax.lax.cond(b, lambda: loss(x, weights, h), lambda: 0.0))
    close(choose(True, h), plain_loss(x, weights, h))


def test_without_jit() -> None:
    x, w_ih, w_hh = random(5, 4, 2, 3), random(6, 8, 3), random(7, 8, 2)

    def loss(x: Any, w_ih: Any, w_hh: Any) -> Any:
        return (fj.lstm(x, w_ih, w_hh)[0] ** 2).sum()

    expected = jax.value_and_grad(loss, (0, 1, 2))(x, w_ih, w_hh)
    with jax.disable_jit():
        close(jax.value_and_grad(loss, (0, 1, 2))(x, w_ih, w_hh), expected, 0)
        each = jax.vmap(loss, (None, 0, None))(x, jnp.stack([w_ih] * 2), w_hh)
    close(each, jnp.stack([expected[0]] * 2))


def test_donated_arrays() -> None:
    x, weights, h = jax.tree.map(jnp.asarray, arguments_of())
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, weights, jax.grad(loss, 1)(x, weights, h))

    def step(weights: Any) -> Any:
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, jax.grad(loss, 1)(x, weights, h))

    given = [jnp.array(w) for w in weights]
    close(jax.jit(step, donate_argnums=0)(given), expected)
    assert given[0].is_deleted()


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x": None}, TypeError, "x: expected an array, got None"),
        ({"x": np.zeros((2, 2, 2, 2))}, ValueError, "x: expected shape [T, B, I], or [T, I]"),
        ({"x": np.zeros((T, B, I), int)}, TypeError, "x: expected dtype float32, float64"),
        ({"x": np.zeros((T, B, 9))}, ValueError, f"x: expected shape {(T, B, I)}, got {(T, B, 9)}"),
        ({"w_ih": None}, TypeError, "w_ih: expected an array, got None"),
        ({"w_hh": None}, TypeError, "w_hh: expected an array, got None"),
        ({"w_ih": "abc"}, TypeError, "w_ih: expected an array, got str"),
        ({"w_ih": np.zeros((23, I))}, ValueError, "w_ih: expected shape [4*H, I], got (23, 4)"),
        ({"w_hh": np.zeros((24, 5))}, ValueError, "w_hh: expected shape (24, 6), got (24, 5)"),
        ({"w_hr": np.zeros(3)}, ValueError, "w_hr: expected shape [P, H], got (3,)"),
        ({"b_ih": np.zeros(24, "f4")}, TypeError, "b_ih: expected dtype float64 as x, got float32"),
        ({"h0": np.zeros((B, 5))}, ValueError, "h0: expected shape (3, 6), got (3, 5)"),
        ({"c0": np.zeros((B, H), "f4")}, TypeError, "c0: expected dtype float64 as x, got float32"),
        ({"reset_c": np.zeros(5)}, ValueError, "reset_c: expected shape (6,), got (5,)"),
        ({"lengths": np.zeros(3)}, TypeError, "lengths: expected an integer dtype, got float64"),
        ({"lengths": [1, 2]}, ValueError, "lengths: expected shape (3,), got (2,)"),
        ({"mask": np.zeros((T, B))}, TypeError, "mask: expected dtype bool or uint8, got float64"),
        ({"resets": np.zeros(B, bool)}, ValueError, "resets: expected shape (5, 3), got (3,)"),
        ({"heads": 4}, ValueError, "heads: expected a divisor of hidden_size = 6, got 4"),
        ({"memory": "small"}, ValueError, "memory: expected"),
        ({"padding": "same"}, ValueError, "padding: expected"),
        ({"out": 1}, ValueError, "out: expected None"),
        ({"return_gates": True}, ValueError, "return_gates: expected False in JAX, got True"),
        ({"compute_dtype": "bfloat16"}, ValueError, "compute_dtype: expected"),
        ({"clip": -1.0}, ValueError, "clip: expected"),
    ],
)
def test_errors_come_while_it_is_traced(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"x": random(1, T, B, I), "w_ih": random(2, 4 * H, I), "w_hh": random(3, 4 * H, H)}
    with pytest.raises(error) as caught:
        jax.eval_shape(lambda: fj.lstm(**given | changed))
    assert str(caught.value).startswith(message)


def test_other_platforms_are_refused() -> None:
    x, weights, h = jax.tree.map(jnp.asarray, arguments_of())
    traced = jax.jit(loss).trace(x, weights, h)
    with pytest.raises(NotImplementedError, match="expected one of JAX's platforms cpu and cuda"):
        traced.lower(lowering_platforms=("rocm",))


def test_programs_for_cuda_hold_the_same_calls() -> None:
    """Lowered without a device: which handlers run, with what, and room for what they leave."""
    x, weights, h = jax.tree.map(jnp.asarray, arguments_of())
    targets = ("fusedrnn_forward", "fusedrnn_backward")
    allowed = [jax.export.DisabledSafetyCheck.custom_call(name) for name in targets]
    jitted = jax.jit(jax.grad(loss))
    programs = [
        jax.export.export(jitted, platforms=[platform], disabled_checks=allowed)(x, weights, h)
        for platform in ("cuda", "cpu")
    ]
    texts = [program.mlir_module() for program in programs]
    assert programs[0].platforms == ("cuda",)
    for target in targets:
        lines = [[line for line in text.splitlines() if f"@{target}(" in line] for text in texts]
        assert len(lines[0]) == 1
        assert lines[0] == lines[1]


def test_gradients_of_plain_functions_are_trees() -> None:
    x, weights, _ = arguments_of()
    *_, tape = fr.lstm_forward(x, *weights)
    gradients = fr.lstm_backward(tape, np.ones((T, B, H)))
    doubled = jax.tree.map(lambda g: 2 * g, gradients)
    assert isinstance(doubled, fr.LSTMGradients)
    close(doubled.dw_hh, 2 * gradients.dw_hh)
    assert doubled.dreset_h is None
    found = jax.jit(lambda g: jax.tree.map(jnp.sum, g))(gradients)
    close(found.dx, gradients.dx.sum())
