"""Optimisers against the oracle and against PyTorch's, their states, and what they refuse."""

from __future__ import annotations

import copy
import math
import pickle
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fusedrnn as fr
from oracle import optimizers as oracle
from support import same_bits

STEPS = 50
SHAPES = {"w": (7, 33), "b": (19,), "one": (1,), "none": (0, 3)}

# The class, the oracle's function, and the options of both.
RULES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sgd": ("SGD", "sgd", {}),
    "sgd-decay": ("SGD", "sgd", {"weight_decay": 0.1}),
    "momentum": ("SGD", "sgd", {"momentum": 0.9}),
    "momentum-decay": ("SGD", "sgd", {"momentum": 0.9, "weight_decay": 0.1}),
    "nesterov": ("SGD", "sgd", {"momentum": 0.8, "nesterov": True}),
    "nesterov-decay": ("SGD", "sgd", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    "adam": ("Adam", "adam", {}),
    "adam-options": ("Adam", "adam", {"betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    "adamw": ("AdamW", "adam", {"weight_decay": 0.1}),
    "adamw-bare": ("AdamW", "adam", {"weight_decay": 0.0}),
    "rmsprop": ("RMSprop", "rms_prop", {}),
    "rmsprop-decay": ("RMSprop", "rms_prop", {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    "rmsprop-momentum": ("RMSprop", "rms_prop", {"momentum": 0.9}),
    "rmsprop-centered": ("RMSprop", "rms_prop", {"centered": True, "alpha": 0.9}),
    "rmsprop-all": (
        "RMSprop",
        "rms_prop",
        {"momentum": 0.5, "centered": True, "weight_decay": 0.1},
    ),
}
rules = pytest.mark.parametrize("rule", list(RULES))
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def optimizer_of(rule: str, parameters: Any, lr: Any = 0.01) -> Any:
    name, _, options = RULES[rule]
    return getattr(fr, name)(parameters, lr, **options)


def problem(dtype: str = "float32", seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Parameters, and gradients for every step."""
    rng = np.random.default_rng(seed)

    def draw() -> dict[str, Any]:
        return {n: rng.standard_normal(s).astype(dtype) for n, s in SHAPES.items()}

    return draw(), [draw() for _ in range(STEPS)]


def copies(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: array.copy() for name, array in arrays.items()}


@rules
@dtypes
def test_oracle(rule: str, dtype: str) -> None:
    parameters, grads = problem(dtype)
    before = copies(parameters)
    optimizer = optimizer_of(rule, parameters, lambda update: 0.01 / (1 + update))
    for gradients in grads:
        optimizer.step(gradients)
    assert optimizer.updates == STEPS
    _, function, options = RULES[rule]
    options = options | ({"decoupled": True} if rule.startswith("adamw") else {})
    rates = [0.01 / (1 + update) for update in range(STEPS)]
    for name, shape in SHAPES.items():
        for at in list(np.ndindex(shape))[:40]:
            numbers = [float(g[name][at]) for g in grads]
            wanted = getattr(oracle, function)(float(before[name][at]), numbers, rates, **options)
            bound = 1e-12 if dtype == "float64" else 2e-5
            assert float(parameters[name][at]) == pytest.approx(wanted[-1], rel=bound, abs=bound)


@rules
@dtypes
def test_pytorch(rule: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    parameters, grads = problem(dtype)
    tensors = {n: torch.nn.Parameter(torch.tensor(array)) for n, array in parameters.items()}
    name, _, options = RULES[rule]
    theirs = getattr(torch.optim, name)(tensors.values(), lr=0.01, foreach=False, **options)
    mine = optimizer_of(rule, parameters)
    for gradients in grads:
        for n, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[n])
        theirs.step()
        mine.step(gradients)
    for n, tensor in tensors.items():
        expected = tensor.detach().numpy()
        error = np.linalg.norm(parameters[n] - expected)
        unit = np.finfo(dtype).eps
        assert error <= 8 * unit * max(np.linalg.norm(expected), math.sqrt(expected.size)), n


@rules
def test_threads_do_not_change_the_bits(rule: str) -> None:
    rng = np.random.default_rng(0)
    values = {n: rng.standard_normal(s).astype("float32") for n, s in (("a", 150_001), ("b", 7))}
    grads = [{n: rng.standard_normal(v.shape).astype("float32") for n, v in values.items()}] * 3
    results, before = [], fr.get_num_threads()
    try:
        for threads in (1, 2, 5):
            fr.set_num_threads(threads)
            parameters = copies(values)
            optimizer = optimizer_of(rule, parameters)
            for gradients in grads:
                optimizer.step(gradients)
            # One thread computes each number: the same ones in small arrays.
            results.append(parameters)
    finally:
        fr.set_num_threads(before)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])
    tail = {"a": values["a"][-9:].copy()}
    optimizer = optimizer_of(rule, tail)
    for gradients in grads:
        optimizer.step({"a": gradients["a"][-9:]})
    same_bits(tail, {"a": results[0]["a"][-9:]})


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM", "IndRNN"])
def test_a_layer_learns(cell: str) -> None:
    layer = getattr(fr, cell)(3, 8, 2, seed=0)
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((10, 4, 3), "float32"), rng.random((10, 4, 8), "float32") / 2
    optimizer = fr.Adam(layer.parameters(), 0.02)
    losses = []
    for _ in range(60):
        y, _, tape = layer.forward(x)
        losses.append(float(((y - target) ** 2).sum()))
        grads = layer.backward(tape, 2 * (y - target))
        fr.clip_grad_norm(grads, 1.0)
        optimizer.step(grads)  # "x" and the states' are there, and no parameters'
    assert losses[-1] < losses[0] / 2


def test_gradients_of_a_function() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 2, 3)).astype("float32")
    parameters = {"w_ih": rng.standard_normal((16, 3)), "w_hh": rng.standard_normal((16, 4))}
    parameters = {name: value.astype("float32") for name, value in parameters.items()}
    y, _, tape = fr.lstm_forward(x, **parameters)
    grads = fr.lstm_backward(tape, y)
    wanted = {
        n: value - np.float32(0.1) * getattr(grads, f"d{n}") for n, value in parameters.items()
    }
    fr.SGD(parameters, 0.1).step(grads)
    same_bits(parameters, wanted)
    h0 = np.zeros((2, 4), "float32")  # to be learnt
    fr.SGD({"h0": h0}, 1.0).step(grads)
    assert np.array_equal(h0, -grads.dh0)
    with pytest.raises(ValueError, match=r"^grads: .* with w_xh missing and none unexpected$"):
        fr.SGD(parameters | {"w_xh": h0}, 0.1).step(grads)


def test_a_state_that_is_learnt() -> None:
    """h0 is of an input where nobody made it a parameter."""
    layer = fr.GRU(3, 4, seed=0)
    h0 = np.zeros((1, 2, 4), "float32")
    y, _, tape = layer.forward(np.ones((3, 2, 3), "float32"), h0)
    grads = layer.backward(tape, y)
    fr.SGD({**layer.parameters(), "h0": h0}, 0.5).step(grads)
    assert np.array_equal(h0, -0.5 * grads["h0"])
    assert h0.any()


# What is resumed


@rules
@dtypes
@pytest.mark.parametrize("scheduled", [False, True])
def test_resuming_gives_the_same_bits(
    rule: str, dtype: str, scheduled: bool, tmp_path: Path
) -> None:
    lr: Any = fr.schedules.WarmUp(4, fr.schedules.Exponential(0.1, 0.9)) if scheduled else 0.05
    whole, grads = problem(dtype)
    half = copies(whole)
    optimizer = optimizer_of(rule, whole, lr)
    for gradients in grads:
        optimizer.step(gradients)
    first = optimizer_of(rule, half, lr)
    for gradients in grads[:20]:
        first.step(gradients)
    np.savez(tmp_path / "state.npz", **first.state_dict())
    other = copies(half)
    second = optimizer_of(rule, other, lr if scheduled else 0.7)
    with np.load(tmp_path / "state.npz") as saved:
        second.load_state_dict(saved)
    assert second.updates == 20
    assert second.lr == first.lr
    for gradients in grads[20:]:
        second.step(gradients)
    same_bits(other, whole)
    same_bits(second.state_dict(), optimizer.state_dict())


def test_state_dicts_are_copies_and_loading_is_all_or_nothing() -> None:
    parameters, grads = problem()
    optimizer = fr.Adam(parameters, 0.1)
    optimizer.step(grads[0])
    saved = optimizer.state_dict()
    assert list(saved)[:3] == ["updates", "lr", "exp_avg.w"]
    saved["exp_avg.w"][...] = 7
    assert not (optimizer.state_dict()["exp_avg.w"] == 7).any()
    before = optimizer.state_dict()
    short = {name: value for name, value in before.items() if name != "exp_avg_sq.b"}
    bad: list[tuple[type[Exception], str, Any]] = [
        (TypeError, "^state_dict: expected a mapping, got list$", [1]),
        (ValueError, "^state_dict: .* with exp_avg_sq.b missing and none unexpected$", short),
        (ValueError, "none missing and momentum_buffer.w unexpected$", {"momentum_buffer.w": 1}),
        (
            ValueError,
            r"^exp_avg.w: expected shape \(7, 33\), got",
            {"exp_avg.w": np.ones((7, 3), "f4")},
        ),
        (TypeError, "^exp_avg.b: expected dtype float32.*float64", {"exp_avg.b": np.ones(19)}),
        (TypeError, "^exp_avg_sq.b: expected an array", {"exp_avg_sq.b": [0.0] * 19}),
        (ValueError, "^updates: expected at least 0, got -1$", {"updates": -1}),
        (TypeError, "^updates: expected an int, got float64$", {"updates": np.array(1.0)}),
        (ValueError, r"^updates: expected one number, got shape \(2,\)$", {"updates": [1, 2]}),
        (ValueError, "^lr: expected a finite number of at least 0, got nan$", {"lr": math.nan}),
    ]
    for error, message, changed in bad:
        whole = isinstance(changed, list) or changed is short
        with pytest.raises(error, match=message):
            optimizer.load_state_dict(changed if whole else before | changed)
        same_bits(optimizer.state_dict(), before)
    with pytest.raises(ValueError, match=r"exp_avg.w, .* unexpected$"):
        fr.SGD(parameters, 0.1, momentum=0.9).load_state_dict(before)


def test_no_copies() -> None:
    optimizer = fr.SGD(problem()[0], 0.1)
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"^SGD: an optimiser refers to arrays of others"):
            duplicate(optimizer)


# Rates


def test_lr_can_be_read_and_set() -> None:
    parameters = {"w": np.ones(3)}
    optimizer = fr.SGD(parameters, 0.5)
    optimizer.step({"w": np.ones(3)})
    optimizer.lr *= 0.5
    assert optimizer.lr == 0.25
    optimizer.step({"w": np.ones(3)})
    assert np.array_equal(parameters["w"], np.full(3, 0.25))
    optimizer.lr = lambda update: 0.1 * update
    assert optimizer.lr == pytest.approx(0.2)
    for bad, error in (
        (-1, ValueError),
        (math.inf, ValueError),
        ("1", TypeError),
        (True, TypeError),
    ):
        with pytest.raises(error, match=r"^lr: expected a (finite )?number"):
            optimizer.lr = bad  # type: ignore[assignment]
        with pytest.raises(error, match=r"^lr: expected a (finite )?number"):
            fr.SGD(parameters, bad)  # type: ignore[arg-type]
    optimizer.lr = lambda update: math.nan
    with pytest.raises(ValueError, match=r"^lr: expected a finite number of at least 0, got nan$"):
        optimizer.step({"w": np.ones(3)})
    assert np.array_equal(parameters["w"], np.full(3, 0.25))
    assert optimizer.updates == 2


def test_schedules() -> None:
    schedules = fr.schedules
    assert [schedules.Constant(3)(k) for k in (0, 9)] == [3.0, 3.0]
    warm = schedules.WarmUp(4, 2.0)
    assert [warm(k) for k in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert [schedules.Step(1.0, 2, 0.5)(k) for k in range(5)] == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert schedules.Exponential(2.0, 0.5)(3) == 0.25
    cosine = schedules.Cosine(1.0, 10, lowest=0.2)
    assert cosine(0) == 1.0
    assert cosine(5) == pytest.approx(0.6)
    assert cosine(10) == cosine(1000) == pytest.approx(0.2)
    both = schedules.WarmUp(2, cosine)
    assert [both(k) for k in (0, 1, 2, 7)] == pytest.approx([0.5, 1.0, 1.0, 0.6])
    assert pickle.loads(pickle.dumps(both)) == both


def test_schedules_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    scheduler = torch.optim.lr_scheduler
    pairs: list[tuple[Any, Any]] = [
        (fr.schedules.Cosine(0.1, 20, 0.01), lambda o: scheduler.CosineAnnealingLR(o, 20, 0.01)),
        (fr.schedules.Exponential(0.1, 0.8), lambda o: scheduler.ExponentialLR(o, 0.8)),
        (fr.schedules.Step(0.1, 3, 0.5), lambda o: scheduler.StepLR(o, 3, 0.5)),
        (fr.schedules.WarmUp(5, 0.1), lambda o: scheduler.LinearLR(o, 1 / 5, total_iters=4)),
    ]
    for mine, make in pairs:
        sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        theirs = make(sgd)
        for update in range(20):
            assert mine(update) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
            sgd.step()
            theirs.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: s.Constant(-1), "lr: expected a finite number of at least 0, got -1"),
        (lambda s: s.WarmUp(0, 1.0), "updates: expected at least 1, got 0"),
        (lambda s: s.WarmUp(2, math.nan), "then: expected a finite number of at least 0, got nan"),
        (lambda s: s.WarmUp(2, lambda _: -1.0)(0), "then: expected .* of at least 0, got -1.0"),
        (lambda s: s.Cosine(1.0, 10, -1), "lowest: expected a finite number of at least 0, got -1"),
        (lambda s: s.Exponential(1.0, -2), "factor: expected .* of at least 0, got -2"),
        (lambda s: s.Step(1.0, 0), "every: expected at least 1, got 0"),
    ],
)
def test_wrong_schedules(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(fr.schedules)


# Arrays of all kinds


@rules
def test_layouts_give_the_same_bits(rule: str) -> None:
    """Parameters and gradients that lie anywhere, in any order."""
    parameters, grads = problem()
    wide = np.zeros((33, 14), "float32")
    record = np.zeros(19, np.dtype([("flag", "u1"), ("b", "f4")]))  # not aligned
    strange = copies(parameters) | {"w": wide[:, ::2].T, "b": record["b"]}
    for name in ("w", "b"):
        strange[name][...] = parameters[name]
    mine, other = optimizer_of(rule, parameters), optimizer_of(rule, strange)
    for gradients in grads[:5]:
        mine.step(gradients)
        flipped = np.array(gradients["b"][::-1])[::-1]
        other.step(gradients | {"w": np.asfortranarray(gradients["w"]), "b": flipped})
    same_bits({n: np.ascontiguousarray(a) for n, a in strange.items()}, parameters)
    assert not wide[:, 1::2].any()
    assert not record["flag"].any()


def test_tensors_of_pytorch_and_gradients_of_jax() -> None:
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    parameters, grads = problem()
    tensors = {name: torch.nn.Parameter(torch.tensor(a)) for name, a in parameters.items()}
    mine, other = fr.AdamW(parameters, 0.1), fr.AdamW(tensors, 0.1)
    for gradients in grads[:5]:
        mine.step(gradients)
        other.step({name: jax.numpy.asarray(array) for name, array in gradients.items()})
    same_bits({name: t.detach().numpy() for name, t in tensors.items()}, parameters)
    with pytest.raises(ValueError, match=r"^a: expected an array to write to, got a read-only one"):
        fr.SGD({"a": jax.numpy.ones(3)}, 0.1)


def test_both_dtypes_in_one_optimizer() -> None:
    single, double = (problem(dtype)[0]["w"] for dtype in ("float32", "float64"))
    grads = {"s": single.copy(), "d": double.copy()}
    alone = {"s": single.copy(), "d": double.copy()}
    fr.Adam({"s": single, "d": double}, 0.1).step(grads)
    for name, array in alone.items():
        fr.Adam({name: array}, 0.1).step({name: grads[name]})
    same_bits({"s": single, "d": double}, alone)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
@rules
def test_sixteen_bits_have_a_float32_copy(rule: str, dtype: Any) -> None:
    """Steps far below a half's spacing add up, and the parameter is the copy rounded."""
    rng = np.random.default_rng(0)
    start = {n: rng.standard_normal(s).astype(dtype) for n, s in SHAPES.items()}
    wide = {name: array.astype("float32") for name, array in start.items()}
    grads = [
        {n: rng.standard_normal(s).astype(dtype) for n, s in SHAPES.items()} for _ in range(STEPS)
    ]
    narrow = copies(start)
    mine, exact = optimizer_of(rule, narrow, 1e-4), optimizer_of(rule, wide, 1e-4)
    for gradients in grads:
        mine.step(gradients)
        exact.step({name: array.astype("float32") for name, array in gradients.items()})
    same_bits(narrow, {name: array.astype(dtype) for name, array in wide.items()})
    state = mine.state_dict()
    same_bits({n: state[f"master.{n}"] for n in SHAPES}, wide)
    resumed = copies(narrow)
    again = optimizer_of(rule, resumed, 1e-4)
    again.load_state_dict(state)
    mine.step(grads[0])
    again.step(grads[0])
    same_bits(resumed, narrow)


def test_a_sixteen_bit_parameter_that_was_set_is_what_the_copy_follows() -> None:
    layer = fr.GRU(3, 4, dtype="float16", seed=0)
    parameters = layer.parameters()
    optimizer = fr.SGD(parameters, 2.0**-20)
    grads = {name: np.ones_like(array) for name, array in parameters.items()}
    optimizer.step(grads)
    parameters["bias_ih_l0"] = np.full(12, 3.0, "float16")
    optimizer.step(grads)
    state = optimizer.state_dict()
    assert np.array_equal(state["master.bias_ih_l0"], np.full(12, 3 - 2.0**-20, "float32"))
    before = fr.GRU(3, 4, dtype="float16", seed=0).parameters()["bias_hh_l0"].astype("float32")
    assert np.array_equal(state["master.bias_hh_l0"], before - 2 * np.float32(2.0**-20))


# Numbers that are not finite, or nearly nothing


@rules
def test_not_a_number_stays_where_it_is(rule: str) -> None:
    for bad in (math.nan, math.inf):
        clean, spoilt = ({"w": np.ones(40, "float32")} for _ in range(2))
        mine, other = optimizer_of(rule, clean), optimizer_of(rule, spoilt)
        gradient = np.linspace(-1, 1, 40, dtype="float32")
        wrong = gradient.copy()
        wrong[17] = bad
        for _ in range(3):
            mine.step({"w": gradient})
            other.step({"w": wrong})
        assert not np.isfinite(spoilt["w"][17])
        rest = np.arange(40) != 17
        same_bits({"w": spoilt["w"][rest]}, {"w": clean["w"][rest]})


def test_moments_without_gradients_end_at_zero() -> None:
    parameters = {"w": np.ones(64, "float32")}
    optimizer = fr.Adam(parameters, 0.0, betas=(0.1, 0.1))
    optimizer.step({"w": np.ones(64, "float32")})
    for _ in range(60):
        optimizer.step({"w": np.zeros(64, "float32")})
    state = optimizer.state_dict()
    assert not state["exp_avg.w"].any()
    assert not state["exp_avg_sq.w"].any()


# Errors


def refused(grads: Any, error: type[Exception], message: str, **options: Any) -> None:
    """Whatever is wrong, and however late, nothing has been changed."""
    parameters = {"a": np.ones(3, "float32"), "b": np.ones((2, 2), "float32")}
    optimizer = fr.Adam(parameters, 0.1)
    before, state = copies(parameters), optimizer.state_dict()
    good = {name: np.ones_like(array) for name, array in parameters.items()}
    given = grads(good, parameters) if callable(grads) else good | grads
    with pytest.raises(error, match=f"^{message}$"):
        optimizer.step(given)
    same_bits(parameters, before)
    same_bits(optimizer.state_dict(), state)


def test_wrong_gradients() -> None:
    refused(lambda g, p: [1], TypeError, "grads: expected gradients by name, got list")
    refused(
        lambda g, p: {"a": g["a"]},
        ValueError,
        "grads: expected one for each parameter, got one with b missing and none unexpected",
    )
    refused({"b": None}, ValueError, "grads: .* with b missing and none unexpected")
    refused({"c": 1}, ValueError, "grads: .* with none missing and c unexpected")
    shape = re.escape("grads['b']: expected shape (2, 2), got (2, 3)")
    refused({"b": np.ones((2, 3), "float32")}, ValueError, shape)
    refused(
        {"b": np.ones((2, 2))}, TypeError, r"grads\['b'\]: expected dtype float32, got float64; .*"
    )
    refused({"b": [[1.0]]}, TypeError, r"grads\['b'\]: expected an array.*, got list")
    refused({"b": "no"}, TypeError, r"grads\['b'\]: expected an array.*, got str")
    memory = "grads: expected memory of its own for {}, got that of parameter {}"
    refused(lambda g, p: g | {"b": p["b"]}, ValueError, memory.format("b", "b"))
    refused(lambda g, p: g | {"a": p["b"].ravel()[:3]}, ValueError, memory.format("a", "b"))


def test_gradients_may_share_memory_with_one_another() -> None:
    parameters = {"a": np.ones(3), "b": np.ones(3)}
    gradient = np.ones(3)
    fr.SGD(parameters, 1.0).step({"a": gradient, "b": gradient})
    assert not parameters["a"].any()
    assert not parameters["b"].any()


def test_wrong_parameters() -> None:
    frozen = np.ones(3)
    frozen.flags.writeable = False
    both = np.ones((4, 6))
    bad: list[tuple[Any, type[Exception], str]] = [
        ([np.ones(3)], TypeError, "parameters: expected arrays by name, got list"),
        ({}, ValueError, "parameters: expected at least one array, got none"),
        ({3: np.ones(3)}, TypeError, "parameters: expected names, got int"),
        ({"a": 1.0}, TypeError, "a: expected an array.*, got float"),
        ({"a": np.ones(3, "int32")}, TypeError, "a: expected dtype float32, .*, got int32"),
        ({"a": np.ones(3, ">f4")}, TypeError, "a: expected .* byte order, got dtype >f4"),
        ({"a": frozen}, ValueError, "a: expected an array to write to, got a read-only one"),
        ({"a": both, "b": both[1]}, ValueError, "b: expected memory of its own, got that of a"),
    ]
    for parameters, error, message in bad:
        with pytest.raises(error, match=f"^{message}$"):
            fr.SGD(parameters, 0.1)
    fr.SGD({"a": both[:, ::2], "b": both[:, 1::2]}, 1.0).step({n: np.ones((4, 3)) for n in "ab"})
    assert not both.any()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SGD", {"momentum": -0.1}, "momentum: expected a finite number of at least 0, got -0.1"),
        ("SGD", {"nesterov": True}, "nesterov: expected False without momentum, got True"),
        ("SGD", {"weight_decay": math.nan}, "weight_decay: expected a finite number of .*"),
        ("Adam", {"betas": (0.9, 1.0)}, r"betas\[1\]: expected .* at least 0 and below 1, got 1.0"),
        ("Adam", {"betas": (0.9,)}, r"betas: expected a pair \(b1, b2\), got 1 values"),
        ("AdamW", {"eps": -1e-8}, "eps: expected a finite number of at least 0, got -1e-08"),
        (
            "RMSprop",
            {"alpha": 1},
            "alpha: expected a finite number of at least 0 and below 1, got 1",
        ),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        getattr(fr, name)({"a": np.ones(3)}, 0.1, **options)
    for option in options.keys() - {"betas"}:
        with pytest.raises(TypeError, match=f"^{option}: expected a (number|bool), got str$"):
            getattr(fr, name)({"a": np.ones(3)}, 0.1, **{option: "1"})


def test_options_are_read_only() -> None:
    optimizer = fr.Adam({"a": np.ones(3)}, 0.1)
    for name in ("betas", "eps", "weight_decay", "updates"):
        with pytest.raises(AttributeError):
            setattr(optimizer, name, 0.5)
    assert repr(optimizer) == (
        "Adam(1 parameters, lr=0.1, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)"
    )
