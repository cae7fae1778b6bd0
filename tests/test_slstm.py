"""sLSTM: exponential gates, a normaliser and a stabiliser, so four states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
import reference
from support import (
    BOUND,
    Arguments,
    backward,
    cast,
    check,
    check_by_differences,
    directions,
    dtypes,
    forward,
    infer,
    place,
    same_bits,
)

STATES = ("h", "c", "n", "m")
MASKS = ("lengths", "resets", "mask")

forgets = pytest.mark.parametrize("forget", ["sigmoid", "exp"])


def problem_of(
    dtype: str,
    *,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
    bias: bool = True,
    initial: bool = True,
) -> tuple[Arguments, Arguments]:
    """All that may be given, lengths, mask and resets too, and gradients from above."""
    rng = np.random.default_rng(0)
    T, B, I, H = steps, batch, input_size, hidden_size  # noqa: E741
    shapes = {"x": (T, B, I), "w_ih": (4 * H, I), "w_hh": (4 * H, H), "b_ih": (4 * H,)}
    given: Arguments = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    given["w_ih"] /= np.sqrt(I)
    given["w_hh"] /= np.sqrt(H)
    given |= {f"{s}0": rng.standard_normal((B, H)) for s in STATES}
    given["n0"] = 1 + rng.random((B, H))
    for s in "cnm":
        given[f"{s}0"][:, ::5] = 0  # nothing has come in yet
    given["lengths"] = rng.integers(0, T + 1, B)
    given["resets"] = rng.random((T, B)) < 0.2
    given["mask"] = rng.random((T, B)) < 0.9
    left_out = {"b_ih"} if not bias else set()
    left_out |= set() if initial else {f"{s}0" for s in STATES}
    given = {name: value for name, value in given.items() if name not in left_out}
    upstream = {"dy": rng.standard_normal((T, B, H))}
    upstream |= {f"d{s}_n": rng.standard_normal((B, H)) for s in STATES}
    return cast(given, dtype), cast(upstream, dtype)


@dtypes
@directions
@forgets
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@pytest.mark.parametrize("initial", [True, False], ids=["state", "zeros"])
def test_oracle(dtype: str, reverse: bool, forget: str, bias: bool, initial: bool) -> None:
    given, upstream = problem_of(
        dtype, steps=6, batch=3, input_size=4, hidden_size=5, bias=bias, initial=initial
    )
    options = {"reverse": reverse, "forget": forget}
    got, tape = forward("slstm", **given, **options)
    check(got, oracle.forward("slstm", **given, **options), BOUND[dtype])
    same_bits(infer("slstm", **given, **options), got)
    wanted = oracle.gradients("slstm", **given, **upstream, **options)
    grads = backward("slstm", tape, **upstream)
    if not bias:
        assert grads.pop("db_ih").shape == (20,)
    check(grads, wanted, BOUND[dtype])


@dtypes
@directions
@forgets
@pytest.mark.parametrize(
    ("steps", "batch", "input_size", "hidden_size"),
    [(1, 1, 1, 1), (3, 2, 7, 15), (30, 9, 11, 37), (7, 33, 20, 64), (100, 1, 3, 130)],
)
def test_reference(
    dtype: str,
    reverse: bool,
    forget: str,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
) -> None:
    given, upstream = problem_of(
        dtype, steps=steps, batch=batch, input_size=input_size, hidden_size=hidden_size
    )
    options = {"reverse": reverse, "forget": forget, "padding": "last"}
    got, tape = forward("slstm", **given, **options)
    check(got, reference.forward("slstm", **given, **options), BOUND[dtype])
    wanted = reference.gradients("slstm", **given, **upstream, **options)
    check(backward("slstm", tape, **upstream), wanted, BOUND[dtype])


@forgets
@pytest.mark.parametrize(
    ("dtype", "compute_dtype", "bound"),
    [("bfloat16", None, 2e-2), ("float16", None, 3e-3), ("float32", "bfloat16", 2e-2)],
)
def test_sixteen_bits(dtype: str, compute_dtype: str | None, bound: float, forget: str) -> None:
    """Near the values of the same numbers in float64."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    given, upstream = problem_of("float64", steps=20, batch=5, input_size=24, hidden_size=40)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    masks = {name: given.pop(name) for name in MASKS}
    narrow = {name: value.astype(kind) for name, value in (given | upstream).items()}
    exact = floats(narrow)
    above = {name: narrow.pop(name) for name in upstream}
    wide = {name: exact.pop(name) for name in upstream}
    options = {"forget": forget}
    got, tape = forward("slstm", **narrow, **masks, **options, compute_dtype=compute_dtype)
    check(floats(got), reference.forward("slstm", **exact, **masks, **options), bound)
    wanted = reference.gradients("slstm", **exact, **masks, **wide, **options)
    check(floats(backward("slstm", tape, **above)), wanted, 3 * bound)


