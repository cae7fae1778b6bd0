"""Derivatives along a direction, of results and of gradients, against the oracle's dual numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
from reference import NEWER_VARIANTS, NORMED_VARIANTS, VARIANTS
from support import Arguments, by_name, check, directions, dtypes, place, problem_of, stack_of

# A derivative of a gradient has one factor more that was rounded than a gradient has.
BOUND = {"float32": 4e-6, "float64": 1e-12}
STATES = {"lstm": "hc", "slstm": "hcnm"}
ACTIVATIONS = (("hard_sigmoid", 0.3, 0.4), "softsign", ("elu", 0.7))

# Of LSTMs with options: arguments beside those of a plain one, by their shapes in H and P.
OPTIONS: dict[str, Arguments] = {
    "peephole": {"w_peephole": True},
    "projection": {"w_hr": True},
    "coupled": {"coupled": True},
    "clipped": {"clip": 0.8, "cell_clip": 0.5, "w_peephole": True},
    "activations": {"activations": ACTIVATIONS},
}


def along_of(given: Arguments, seed: int = 3) -> Arguments:
    """A direction: a tangent of every array of numbers."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(value.shape).astype(value.dtype)
        for name, value in given.items()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    }


def jvp(cell: str, along: Arguments, **given: Any) -> tuple[Arguments, Arguments]:
    """Values and tangents of the outputs by name."""
    values, tangents = getattr(fr, f"{cell}_jvp")(place().give(along), **place().give(given))
    return read(values), read(tangents)


def read(results: Any) -> Arguments:
    y, states, *_ = results
    states = states if isinstance(states, tuple) else (states,)
    named = {"y": y, **{f"{s}_n": a for s, a in zip("hcnm", states, strict=False)}}
    return place().read(named)


def second(cell: str, along: Arguments, upstream: Arguments, **given: Any) -> Arguments:
    """What double backward returns, beside the results of the forward function."""
    *_, tape = getattr(fr, f"{cell}_forward")(**place().give(given))
    return place().read(
        getattr(fr, f"{cell}_double_backward")(tape, place().give(along), **place().give(upstream))
    )


def check_both(
    cell: str, given: Arguments, upstream: Arguments, dtype: str, **options: Any
) -> None:
    along = along_of(given)
    outputs, grads = oracle.directional(cell, **given, **options, along=along, **upstream)
    values, tangents = jvp(cell, along, **given, **options)
    plain = read(getattr(fr, cell)(**place().give(given), **options))
    check(values, plain, BOUND[dtype])
    check(tangents, {name: outputs[name] for name in tangents}, BOUND[dtype])
    found = second(cell, along, upstream, **given, **options)
    exact = {name[1:]: value for name, value in grads.items()}
    exact |= {f"d{name}": outputs[name] for name in outputs}
    assert exact.keys() - {"b_ih", "b_hh"} <= found.keys()
    check(found, {name: exact[name] for name in found}, BOUND[dtype])


