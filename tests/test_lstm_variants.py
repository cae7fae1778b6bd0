"""The LSTM's options: peepholes, coupled gates, a projection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
import reference
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
VARIANTS = ("peephole", "coupled", "coupled peephole", "projection", "wide projection")
variants = pytest.mark.parametrize("variant", VARIANTS)


def options_of(variant: str) -> Arguments:
    return {"coupled": True} if "coupled" in variant else {}


def layer_options(variant: str, projection: int = 3, wide: int = 9) -> Arguments:
    """What a layer is given for a variant."""
    named = {"peephole": "peephole" in variant, "coupled": "coupled" in variant}
    sizes = {"projection": projection, "wide projection": wide}
    return named | ({"proj_size": sizes[variant]} if variant in sizes else {})


def problem_with(variant: str, dtype: str, **shape: Any) -> tuple[Arguments, Arguments]:
    """A random problem; a projection is to about half the units, or to half as many again."""
    problem, upstream = problem_of("lstm", dtype, **shape, **HARD)
    H = problem["w_hh"].shape[1]
    random = np.random.default_rng(9)
    if "coupled" in variant:
        without_f = np.r_[:H, 2 * H : 4 * H]
        for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
            problem[name] = problem[name][without_f]
    if "peephole" in variant:
        gates = 2 if "coupled" in variant else 3
        problem["w_peephole"] = random.uniform(-1, 1, gates * H).astype(dtype)
    if "projection" in variant:
        P = (H + 1) // 2 if variant == "projection" else H + (H + 1) // 2
        problem["w_hr"] = (random.standard_normal((P, H)) * H**-0.5).astype(dtype)
        columns = np.arange(P) % H
        problem["w_hh"] = problem["w_hh"][:, columns] * (H / P) ** 0.5
        problem["h0"] = np.ascontiguousarray(problem["h0"][:, columns])
        for name in ("dy", "dh_n"):
            upstream[name] = np.ascontiguousarray(upstream[name][..., columns])
    return problem, upstream


def with_torch(
    variant: str, problem: Arguments, upstream: Arguments, reverse: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs and gradients in float64, by PyTorch's autograd over the equations."""
    torch = pytest.importorskip("torch")
    v = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in problem.items()
        if name not in MASKS
    }
    lengths = torch.tensor(problem["lengths"])
    resets = torch.tensor(problem["resets"])
    coupled = "coupled" in variant
    T, H = v["x"].shape[0], v["c0"].shape[1]
    h, c = v["h0"], v["c0"]
    seen = "io" if coupled else "ifo"
    p = dict(zip(seen, v["w_peephole"].split(H), strict=True)) if "w_peephole" in v else {}
    a = v["x"] @ v["w_ih"].T + v["b_ih"]
    ys: list[Any] = [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        valid = (t < lengths)[:, None]
        first = t + 1 if reverse else t
        cut = torch.zeros_like(valid)
        if first < T:
            cut = (resets[first] & (first < lengths))[:, None]
        h_in, c_in = torch.where(cut, 0.0, h), torch.where(cut, 0.0, c)
        gates = (a[t] + h_in @ v["w_hh"].T + v["b_hh"]).split(H, 1)
        u = dict(zip("igo" if coupled else "ifgo", gates, strict=True))
        i = torch.sigmoid(u["i"] + p.get("i", 0.0) * c_in)
        f = 1 - i if coupled else torch.sigmoid(u["f"] + p.get("f", 0.0) * c_in)
        c_out = f * c_in + i * torch.tanh(u["g"])
        h_out = torch.sigmoid(u["o"] + p.get("o", 0.0) * c_out) * torch.tanh(c_out)
        if "w_hr" in v:
            h_out = h_out @ v["w_hr"].T
        h, c = torch.where(valid, h_out, h), torch.where(valid, c_out, c)
        ys[t] = torch.where(valid, h_out, 0.0)
    out = {"y": torch.stack(ys), "h_n": h, "c_n": c}
    loss = sum((out[name[1:]] * torch.tensor(grad)).sum() for name, grad in upstream.items())
    grads = torch.autograd.grad(loss, list(v.values()))
    named = {f"d{name}": grad.numpy() for name, grad in zip(v, grads, strict=True)}
    return {name: value.detach().numpy() for name, value in out.items()}, named


@variants
@dtypes
@directions
def test_oracle(variant: str, dtype: str, reverse: bool) -> None:
    given, upstream = problem_with(variant, dtype, steps=5, batch=3, input_size=4, hidden_size=5)
    given |= {"reverse": reverse, **options_of(variant)}
    got, tape = forward("lstm", **given)
    check(got, oracle.forward("lstm", **given), BOUND[dtype])
    same_bits(infer("lstm", **given), got)
    check(
        backward("lstm", tape, **upstream),
        oracle.gradients("lstm", **given, **upstream),
        BOUND[dtype],
    )


@variants
@dtypes
@directions
@pytest.mark.parametrize(
    ("steps", "batch", "input_size", "hidden_size"),
    [(1, 1, 1, 1), (3, 2, 7, 15), (40, 9, 11, 37), (7, 33, 20, 64), (30, 2, 3, 130)],
)
def test_autograd(
    variant: str,
    dtype: str,
    reverse: bool,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
) -> None:
    given, upstream = problem_with(
        variant, dtype, steps=steps, batch=batch, input_size=input_size, hidden_size=hidden_size
    )
    got, tape = forward("lstm", **given, reverse=reverse, **options_of(variant))
    expected, wanted = with_torch(variant, given, upstream, reverse)
    grads = backward("lstm", tape, **upstream)
    if hidden_size == 1:  # a gradient of one number is a sum whose terms may cancel
        grads, wanted = joined(grads), joined(wanted)
    check(got, expected, BOUND[dtype])
    check(grads, wanted, BOUND[dtype])


@variants
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_nothing_of_an_earlier_call(variant: str, dtype: str) -> None:
    """Memory is kept from call to call; where blocks of gates have gaps a NaN would stay in it."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    given, upstream = problem_with(
        variant, "float64", steps=5, batch=3, input_size=4, hidden_size=6
    )
    given, upstream = (
        {name: value if name in MASKS else value.astype(kind) for name, value in part.items()}
        for part in (given, upstream)
    )
    _, _, tape = fr.lstm_forward(**given, **options_of(variant))
    first = fr.lstm_backward(tape, **upstream)
    spoilt = {name: np.full_like(value, np.nan) for name, value in upstream.items()}
    assert np.isnan(fr.lstm_backward(tape, **spoilt).dw_hh.astype("float32")).any()
    again = fr.lstm_backward(tape, **upstream)
    for name in given.keys() - set(MASKS):
        got = getattr(again, f"d{name}").astype("float64")
        assert np.isfinite(got).all(), name
        assert np.array_equal(got, getattr(first, f"d{name}").astype("float64")), name


@dtypes
def test_zero_peepholes_are_none(dtype: str) -> None:
    given, upstream = problem_with(
        "peephole", dtype, steps=7, batch=5, input_size=6, hidden_size=33
    )
    given["w_peephole"][:] = 0
    plain = {name: value for name, value in given.items() if name != "w_peephole"}
    got, tape = forward("lstm", **given)
    expected, other = forward("lstm", **plain)
    check(got, expected, 0)
    grads = backward("lstm", tape, **upstream)
    assert grads.pop("dw_peephole").any()
    check(grads, backward("lstm", other, **upstream), 0)


@dtypes
def test_coupled_gates_are_a_forget_gate_of_minus_the_input_gate(dtype: str) -> None:
    """s(-v) = 1 - s(v)."""
    given, _ = problem_with("coupled", dtype, steps=9, batch=4, input_size=6, hidden_size=21)
    H = 21
    four = {
        name: np.concatenate([given[name][:H], -given[name][:H], given[name][H:]])
        for name in ("w_ih", "w_hh", "b_ih", "b_hh")
    }
    check(infer("lstm", **given, coupled=True), infer("lstm", **(given | four)), BOUND[dtype])


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forth", "both"])
@pytest.mark.parametrize("bias", [True, False], ids=["biases", "no biases"])
def test_projections_as_in_torch(bidirectional: bool, bias: bool) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    shape: Any = {"num_layers": 2, "proj_size": 7, "bidirectional": bidirectional, "bias": bias}
    theirs = torch.nn.LSTM(5, 19, **shape)
    ours = fr.LSTM(5, 19, **shape)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    random = np.random.default_rng(1)
    directions = 2 if bidirectional else 1
    x = random.standard_normal((11, 3, 5)).astype("float32")
    h0 = random.standard_normal((2 * directions, 3, 7)).astype("float32")
    c0 = random.standard_normal((2 * directions, 3, 19)).astype("float32")
    inputs = [torch.tensor(value, requires_grad=True) for value in (x, h0, c0)]
    y_t, (h_t, c_t) = theirs(inputs[0], (inputs[1], inputs[2]))
    y, (h, c), tape = ours.forward(x, (h0, c0))
    outputs = {"y": (y, y_t), "h": (h, h_t), "c": (c, c_t)}
    for name, (got, value) in outputs.items():
        assert reference.relative_error(got, value.detach().numpy()) < 2e-6, name
    upstream = [random.standard_normal(v.shape).astype("float32") for v in (y, h, c)]
    loss = sum((v * torch.tensor(g)).sum() for v, g in zip((y_t, h_t, c_t), upstream, strict=True))
    loss.backward()
    grads = ours.backward(tape, upstream[0], (upstream[1], upstream[2]))
    wanted = dict(theirs.named_parameters()) | dict(zip(("x", "h0", "c0"), inputs, strict=True))
    for name, value in wanted.items():
        assert reference.relative_error(grads[name], value.grad.numpy()) < 5e-6, name


@variants
@pytest.mark.parametrize(
    ("dtype", "compute_dtype", "bound"),
    [("bfloat16", None, 2e-2), ("float16", None, 3e-3), ("float32", "bfloat16", 1e-2)],
)
def test_sixteen_bits(variant: str, dtype: str, compute_dtype: str | None, bound: float) -> None:
    """Near the values of the same numbers in float64."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    given, upstream = problem_with(
        variant, "float64", steps=12, batch=5, input_size=24, hidden_size=40
    )
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    narrow = {
        name: value.astype(kind) if value.dtype.kind == "f" else value
        for name, value in (given | upstream).items()
    }
    exact = {
        name: value if name in MASKS else value.astype("float64") for name, value in narrow.items()
    }
    above = {name: narrow.pop(name) for name in upstream}
    options = options_of(variant)
    _, state, tape = fr.lstm_forward(**narrow, compute_dtype=compute_dtype, **options)
    grads = fr.lstm_backward(tape, **above)
    exact_above = {name: exact.pop(name) for name in upstream}
    _, wanted_state, other = fr.lstm_forward(**exact, **options)
    wanted = fr.lstm_backward(other, **exact_above)
    for got, value in zip(state, wanted_state, strict=True):
        assert reference.relative_error(got.astype("float64"), value) <= bound
    for name in given.keys() - set(MASKS):
        got = getattr(grads, f"d{name}").astype("float64")
        assert reference.relative_error(got, getattr(wanted, f"d{name}")) <= 3 * bound, name