def floats(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: value.astype("float64") for name, value in arrays.items()}


@dtypes
@forgets
def test_without_the_stabiliser(dtype: str, forget: str) -> None:
    """The paper's equations 8 to 14: the exponential gates as they are, from zeros."""
    given, _ = problem_of("float64", steps=12, batch=3, input_size=4, hidden_size=6)
    given = cast({name: given[name] for name in ("x", "w_ih", "w_hh", "b_ih")}, dtype)
    y, (h_n, c_n, n_n, m_n) = fr.slstm(**given, forget=forget)
    wide = floats(given)
    h = c = n = np.zeros((3, 6))
    wanted = []
    for x in wide["x"]:
        v = x @ wide["w_ih"].T + wide["b_ih"] + h @ wide["w_hh"].T
        v_i, v_f, v_z, v_o = np.split(v, 4, axis=1)
        i, f = np.exp(v_i), np.exp(v_f) if forget == "exp" else 1 / (1 + np.exp(-v_f))
        c, n = f * c + i * np.tanh(v_z), f * n + i
        h = c / n / (1 + np.exp(-v_o))
        wanted.append(h)
    scale = np.exp(m_n.astype("float64"))
    got = {"y": y, "h_n": h_n, "c_n": c_n * scale, "n_n": n_n * scale}
    check(got, {"y": np.stack(wanted), "h_n": h, "c_n": c, "n_n": n}, BOUND[dtype])


@dtypes
@forgets
@pytest.mark.parametrize("gate", [-1000.0, 1000.0])
def test_gates_that_would_overflow(dtype: str, forget: str, gate: float) -> None:
    """e^1000 is no number of either type, and e^-1000 is 0: h is a mean all the same."""
    H = 3
    x = np.linspace(-1, 1, 5).astype(dtype)[:, None, None]
    w_ih, w_hh = np.zeros((4 * H, 1), dtype), np.zeros((4 * H, H), dtype)
    w_ih[2 * H : 3 * H] = 1
    b_ih = np.zeros(4 * H, dtype)
    b_ih[: 2 * H] = np.array([[gate, 0, gate], [0, gate, gate]], dtype).ravel()
    resets = np.array([0, 0, 0, 1, 0], bool)[:, None]
    y, _, tape = fr.slstm_forward(x, w_ih, w_hh, b_ih, resets=resets, forget=forget)
    wanted = reference.forward(
        "slstm", x, w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, resets=resets, forget=forget
    )
    # v_i and m are rounded to so many digits.
    bound = 1000 * np.finfo(dtype).eps
    assert reference.relative_error(y, wanted["y"]) <= bound
    grads = fr.slstm_backward(tape, np.ones_like(y))
    for name in ("dx", "dw_ih", "dw_hh", "db_ih", "dh0", "dc0", "dn0", "dm0"):
        assert np.isfinite(getattr(grads, name)).all(), name


@dtypes
def test_a_reset_is_a_beginning(dtype: str) -> None:
    given, _ = problem_of(dtype, steps=8, batch=2, input_size=4, hidden_size=6, initial=False)
    given = {name: value for name, value in given.items() if name not in MASKS}
    resets = np.zeros((8, 2), bool)
    resets[3] = True
    whole = infer("slstm", **given, resets=resets)
    rest = infer("slstm", **(given | {"x": given["x"][3:]}))
    same_bits(whole | {"y": whole["y"][3:]}, rest)


def test_h_does_not_depend_on_the_scale() -> None:
    """c, n and exp(m) of the same product are the same state."""
    given, _ = problem_of("float64", steps=8, batch=2, input_size=4, hidden_size=6)
    given["n0"] += 0.5
    other = given | {"m0": given["m0"] + 3, **{f"{s}0": given[f"{s}0"] / np.exp(3) for s in "cn"}}
    first, second = infer("slstm", **given), infer("slstm", **other)
    assert reference.relative_error(second["y"], first["y"]) <= 1e-12


