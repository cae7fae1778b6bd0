"""Limits and activations of one's own: `clip`, `cell_clip`, `nonlinearity` and `activations`."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
import oracle.autodiff
import reference
from oracle import activations
from support import (
    BOUND,
    HARD,
    Arguments,
    backward,
    check,
    check_by_differences,
    directions,
    dtypes,
    forward,
    infer,
    joined,
    place,
    problem_of,
    same_bits,
)

MASKS = ("lengths", "resets")
# Numbers with which a recurrence stays small and each branch of each activation is taken.
ACTIVATIONS: tuple[Any, ...] = (
    *("sigmoid", "tanh", "relu", "identity", "hard_sigmoid", ("hard_sigmoid", 0.5, 0.25)),
    *("softsign", "softplus", "leaky_relu", ("leaky_relu", -0.3), "elu", ("elu", -0.7)),
    *(("affine", 0.6, 0.1), ("scaled_tanh", 1.3, 0.6), ("scaled_tanh", 0.0, 0.6)),
    *(("thresholded_relu", 0.25), ("thresholded_relu", -0.375)),
)
LIMITS: Arguments = {"clip": 0.7}
OTHERS: Arguments = {"activations": ("hard_sigmoid", "softsign")}
GRU_ELU: Arguments = {"activations": (("hard_sigmoid", 0.4), ("elu", 0.5))}
LSTM_OTHERS: Arguments = {"activations": ("hard_sigmoid", "softsign", ("leaky_relu", 0.2))}

CASES: list[tuple[str, str, Arguments]] = [
    *(("rnn", "", {"nonlinearity": activation, "clip": 0.9}) for activation in ACTIVATIONS),
    *(("rnn", "", {"nonlinearity": a}) for a in ACTIVATIONS if a not in ("relu", "tanh")),
    *(
        ("gru", "", {"reset_after": after, **options})
        for after in (True, False)
        for options in (
            LIMITS,
            OTHERS,
            LIMITS | OTHERS,
            {"activations": (("hard_sigmoid", 0.4), ("elu", 0.5))},
        )
    ),
    *(
        ("lstm", variant, options)
        for variant in ("", "peephole", "coupled", "coupled peephole", "projection")
        for options in (
            *(LIMITS, {"cell_clip": 0.6}, LSTM_OTHERS, LIMITS | {"cell_clip": 0.6} | LSTM_OTHERS),
        )
    ),
    ("lstm", "peephole projection", {}),
    ("lstm", "peephole projection", LIMITS | {"cell_clip": 0.6} | LSTM_OTHERS),
    ("lstm", "peephole", {"activations": ("softplus", "tanh", "tanh"), "cell_clip": 0.9}),
    ("lstm", "", {"cell_clip": 0.6, "cell_clip_nan": "limit"}),
]
IDS = [f"{cell} {variant} {options}" for cell, variant, options in CASES]
cases = pytest.mark.parametrize(("cell", "variant", "options"), CASES, ids=IDS)
some = pytest.mark.parametrize(
    ("cell", "variant", "options"),
    [
        ("rnn", "", {"nonlinearity": "elu", "clip": 0.9}),
        ("gru", "", {"clip": 0.7}),
        ("gru", "", {"reset_after": False, "clip": 0.7, **OTHERS}),
        ("lstm", "", {"clip": 0.7, "cell_clip": 0.6}),
        ("lstm", "coupled peephole", LSTM_OTHERS),
        ("lstm", "peephole projection", {"clip": 0.7}),
    ],
    ids=["rnn", "gru", "reset before", "lstm", "coupled", "projection"],
)


def problem_with(
    cell: str, variant: str, dtype: str, **shape: Any
) -> tuple[Arguments, Arguments, Arguments]:
    """A random problem, its upstream gradients, and the options that make it the variant."""
    problem, upstream = problem_of(cell, dtype, **shape, **HARD)
    H = problem["w_hh"].shape[1]
    random = np.random.default_rng(9)
    options: Arguments = {}
    if "coupled" in variant:
        options["coupled"] = True
        without_f = np.r_[:H, 2 * H : 4 * H]
        for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
            problem[name] = problem[name][without_f]
    if "peephole" in variant:
        gates = 2 if "coupled" in variant else 3
        problem["w_peephole"] = random.uniform(-1, 1, gates * H).astype(dtype)
    if "projection" in variant:
        P = (H + 1) // 2
        problem["w_hr"] = (random.standard_normal((P, H)) * H**-0.5).astype(dtype)
        problem["w_hh"] = problem["w_hh"][:, :P] * 2**0.5
        problem["h0"] = np.ascontiguousarray(problem["h0"][:, :P])
        for name in ("dy", "dh_n"):
            upstream[name] = np.ascontiguousarray(upstream[name][..., :P])
    return problem, upstream, options


def torch_function(torch: Any, activation: Any, clip: float) -> Any:
    """An activation of what is within its limit, whose gradient at the limit is 0."""
    name, *given = (activation,) if isinstance(activation, str) else activation
    numbers = [*given, *activations.DEFAULTS.get(name, ())[len(given) :]]

    soft = torch.nn.functional
    functions = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "identity": lambda x: x,
        "softsign": soft.softsign,
        "softplus": lambda x: soft.softplus(x, 1, 99),
        "leaky_relu": lambda x: torch.where(x > 0, x, numbers[0] * x),
        "elu": lambda x: torch.where(x > 0, x, numbers[0] * torch.expm1(x.clamp(max=0))),
        "thresholded_relu": lambda x: torch.where(x >= numbers[0], x, 0.0),
        "affine": lambda x: numbers[0] * x + numbers[1],
        "hard_sigmoid": lambda x: (numbers[0] * x + numbers[1]).clamp(0, 1),
        "scaled_tanh": lambda x: numbers[0] * torch.tanh(numbers[1] * x),
    }

    def act(x: Any) -> Any:
        return functions[name](torch.where(x.abs() < clip, x, x.detach().clamp(-clip, clip)))

    return act


def with_torch(
    cell: str, problem: Arguments, upstream: Arguments, reverse: bool, options: Arguments
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs and gradients in float64, by PyTorch's autograd over the equations."""
    torch = pytest.importorskip("torch")
    v = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in problem.items()
        if name not in MASKS
    }
    clip, cell_clip = options.get("clip", math.inf), options.get("cell_clip", math.inf)
    usual = {"rnn": (), "gru": ("sigmoid", "tanh"), "lstm": ("sigmoid", "tanh", "tanh")}[cell]
    chosen = (options["nonlinearity"],) if cell == "rnn" else options.get("activations", usual)
    f, g, h_act = [
        torch_function(torch, a, math.inf if i == 2 else clip)
        for i, a in enumerate([*chosen, "tanh", "tanh"][:3])
    ]

    def step(a: Any, h: Any, c: Any) -> tuple[Any, Any]:
        u = h @ v["w_hh"].T + v["b_hh"]
        if cell == "rnn":
            return f(a + u), c
        if cell == "gru":
            size = h.shape[1]
            (a_r, a_z, a_n), (u_r, u_z, u_n) = a.split(size, 1), u.split(size, 1)
            r, z = f(a_r + u_r), f(a_z + u_z)
            if options.get("reset_after", True):
                n = g(a_n + r * u_n)
            else:
                n = g(a_n + (r * h) @ v["w_hh"][2 * size :].T + v["b_hh"][2 * size :])
            return (1 - z) * n + z * h, c
        coupled = options.get("coupled", False)
        gates = (a + u).split(c.shape[1], 1)
        x = dict(zip("igo" if coupled else "ifgo", gates, strict=True))
        p = {}
        if "w_peephole" in v:
            seen = "io" if coupled else "ifo"
            p = dict(zip(seen, v["w_peephole"].split(c.shape[1]), strict=True))
        i = f(x["i"] + p.get("i", 0.0) * c)
        forget = 1 - i if coupled else f(x["f"] + p.get("f", 0.0) * c)
        c = forget * c + i * g(x["g"])
        c = torch.where(c.abs() < cell_clip, c, c.detach().clamp(-cell_clip, cell_clip))
        m = f(x["o"] + p.get("o", 0.0) * c) * h_act(c)
        return (m @ v["w_hr"].T if "w_hr" in v else m), c

    lengths, resets = torch.tensor(problem["lengths"]), torch.tensor(problem["resets"])
    T = v["x"].shape[0]
    h, c = v["h0"], v.get("c0", torch.zeros(1, 1))
    a = v["x"] @ v["w_ih"].T + v["b_ih"]
    ys: list[Any] = [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        valid = (t < lengths)[:, None]
        first = t + 1 if reverse else t
        cut = torch.zeros_like(valid)
        if first < T:
            cut = (resets[first] & (first < lengths))[:, None]
        h_out, c_out = step(a[t], torch.where(cut, 0.0, h), torch.where(cut, 0.0, c))
        h, c = torch.where(valid, h_out, h), torch.where(valid, c_out, c)
        ys[t] = torch.where(valid, h_out, 0.0)
    out = {"y": torch.stack(ys), "h_n": h, **({"c_n": c} if cell == "lstm" else {})}
    loss = sum((out[name[1:]] * torch.tensor(grad)).sum() for name, grad in upstream.items())
    grads = torch.autograd.grad(loss, list(v.values()))
    named = {f"d{name}": grad.numpy() for name, grad in zip(v, grads, strict=True)}
    return {name: value.detach().numpy() for name, value in out.items()}, named


# --- values and gradients ---


@cases
@dtypes
@directions
def test_oracle(cell: str, variant: str, options: Arguments, dtype: str, reverse: bool) -> None:
    shape = {"steps": 5, "batch": 3, "input_size": 4, "hidden_size": 5}
    given, upstream, extra = problem_with(cell, variant, dtype, **shape)
    given |= {"reverse": reverse, **options, **extra}
    got, tape = forward(cell, **given)
    check(got, oracle.forward(cell, **given), BOUND[dtype])
    same_bits(infer(cell, **given), got)
    check(
        backward(cell, tape, **upstream),
        oracle.gradients(cell, **given, **upstream),
        BOUND[dtype],
    )


@cases
@dtypes
@pytest.mark.parametrize(
    ("steps", "batch", "input_size", "hidden_size"),
    [(1, 1, 1, 1), (12, 9, 11, 37)],
)
def test_autograd(
    cell: str,
    variant: str,
    options: Arguments,
    dtype: str,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
) -> None:
    shape = {"steps": steps, "batch": batch, "input_size": input_size, "hidden_size": hidden_size}
    given, upstream, extra = problem_with(cell, variant, dtype, **shape)
    options = options | extra
    reverse = hidden_size == 37
    got, tape = forward(cell, **given, reverse=reverse, **options)
    expected, wanted = with_torch(cell, given, upstream, reverse, options)
    grads = backward(cell, tape, **upstream)
    if hidden_size == 1:  # a gradient of one number is a sum whose terms may cancel
        grads, wanted = joined(grads), joined(wanted)
    check(got, expected, BOUND[dtype])
    check(grads, wanted, BOUND[dtype])


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@dtypes
def test_activations_over_a_range(activation: Any, dtype: str) -> None:
    """Values and slopes, from an RNN of one step whose pre-activations are the arguments."""
    x = np.concatenate([np.linspace(-40.1, 40.3, 4001), np.linspace(-1, 1.01, 999)]).astype(dtype)
    one, nothing = np.ones((1, 1), dtype), np.zeros((1, 1), dtype)
    y, _, tape = fr.rnn_forward(x[None, :, None], one, nothing, nonlinearity=activation, clip=35.0)
    slopes = fr.rnn_backward(tape, np.ones_like(y)).dx
    function = activations.function_of(activation)
    for i, number in enumerate(x.tolist()):
        variable = oracle.autodiff.Var(number)
        value = function(activations.clipped(variable, 35.0))
        slope = oracle.autodiff.backpropagate([(value, 1.0)]).get(variable, 0.0)
        eps = float(np.finfo(dtype).eps)
        exact = oracle.autodiff.value_of(value)
        assert abs(y[0, i, 0] - exact) <= 4 * eps * max(abs(exact), 0.5), number
        assert abs(slopes[0, i, 0] - slope) <= 4 * eps, number


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@dtypes
def test_limits_that_nothing_reaches(cell: str, dtype: str) -> None:
    shape = {"steps": 9, "batch": 4, "input_size": 6, "hidden_size": 21}
    given, upstream, _ = problem_with(cell, "", dtype, **shape)
    got, tape = forward(cell, **given, clip=1e30)
    expected, plain = forward(cell, **given)
    check(got, expected, BOUND[dtype])
    check(backward(cell, tape, **upstream), backward(cell, plain, **upstream), BOUND[dtype])
    same_bits(infer(cell, **given, clip=math.inf), expected)


@dtypes
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_where_the_limit_begins(cell: str, dtype: str) -> None:
    """The neighbour of the limit is not limited, and the limit itself is."""
    limit = np.dtype(dtype).type(12.5)  # tanh there is nearly 1 in float32, and so is the sigmoid
    x = np.array([np.nextafter(limit, 0), limit, -np.nextafter(limit, 0), -limit], dtype)
    w, nothing = np.ones((1 if cell == "rnn" else 4, 1), dtype), np.zeros((4, 1), dtype)
    nothing = nothing[: len(w)]
    options: Arguments = {"nonlinearity": "sigmoid"} if cell == "rnn" else {}
    given: Arguments = {"x": x[None, :, None], "w_ih": w, "w_hh": nothing}
    _, tape = forward(cell, **given, clip=float(limit), **options)
    dx = backward(cell, tape, dy=np.ones((1, 4, 1), dtype))["dx"].ravel()
    assert dx[1] == dx[3] == 0
    _, plain = forward(cell, **given, **options)
    wanted = backward(cell, plain, dy=np.ones((1, 4, 1), dtype))["dx"].ravel()
    np.testing.assert_allclose(dx[[0, 2]], wanted[[0, 2]], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", ["", "coupled"])
def test_nan_in_the_cell(variant: str, dtype: str) -> None:
    shape = {"steps": 3, "batch": 3, "input_size": 4, "hidden_size": 5}
    given, upstream, extra = problem_with("lstm", variant, dtype, **shape)
    given = {name: value for name, value in given.items() if name not in MASKS} | extra
    given["c0"][1] = np.nan
    stays = infer("lstm", **given, cell_clip=0.5)
    assert np.isnan(stays["c_n"][1]).all()
    assert np.isnan(stays["y"][:, 1]).all()
    others = [0, 2]
    got, tape = forward("lstm", **given, cell_clip=0.5, cell_clip_nan="limit")
    same_bits({"c": got["c_n"][others]}, {"c": stays["c_n"][others]})
    expected = oracle.forward("lstm", **given, cell_clip=0.5, cell_clip_nan="limit")
    check(got, expected, BOUND[dtype])
    assert np.isfinite(got["y"]).all()
    grads = backward("lstm", tape, **upstream)
    assert np.isfinite(grads["dx"]).all()
    assert (grads["dc0"][1] == 0).all()
    # A limit does not hide what is wrong in a gate.
    given["c0"][1], given["x"][0, 1] = 0, np.nan
    assert np.isnan(infer("lstm", **given, cell_clip=0.5, cell_clip_nan="limit")["y"][:, 1]).all()


def test_nan_through_limits() -> None:
    for cell in ("rnn", "gru", "lstm"):
        shape = {"steps": 3, "batch": 3, "input_size": 4, "hidden_size": 5}
        given, upstream, _ = problem_with(cell, "", "float32", **shape)
        given = {name: value for name, value in given.items() if name not in MASKS}
        given["x"][1, 1] = np.nan
        got, tape = forward(cell, **given, clip=0.5)
        assert np.isnan(got["y"][1:, 1]).all()
        assert np.isfinite(got["y"][:, 0]).all()
        assert np.isnan(backward(cell, tape, **upstream)["dw_ih"]).any()


@some
@pytest.mark.parametrize(
    ("dtype", "compute_dtype", "bound"),
    [("bfloat16", None, 2e-2), ("float16", None, 4e-3), ("float32", "bfloat16", 2e-2)],
)
def test_sixteen_bits(
    cell: str,
    variant: str,
    options: Arguments,
    dtype: str,
    compute_dtype: str | None,
    bound: float,
) -> None:
    """Near the values of the same numbers in float64."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    shape = {"steps": 12, "batch": 5, "input_size": 24, "hidden_size": 40}
    given, upstream, extra = problem_with(cell, variant, "float64", **shape)
    options = options | extra
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    narrow = {
        name: value.astype(kind) if value.dtype.kind == "f" else value
        for name, value in (given | upstream).items()
    }
    exact = {n: v if n in MASKS else v.astype("float64") for n, v in narrow.items()}
    above, exact_above = ({n: of.pop(n) for n in upstream} for of in (narrow, exact))
    got, tape = forward(cell, **narrow, compute_dtype=compute_dtype, **options)
    grads = backward(cell, tape, **above)
    wanted, other = forward(cell, **exact, **options)
    wanted_grads = backward(cell, other, **exact_above)
    for name, value in wanted.items():
        assert reference.relative_error(got[name].astype("float64"), value) <= bound, name
    # Gradients jump where rounding carries a number over a limit or a bend.
    for name, value in wanted_grads.items():
        assert reference.relative_error(grads[name].astype("float64"), value) <= 10 * bound, name


@some
def test_a_sequence_alone_or_in_a_batch(cell: str, variant: str, options: Arguments) -> None:
    shape = {"steps": 7, "batch": 13, "input_size": 21, "hidden_size": 33}
    given, _, extra = problem_with(cell, variant, "float32", **shape)
    together = infer(cell, **given, **options, **extra)
    for b in range(13):
        one = {"x": given["x"][:, b : b + 1]}
        one |= {"resets": given["resets"][:, b : b + 1], "lengths": given["lengths"][b : b + 1]}
        one |= {name: given[name][b : b + 1] for name in ("h0", "c0") if name in given}
        alone = infer(cell, **(given | one), **options, **extra)
        rows = {name: together[name][b : b + 1] for name in alone if name != "y"}
        place().check_alike(alone, {"y": together["y"][:, b : b + 1], **rows})


@some
def test_threads_do_not_change_a_bit(cell: str, variant: str, options: Arguments) -> None:
    shape = {"steps": 20, "batch": 6, "input_size": 64, "hidden_size": 200}
    given, upstream, extra = problem_with(cell, variant, "float32", **shape)
    results = []
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        got, tape = forward(cell, **given, **options, **extra)
        results.append(got | backward(cell, tape, **upstream))
    fr.set_num_threads(2)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


def test_calls_that_differ_in_constants_alone() -> None:
    shape = {"steps": 4, "batch": 3, "input_size": 5, "hidden_size": 6}
    given, _, _ = problem_with("lstm", "", "float32", **shape)
    calls: list[Arguments] = [{"clip": 0.5}, {"clip": 0.25}, {"cell_clip": 0.5}, LSTM_OTHERS, {}]
    first = [infer("lstm", **given, **options)["y"] for options in calls]
    again = [infer("lstm", **given, **options)["y"] for options in calls]
    for i, y in enumerate(first):
        assert np.array_equal(y, again[i])
        assert not any(np.array_equal(y, other) for other in first[:i])


# --- layers ---


LAYERS: list[tuple[str, tuple[int, ...], Arguments]] = [
    ("RNN", (4, 6), {"nonlinearity": ("leaky_relu", 0.1), "clip": 0.8}),
    ("GRU", (4, 6), {"clip": 0.8}),
    (
        "GRU",
        (4, 6),
        {"reset_after": False, "activations": (("hard_sigmoid", 0.3, 0.5), "softsign")},
    ),
    ("LSTM", (4, 6), {"clip": 0.8, "cell_clip": 0.7}),
    ("LSTM", (4, 6), {"coupled": True, "peephole": True, "clip": 0.8}),
    ("LSTM", (4, 6), {"proj_size": 3, "peephole": True}),
    ("LSTM", (4, 6), {"proj_size": 3, "activations": ("sigmoid", "relu", "relu")}),
]
layers = pytest.mark.parametrize(("kind", "sizes", "options"), LAYERS, ids=str)


@layers
def test_layers(kind: str, sizes: tuple[int, ...], options: Arguments) -> None:
    make = getattr(fr, kind)
    shape: Arguments = {"bidirectional": True, "dtype": "float64"}
    layer = make(*sizes, 2, seed=0, **shape, **options)
    for name, value in options.items():
        assert f"{name}={value!r}" in repr(layer)
    assert ("weight_peephole_l0" in layer.parameters()) == options.get("peephole", False)
    x = np.random.default_rng(0).standard_normal((7, 3, 4))
    y, _, tape = layer.forward(x)
    grads = layer.backward(tape, np.ones_like(y))
    assert grads.keys() == layer.parameters().keys() | {"x", *(f"{s}0" for s in layer._states)}
    check_by_differences(layer, x, grads)
    y, _ = layer(x)  # the differences have left rounding in the parameters
    same_bits({"y": layer.freeze()(x)[0]}, {"y": y})
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert repr(other) == repr(layer)
        same_bits({"y": other(x)[0]}, {"y": y})
    other = make(*sizes, 2, **shape, **options)
    other.load_state_dict(layer.state_dict())
    same_bits({"y": other(x)[0]}, {"y": y})
    plain = make(*sizes, 2, seed=0, bias=False, **shape, **options)
    assert not any(name.startswith("bias") for name in plain.parameters())
    with pytest.raises(AttributeError, match=f"^{next(iter(options))}: .* cannot be changed"):
        setattr(layer, next(iter(options)), None)


@layers
@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
def test_frozen_steps(
    kind: str, sizes: tuple[int, ...], options: Arguments, weight_dtype: str | None
) -> None:
    options = options | ({"proj_size": 20} if "proj_size" in options else {})
    layer = getattr(fr, kind)(24, 40, 2, seed=3, **options)
    frozen = layer.freeze(weight_dtype)
    x = np.random.default_rng(1).standard_normal((9, 3, 24)).astype("float32")
    y, last = frozen(x)
    state: Any = None
    for t in range(9):
        y_t, state = frozen.step(x[t], state)
        assert np.array_equal(y_t, y[t])
    both = (state, last) if isinstance(state, tuple) else ((state,), (last,))
    assert all(np.array_equal(got, value) for got, value in zip(*both, strict=True))
    bound = {None: 0.0, "bfloat16": 2e-2, "int8": 5e-2}[weight_dtype]
    assert reference.relative_error(y, layer(x)[0]) <= bound
    y_t, _ = layer.step(x[0])
    assert reference.relative_error(y[0], y_t) <= bound


def test_truncated() -> None:
    layer = fr.LSTM(3, 4, seed=0, dtype="float64", clip=0.5)
    x = np.random.default_rng(0).standard_normal((6, 2, 3))
    y, _, tape = layer.forward(x)
    wanted = layer.backward(tape, np.ones_like(y))
    (chunk,) = fr.tbptt(layer, x, k1=6)
    same_bits(chunk.backward(np.ones_like(y)), wanted)


def test_the_usual_activations_are_plain() -> None:
    layer = fr.LSTM(3, 4, activations=("sigmoid", "tanh", ("tanh",)), clip=math.inf)
    assert repr(layer) == "LSTM(3, 4)"
    assert layer._stack.network.parameters == fr.LSTM(3, 4)._stack.network.parameters