@variants
@dtypes
def test_a_sequence_alone_or_in_a_batch(variant: str, dtype: str) -> None:
    given, _ = problem_with(variant, dtype, steps=7, batch=13, input_size=21, hidden_size=33)
    together = infer("lstm", **given, **options_of(variant))
    for b in range(13):
        one = {"x": given["x"][:, b : b + 1]}
        one |= {"resets": given["resets"][:, b : b + 1], "lengths": given["lengths"][b : b + 1]}
        one |= {name: given[name][b : b + 1] for name in ("h0", "c0")}
        alone = infer("lstm", **(given | one), **options_of(variant))
        rows = {name: together[name][b : b + 1] for name in ("h_n", "c_n")}
        place().check_alike(alone, {"y": together["y"][:, b : b + 1], **rows})


@variants
def test_threads_do_not_change_a_bit(variant: str) -> None:
    given, upstream = problem_with(
        variant, "float32", steps=20, batch=6, input_size=64, hidden_size=200
    )
    results = []
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        got, tape = forward("lstm", **given, **options_of(variant))
        results.append(got | backward("lstm", tape, **upstream))
    fr.set_num_threads(2)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


@pytest.mark.parametrize(
    ("variant", "name"), [("peephole", "dw_peephole"), ("projection", "dw_hr")]
)
def test_results_into_given_arrays(variant: str, name: str) -> None:
    given, upstream = problem_with(
        variant, "float32", steps=4, batch=3, input_size=5, hidden_size=6
    )
    _, _, tape = fr.lstm_forward(**given)
    place_for_it = np.empty_like(given[name[1:]])
    grads = fr.lstm_backward(tape, **upstream, out={name: place_for_it})
    assert getattr(grads, name) is place_for_it
    assert np.array_equal(place_for_it, getattr(fr.lstm_backward(tape, **upstream), name))