def test_nan_stays_in_its_unit() -> None:
    given, _ = problem_of("float32", steps=4, batch=1, input_size=2, hidden_size=19)
    given = {name: given[name] for name in ("x", "w_ih", "w_hh", "b_ih")}
    given["w_hh"][:] = 0
    for gate in range(4):
        for initial in ({}, {"n0": np.ones((1, 19), "float32")}):
            b_ih = given["b_ih"].copy()
            b_ih[gate * 19 + 3] = np.nan
            y = fr.slstm(**(given | {"b_ih": b_ih} | initial))[0]
            assert np.isnan(y[:, :, 3]).all()
            # Elsewhere 0 * NaN of the products with h.
            assert np.isfinite(np.delete(y[0], 3, axis=1)).all()


@dtypes
def test_a_sequence_alone_or_in_a_batch(dtype: str) -> None:
    given, _ = problem_of(dtype, steps=7, batch=13, input_size=21, hidden_size=33)
    together = infer("slstm", **given)
    for b in range(13):
        one = {name: given[name][:, b : b + 1] for name in ("x", "resets", "mask")}
        one |= {f"{s}0": given[f"{s}0"][b : b + 1] for s in STATES}
        one["lengths"] = given["lengths"][b : b + 1]
        alone = infer("slstm", **(given | one))
        rows = {"y": together["y"][:, b : b + 1]}
        rows |= {f"{s}_n": together[f"{s}_n"][b : b + 1] for s in STATES}
        place().check_alike(alone, rows)


def test_threads_do_not_change_a_bit() -> None:
    given, upstream = problem_of("float32", steps=30, batch=6, input_size=64, hidden_size=128)
    results = []
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        got, tape = forward("slstm", **given)
        results.append(got | backward("slstm", tape, **upstream))
    fr.set_num_threads(2)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


def test_results_in_given_arrays() -> None:
    given, upstream = problem_of("float32", steps=5, batch=3, input_size=4, hidden_size=6)
    wanted = infer("slstm", **given)
    y, state = np.empty_like(wanted["y"]), tuple(np.empty_like(wanted[f"{s}_n"]) for s in STATES)
    z, other, tape = fr.slstm_forward(**given, out=(y, state))
    assert z is y
    assert all(a is b for a, b in zip(other, state, strict=True))
    same_bits({"y": y, **{f"{s}_n": v for s, v in zip(STATES, state, strict=True)}}, wanted)
    dm0 = np.empty((3, 6), "float32")
    assert fr.slstm_backward(tape, **upstream, out={"dm0": dm0}).dm0 is dm0
    message = r"^out\[1\]: expected a tuple \(h_n, c_n, n_n, m_n\), got 2 values$"
    with pytest.raises(ValueError, match=message):
        fr.slstm(**given, out=(y, state[:2]))
    with pytest.raises(ValueError, match=r"^out\[1\]\[3\]: expected an array, got none$"):
        fr.slstm(**given, out=(y, (*state[:3], None)))


def test_wrong_arguments() -> None:
    given, _ = problem_of("float32", steps=3, batch=2, input_size=4, hidden_size=6)
    with pytest.raises(ValueError, match=r"^forget: expected 'sigmoid' or 'exp', got 'tanh'$"):
        fr.slstm(**given, forget="tanh")
    with pytest.raises(ValueError, match=r"^m0: expected shape \(2, 6\), got \(2, 5\)$"):
        fr.slstm(**(given | {"m0": np.zeros((2, 5), "float32")}))
    with pytest.raises(ValueError, match=r"^w_hh: expected shape \(24, 6\), got \(24, 5\)$"):
        fr.slstm(**(given | {"w_hh": np.zeros((24, 5), "float32")}))
    _, _, tape = fr.slstm_forward(**given)
    with pytest.raises(ValueError, match=r"^dn_n: expected shape \(2, 6\), got \(1, 6\)$"):
        fr.slstm_backward(tape, dn_n=np.zeros((1, 6), "float32"))
    layer = fr.SLSTM(4, 6)
    with pytest.raises(ValueError, match=r"^state: expected a tuple \(h, c, n, m\), got 2 values$"):
        layer(given["x"], (None, None))
    with pytest.raises(TypeError, match=r"^state: expected a tuple \(h, c, n, m\), got ndarray$"):
        layer(given["x"], np.zeros((1, 2, 6), "float32"))