@pytest.mark.parametrize(
    ("cell", "options"),
    [*VARIANTS, *NEWER_VARIANTS, *NORMED_VARIANTS],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
@dtypes
@directions
def test_cells(cell: str, options: Arguments, dtype: str, reverse: bool) -> None:
    given, upstream = problem_of(
        cell, dtype, steps=6, batch=4, input_size=3, hidden_size=5, lengths=True, resets=True
    )
    given["mask"] = np.random.default_rng(5).random(given["x"].shape[:2]) < 0.7
    given["reset_h"] = np.random.default_rng(6).standard_normal(5).astype(dtype)
    check_both(cell, given, upstream, dtype, **options, reverse=reverse)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@dtypes
def test_options_of_the_lstm(options: Arguments, dtype: str) -> None:
    H, P = 9, 4
    given, upstream = problem_of("lstm", dtype, steps=5, batch=3, input_size=2, hidden_size=H)
    rng = np.random.default_rng(8)
    options = dict(options)
    if options.pop("w_peephole", False):
        given["w_peephole"] = rng.standard_normal(3 * H).astype(dtype)
    if options.pop("w_hr", False):
        given["w_hr"] = rng.standard_normal((P, H)).astype(dtype)
        given["w_hh"] = given["w_hh"][:, :P].copy()
        for arguments in (given, upstream):
            for name in arguments.keys() & {"h0", "dh_n", "dy"}:
                arguments[name] = arguments[name][..., :P].copy()
    if options.get("coupled"):
        for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
            given[name] = given[name][: 3 * H].copy()
    upstream["dc"] = rng.standard_normal((5, 3, H)).astype(dtype)
    check_both("lstm", given, upstream, dtype, **options)


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_activations_and_clip(cell: str) -> None:
    given, upstream = problem_of(cell, "float64", steps=5, batch=3, input_size=2, hidden_size=6)
    options: Arguments = {"clip": 0.9}
    if cell == "gru":
        options["activations"] = ("softplus", ("scaled_tanh", 0.7, 1.3))
    else:
        options["nonlinearity"] = ("leaky_relu", 0.2)
    check_both(cell, given, upstream, "float64", **options)


def test_whole_vectors_and_tails_agree_with_differences() -> None:
    """Sizes of many panels, tiles and blocks of rows, with two threads and with one."""
    given, upstream = problem_of(
        "gru", "float64", steps=40, batch=9, input_size=33, hidden_size=70, lengths=True
    )
    along = along_of(given)
    step = 1e-6

    def moved(sign: float) -> Arguments:
        return given | {name: given[name] + sign * step * t for name, t in along.items()}

    found = second("gru", along, upstream, **given)
    grads = []
    for sign in (1.0, -1.0):
        y, h_n, tape = fr.gru_forward(**moved(sign))
        there = {name[1:]: g for name, g in by_name(fr.gru_backward(tape, **upstream)).items()}
        grads.append(there | {"dy": y, "dh_n": h_n})
    expected = {name: (grads[0][name] - grads[1][name]) / (2 * step) for name in found}
    check(found, expected, 1e-8)
    threads = fr.get_num_threads()
    try:
        fr.set_num_threads(1)
        alone = second("gru", along, upstream, **given)
    finally:
        fr.set_num_threads(threads)
    for name, value in found.items():
        assert np.array_equal(value, alone[name]), name


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@dtypes
def test_layers(cell: str, dtype: str) -> None:
    given, upstream = stack_of(
        cell, dtype, steps=5, batch=3, input_size=3, hidden_size=4, lengths=True, resets=True
    )
    layer = place().layer(cell, 3, 4, 2, bidirectional=True, dtype=dtype)
    layer.load_state_dict(given["parameters"])
    states = STATES.get(cell, "h")
    state = given["h0"] if cell == "gru" else (given["h0"], given["c0"])
    along = along_of(given) | along_of(given["parameters"], seed=4)
    lengths, resets = given["lengths"], given["resets"]
    outputs, grads = oracle.stack_directional(cell, **given, along=along, **upstream)
    (_, _), (ty, tstate) = layer.jvp(along, given["x"], state, lengths, resets)
    tstates = tstate if isinstance(tstate, tuple) else (tstate,)
    tangents = {"y": ty, **{f"{s}_n": a for s, a in zip(states, tstates, strict=True)}}
    check(tangents, {name: outputs[name] for name in tangents}, BOUND[dtype])
    *_, tape = layer.forward(given["x"], state, lengths, resets)
    dstate = [upstream[f"d{s}_n"] for s in states]
    found = layer.double_backward(
        tape, along, upstream["dy"], tuple(dstate) if len(dstate) > 1 else dstate[0]
    )
    check({"y": found.pop("dy")}, {"y": outputs["y"]}, BOUND[dtype])
    found.pop("dstate")
    found.pop("dcells", None)
    check(found, {name: grads[name] for name in found}, BOUND[dtype])


def test_layers_that_drop_batch_first() -> None:
    """Backward draws the elements of forward again, and so does double backward."""
    layer = fr.LSTM(3, 5, 2, dropout=0.4, batch_first=True, dtype="float64", seed=1)
    rng = np.random.default_rng(2)
    x, dy, dc = (rng.standard_normal((4, 6, n)) for n in (3, 5, 5))
    along = along_of({"x": x, **layer.parameters()})
    step, drawn = 1e-6, layer.dropout_state

    def grads_at(e: float) -> Arguments:
        layer.dropout_state = drawn
        parameters = {name: p + e * along[name] for name, p in layer.parameters().items()}
        y, _, tape = layer.forward(x + e * along["x"], parameters=parameters)
        return {**layer.backward(tape, dy, dcells=dc), "dy": y}

    above, below = grads_at(step), grads_at(-step)
    layer.dropout_state = drawn
    *_, tape = layer.forward(x)
    found = layer.double_backward(tape, along, dy, dcells=dc)
    expected = {name: (above[name] - below[name]) / (2 * step) for name in above}
    check({name: found[name] for name in expected}, expected, 1e-8)
    (y, _), (ty, _) = layer.jvp({"x": along["x"]}, x)
    assert y.shape == ty.shape == (4, 6, 5)
    assert np.array_equal(y, layer(x)[0])  # nothing is dropped here


@pytest.mark.parametrize("cell", ["LSTM", "SLSTM"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
def test_layers_show_the_tangents_of_cells(cell: str, batch_first: bool) -> None:
    layer = getattr(fr, cell)(
        3, 5, 2, bidirectional=True, batch_first=batch_first, dtype="float64", seed=1
    )
    x = np.random.default_rng(2).standard_normal((4, 6, 3))
    along = along_of({"x": x, **layer.parameters()})
    step = 1e-6

    def at(e: float) -> Any:
        parameters = {name: p + e * along[name] for name, p in layer.parameters().items()}
        return layer(x + e * along["x"], parameters=parameters, return_cells=True)[2:]

    values, tangents = layer.jvp(along, x, return_cells=True)
    cells = at(0.0)
    assert len(values) == len(tangents) == 2 + len(cells)
    for i, (above, below, cell_states) in enumerate(zip(at(step), at(-step), cells, strict=True)):
        assert np.allclose(values[2 + i], cell_states, rtol=1e-12)
        assert np.allclose(tangents[2 + i], (above - below) / (2 * step), atol=1e-8)
    with pytest.raises(ValueError, match=r"^return_cells: expected False for GRU\(3, 4\)"):
        fr.GRU(3, 4).jvp({}, x.astype("f4"), return_cells=True)


def test_hessians_are_symmetric() -> None:
    given, upstream = problem_of("lstm", "float64", steps=7, batch=3, input_size=4, hidden_size=6)
    u, v = along_of(given, 1), along_of(given, 2)
    hu, hv = (second("lstm", d, upstream, **given) for d in (u, v))
    left = sum(float(np.sum(u[name] * hv[name])) for name in u)
    right = sum(float(np.sum(v[name] * hu[name])) for name in v)
    assert left == pytest.approx(right, rel=1e-11)


def test_without_an_axis_of_the_batch_and_of_absent_arguments() -> None:
    rng = np.random.default_rng(0)
    x, w_ih, w_hh, t = (rng.standard_normal(s) for s in ((5, 2), (9, 2), (9, 3), (3,)))
    (y, h_n), (ty, th) = fr.gru_jvp({"h0": t, "b_hh": np.ones(9)}, x, w_ih, w_hh, lengths=4)
    assert y.shape == ty.shape == (5, 3)
    assert h_n.shape == th.shape == (3,)
    _, (batched, _) = fr.gru_jvp(
        {"h0": t[None], "b_hh": np.ones(9)}, x[:, None], w_ih, w_hh, lengths=[4]
    )
    assert np.array_equal(ty, batched[:, 0])
    assert np.any(ty[:4] != 0)
    assert np.all(ty[4] == 0)


def test_padding_that_shows_the_last_state_and_cells() -> None:
    given, _ = problem_of("lstm", "float64", steps=4, batch=2, input_size=2, hidden_size=3)
    given["lengths"] = [2, 4]
    along = along_of(given)
    (_, _, c), (ty, _, tc) = fr.lstm_jvp(along, **given, padding="last", return_cells=True)
    outputs, _ = oracle.directional("lstm", **given, along=along, padding="last")
    check({"y": ty, "c": tc}, {"y": outputs["y"], "c": outputs["c"]}, 1e-12)
    assert c.shape == tc.shape == (4, 2, 3)


def test_results_are_of_the_kind_of_x() -> None:
    torch = pytest.importorskip("torch")
    given, upstream = problem_of("gru", "float32", steps=4, batch=2, input_size=3, hidden_size=5)
    tensors = {name: torch.from_numpy(value) for name, value in given.items()}
    along = {name: torch.ones_like(value) for name, value in tensors.items()}
    (y, _), (ty, _) = fr.gru_jvp(along, **tensors)
    assert all(
        isinstance(array, torch.Tensor) and array.dtype == torch.float32 for array in (y, ty)
    )
    *_, tape = fr.gru_forward(**tensors)
    found = fr.gru_double_backward(tape, along, torch.from_numpy(upstream["dy"]))
    assert all(isinstance(array, torch.Tensor) for array in found.values())


def test_against_pytorchs_double_backward() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.GRU(3, 5).double()
    x, dy = (torch.randn(6, 2, n, dtype=torch.float64, requires_grad=True) for n in (3, 5))
    y, _ = net(x)
    inputs = (x, *net.parameters())
    grads = torch.autograd.grad(y, inputs, dy, create_graph=True)
    v = [torch.randn_like(g) for g in grads]
    expected = torch.autograd.grad(grads, (*inputs, dy), v)
    names = ("x", "w_ih", "w_hh", "b_ih", "b_hh")
    weights = [w.detach() for w in net.parameters()]
    *_, tape = fr.gru_forward(x.detach(), *weights)
    found = fr.gru_double_backward(tape, dict(zip(names, v, strict=True)), dy.detach())
    wanted = dict(zip((*names, "dy"), expected, strict=True))
    check(
        {name: found[name].numpy() for name in wanted},
        {name: value.numpy() for name, value in wanted.items()},
        1e-12,
    )


ERRORS: dict[str, tuple[Any, str]] = {
    "an unknown name": (
        lambda a: fr.rnn_jvp({"w_hhh": a["w_hh"]}, **a),
        r"tangents: expected names among x, .*, got 'w_hhh'; did you mean 'w_hh'\?",
    ),
    "a shape": (
        lambda a: fr.rnn_jvp({"w_hh": a["w_ih"]}, **a),
        r"tangents\['w_hh'\]: expected shape \(3, 3\), got \(3, 2\)",
    ),
    "no mapping": (
        lambda a: fr.rnn_jvp(a["x"], **a),
        r"tangents: expected arrays by name, got ndarray",
    ),
    "a dtype": (
        lambda a: fr.rnn_jvp({"x": a["x"].astype("float32")}, **a),
        r"tangents\['x'\]: expected dtype float64, got float32",
    ),
    "sixteen bits": (
        lambda a: fr.rnn_jvp({}, **{name: v.astype("float16") for name, v in a.items()}),
        r"x: expected dtype float32 or float64 \(derivatives along a direction\), got float16",
    ),
    "rounded products": (
        lambda a: fr.rnn_jvp(
            {}, **{n: v.astype("f4") for n, v in a.items()}, compute_dtype="bfloat16"
        ),
        r"compute_dtype: expected None \(derivatives along a direction are not rounded\), got 'bf",
    ),
    "arrays to write to": (
        lambda a: fr.rnn_jvp({}, **a, out=(a["x"], a["x"])),
        r"out: expected None \(derivatives along a direction\), got arrays",
    ),
    "an unknown option": (
        lambda a: fr.rnn_jvp({}, **a, length=[1]),
        r"got an unexpected keyword argument 'length'",
    ),
    "a direction": (
        lambda a: fr.rnn_double_backward(fr.rnn_forward(**a)[-1], {"c0": a["x"]}),
        r"directions: expected names among x, w_ih, w_hh, .*, got 'c0'",
    ),
    "another tape": (
        lambda a: fr.gru_double_backward(fr.rnn_forward(**a)[-1], {}),
        r"tape: expected the tape of gru_forward, got that of rnn_forward",
    ),
    "complex numbers": (
        lambda a: fr.rnn(**{name: v.astype("complex64") for name, v in a.items()}),
        r"x: expected dtype float32, float64, bfloat16 or float16, got complex64",
    ),
    "complex numbers of a layer": (
        lambda a: fr.RNN(2, 3, dtype="complex64"),
        r"dtype: expected 'float32', 'float64', 'bfloat16' or 'float16', got 'complex64'",
    ),
    "dual numbers": (
        lambda a: fr.rnn(**a, compute_dtype="dual"),
        r"compute_dtype: expected None, .*, got 'dual'",
    ),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call: Any, message: str) -> None:
    rng = np.random.default_rng(0)
    arguments = {
        "x": rng.standard_normal((4, 2, 2)),
        "w_ih": rng.standard_normal((3, 2)),
        "w_hh": rng.standard_normal((3, 3)),
    }
    with pytest.raises((ValueError, TypeError), match=message):
        call(arguments)