def test_wrong_weights() -> None:
    given, _ = problem_with("peephole", "float32", steps=3, batch=2, input_size=4, hidden_size=5)
    wrong = given | {"w_peephole": np.zeros(20, "float32")}
    with pytest.raises(ValueError, match=r"^w_peephole: expected shape \(15,\), got \(20,\)$"):
        fr.lstm(**wrong)
    plain = {name: value for name, value in given.items() if name != "w_peephole"}
    _, _, tape = fr.lstm_forward(**plain)
    grads = fr.lstm_backward(tape)
    assert (grads.dw_peephole, grads.dw_hr) == (None, None)
    with pytest.raises(ValueError, match=r"^out: expected names among .*, got 'dw_peephole'$"):
        fr.lstm_backward(tape, out={"dw_peephole": np.zeros(15, "float32")})
    with pytest.raises(ValueError, match=r"^w_[ih]h: expected shape .*, got \(20, [45]\)$"):
        fr.lstm(**plain, coupled=True)
    given, _ = problem_with("projection", "float32", steps=3, batch=2, input_size=4, hidden_size=5)
    with pytest.raises(ValueError, match=r"^w_hr: expected shape \(3, 5\), got \(3, 4\)$"):
        fr.lstm(**(given | {"w_hr": given["w_hr"][:, :4]}))
    with pytest.raises(ValueError, match=r"^h0: expected shape \(2, 3\), got \(2, 5\)$"):
        fr.lstm(**(given | {"h0": np.zeros((2, 5), "float32")}))