@forgets
@pytest.mark.parametrize("bias", [True, False])
def test_layers(forget: str, bias: bool) -> None:
    layer = fr.SLSTM(4, 6, 2, forget=forget, bidirectional=True, bias=bias, seed=0, dtype="float64")
    shapes = {"weight_ih": (24, 4), "weight_hh": (24, 6)} | ({"bias_ih": (24,)} if bias else {})
    first = {name: p.shape for name, p in layer.parameters().items() if name.endswith("_l0")}
    assert first == {f"{name}_l0": shape for name, shape in shapes.items()}
    rng = np.random.default_rng(0)
    x, state = rng.standard_normal((5, 2, 4)), tuple(rng.random((4, 4, 2, 6)))
    initial = {f"{s}0": value for s, value in zip(STATES, state, strict=True)}
    y, last, tape = layer.forward(x, state)
    assert np.array_equal(layer.freeze()(x, state)[0], y)
    got = {"y": y} | {f"{s}_n": value for s, value in zip(STATES, last, strict=True)}
    wanted = oracle.stack("slstm", x, layer.parameters(), **initial, forget=forget)
    check(got, wanted, BOUND["float64"])
    dy = rng.standard_normal(y.shape)
    upstream = {f"d{s}_n": value for s, value in zip(STATES, last, strict=True)}
    wanted = oracle.stack_gradients(
        "slstm", x, layer.parameters(), **initial, forget=forget, dy=dy, **upstream
    )
    check(layer.backward(tape, dy, last), wanted, BOUND["float64"])
    y, _, tape = layer.forward(x)
    check_by_differences(layer, x, layer.backward(tape, np.ones_like(y)))


def test_all_states_of_every_step_and_reset_states() -> None:
    layer = fr.SLSTM(4, 6, 2, bidirectional=True, seed=0, dtype="float64")
    rng = np.random.default_rng(1)
    x, lengths = rng.standard_normal((5, 3, 4)), [5, 2, 4]
    resets = rng.random((5, 3)) < 0.4
    reset = {f"reset_{s}": rng.standard_normal((4, 6)) for s in STATES}
    reset["reset_n"] = 1 + rng.random((4, 6))
    given = {"lengths": lengths, "resets": resets}
    y, last, *cells, tape = layer.forward(
        x, **given, reset_state=tuple(reset.values()), return_cells=True
    )
    got = {"y": y} | dict(zip("cnm", cells, strict=True))
    got |= {f"{s}_n": value for s, value in zip(STATES, last, strict=True)}
    parameters = dict(layer.parameters())
    wanted = oracle.stack("slstm", x, parameters, **given, **reset, return_cells=True)
    check(got, wanted, BOUND["float64"])
    upstream = {f"d{s}": rng.standard_normal(y.shape) for s in ("y", *STATES[1:])}
    dy, *dcells = upstream.values()
    wanted = oracle.stack_gradients("slstm", x, parameters, **given, **reset, **upstream)
    check(layer.backward(tape, dy, dcells=tuple(dcells)), wanted, BOUND["float64"])
    with pytest.raises(TypeError, match=r"^dcells: expected a tuple \(c, n, m\), got ndarray$"):
        layer.backward(tape, dy, dcells=dcells[0])


@forgets
@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
def test_steps(forget: str, weight_dtype: str | None) -> None:
    layer = fr.SLSTM(24, 40, 2, forget=forget, seed=3)
    frozen = layer.freeze(weight_dtype)
    x = np.random.default_rng(1).standard_normal((9, 3, 24)).astype("float32")
    y, last = frozen(x)
    state: Any = None
    in_place = tuple(np.zeros((2, 3, 40), "float32") for _ in STATES)
    y_out = np.empty((3, 40), "float32")
    for t in range(9):
        y_t, state = frozen.step(x[t], state)
        assert np.array_equal(y_t, y[t])
        frozen.step(x[t], in_place, out=(y_out, in_place))
        assert np.array_equal(y_out, y[t])
    for part, other in zip(state, last, strict=True):
        assert np.array_equal(part, other)
    bound = {None: 0.0, "bfloat16": 1e-2, "int8": 3e-2}[weight_dtype]
    assert reference.relative_error(y, layer(x)[0]) <= bound