def test_wrong_options() -> None:
    with pytest.raises(TypeError, match=r"^peephole: expected a bool, got int$"):
        fr.LSTM(4, 5, peephole=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^coupled: expected a bool, got int$"):
        fr.LSTM(4, 5, coupled=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^proj_size: expected an int, got float$"):
        fr.LSTM(4, 5, proj_size=1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^proj_size: expected at least 0, got -1$"):
        fr.LSTM(4, 5, proj_size=-1)
    with pytest.raises(ValueError, match=r"^proj_size: expected 0 with coupled=True, got 3$"):
        fr.LSTM(4, 5, proj_size=3, coupled=True)
    w = np.zeros((3, 5), "float32")
    given, _ = problem_with("peephole", "float32", steps=3, batch=2, input_size=4, hidden_size=5)
    del given["w_peephole"]
    with pytest.raises(ValueError, match=r"^w_hr: expected none with coupled=True$"):
        fr.lstm(**given, w_hr=w, coupled=True)
    message = f"w_ih: I = 3, H = 4, P = {2**62} are too large"
    with pytest.raises(ValueError, match=f"^{message}$"):
        fr.LSTM(3, 4, proj_size=2**62)


@variants
def test_layers(variant: str) -> None:
    options = layer_options(variant)
    layer = fr.LSTM(4, 6, 2, bidirectional=True, seed=0, dtype="float64", **options)
    for name in variant.removeprefix("wide ").replace("projection", "proj_size").split():
        assert f"{name}={options[name]}" in repr(layer)
    assert layer.parameters().keys() == layer.state_dict().keys()
    x = np.random.default_rng(0).standard_normal((7, 3, 4))
    y, _, tape = layer.forward(x)
    assert y.shape == (7, 3, 2 * (options.get("proj_size") or 6))
    grads = layer.backward(tape, np.ones_like(y))
    assert np.array_equal(layer.freeze()(x)[0], y)
    check_by_differences(layer, x, grads)
    other = fr.LSTM(4, 6, 2, bidirectional=True, dtype="float64", **options)
    other.load_state_dict(layer.state_dict())
    assert np.array_equal(other(x)[0], layer(x)[0])


@variants
@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
def test_frozen_steps(variant: str, weight_dtype: str | None) -> None:
    layer = fr.LSTM(24, 40, 2, seed=3, **layer_options(variant, 20, 55))
    frozen = layer.freeze(weight_dtype)
    x = np.random.default_rng(1).standard_normal((9, 3, 24)).astype("float32")
    y, last = frozen(x)
    state: Any = None
    for t in range(9):
        y_t, state = frozen.step(x[t], state)
        assert np.array_equal(y_t, y[t])
    assert all(np.array_equal(got, value) for got, value in zip(state, last, strict=True))
    bound = {None: 0.0, "bfloat16": 1e-2, "int8": 3e-2}[weight_dtype]
    assert reference.relative_error(y, layer(x)[0]) <= bound