def test_steps_of_the_layer() -> None:
    layer = fr.SLSTM(5, 7, 2, seed=0)
    x = np.random.default_rng(1).standard_normal((6, 3, 5)).astype("float32")
    y, last = layer(x)
    state: Any = None
    for t in range(6):
        y_t, state = layer.step(x[t], state)
        assert np.array_equal(y_t, y[t])
    assert all(np.array_equal(a, b) for a, b in zip(state, last, strict=True))


def test_truncated_backpropagation() -> None:
    layer = fr.SLSTM(3, 4, seed=0, dtype="float64")
    x = np.random.default_rng(1).standard_normal((10, 2, 3))
    y, _, tape = layer.forward(x)
    whole = layer.backward(tape, np.ones_like(y))
    (chunk,) = fr.tbptt(layer, x, k1=10)
    same_bits(chunk.backward(np.ones_like(y)), whole)
    chunks = [(c.y, c.backward(np.ones_like(c.y))) for c in fr.tbptt(layer, x, k1=2, k2=10)]
    same_bits({"y": np.concatenate([part for part, _ in chunks])}, {"y": y})
    for name in layer.parameters():
        total = sum(grads[name] for _, grads in chunks)
        assert reference.relative_error(total, whole[name]) <= 1e-12, name


def test_optimiser_and_clipping() -> None:
    """Gradients of four states may stand among those of the parameters."""
    layer = fr.SLSTM(3, 4, seed=0)
    x = np.random.default_rng(1).standard_normal((5, 2, 3)).astype("float32")
    y, _, tape = layer.forward(x)
    grads = layer.backward(tape, np.ones_like(y))
    assert {"x", "h0", "c0", "n0", "m0"} < grads.keys()
    of_parameters = {name: grads[name] for name in layer.parameters()}
    assert fr.clip_grad_norm(grads, 1e9) == fr.clip_grad_norm(of_parameters, 1e9)
    before = layer.state_dict()
    fr.SGD(layer.parameters(), lr=0.1).step(grads)
    assert all((layer.parameters()[name] != value).any() for name, value in before.items())


def test_forget_bias() -> None:
    biases = fr.SLSTM(3, 4, seed=0, forget_bias=2.5).parameters()["bias_ih_l0"]
    assert (biases[4:8] == 2.5).all()
    assert (np.delete(biases, range(4, 8)) != 2.5).all()


@dtypes
@directions
def test_functions_return_all_states_of_every_step(dtype: str, reverse: bool) -> None:
    given, upstream = problem_of(dtype, steps=6, batch=3, input_size=4, hidden_size=9)
    rng = np.random.default_rng(2)
    each = {f"d{s}": rng.standard_normal((6, 3, 9)).astype(dtype) for s in "cnm"}
    options = {"reverse": reverse, "return_cells": True}
    got, tape = forward("slstm", **given, **options)
    assert list(got)[-3:] == ["c", "n", "m"]
    check(got, oracle.forward("slstm", **given, **options), BOUND[dtype])
    same_bits(infer("slstm", **given, **options), got)
    grads = backward("slstm", tape, **upstream, **each)
    wanted = oracle.gradients("slstm", **given, **upstream, **each, reverse=reverse)
    check(grads, wanted, BOUND[dtype])
    # Whether or not the call returned them.
    _, tape = forward("slstm", **given, reverse=reverse)
    same_bits(backward("slstm", tape, **upstream, **each), grads)


def test_arrays_for_all_states_of_every_step() -> None:
    given, _ = problem_of("float32", steps=4, batch=2, input_size=3, hidden_size=5)
    y, state, *cells = fr.slstm(**given, return_cells=True)
    out = (np.empty_like(y), tuple(map(np.empty_like, state)), *map(np.empty_like, cells))
    again = fr.slstm(**given, return_cells=True, out=out)
    assert again[2] is out[2]
    for mine, theirs in zip((again[0], *again[1], *again[2:]), (y, *state, *cells), strict=True):
        assert np.array_equal(mine, theirs)
    with pytest.raises(ValueError, match=r"^out: expected a tuple \(y, \(h_n, c_n, n_n, m_n\), "):
        fr.slstm(**given, return_cells=True, out=out[:2])
