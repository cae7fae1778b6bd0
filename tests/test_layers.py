"""The layers: stacks, directions, layouts, steps and parameters."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import oracle
import reference
from support import (
    BOUND,
    DTYPES,
    HARD,
    LAYERS,
    Arguments,
    cast,
    check,
    dtypes,
    outputs,
    place,
    same_bits,
    stack_of,
    variants,
)

CELLS = list(LAYERS)
cells = pytest.mark.parametrize("cell", CELLS)
batch_firsts = pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch-first"])


def layer_and_problem(
    cell: str, dtype: str = "float64", *, batch_first: bool = False, **shape: Any
) -> tuple[Any, Arguments, Arguments]:
    """A layer, the arguments of its call, and those of its backward, of random content."""
    options = {key: shape.pop(key) for key in ("nonlinearity", "reset_after") if key in shape}
    problem, upstream = stack_of(cell, dtype, **shape)
    parameters = problem.pop("parameters")
    hidden_size = parameters["weight_hh_l0"].shape[1]
    layer = place().layer(
        cell,
        problem["x"].shape[2],
        hidden_size,
        sum(name.startswith("weight_hh") and name[-1].isdigit() for name in parameters),
        bias="bias_ih_l0" in parameters,
        batch_first=batch_first,
        bidirectional="weight_ih_l0_reverse" in parameters,
        dtype=dtype,
        **options,
    )
    layer.load_state_dict(parameters)
    given, above = pack(problem, "0", "state"), pack(upstream, "_n", "dstate")
    if batch_first:
        for arguments in (given, above):
            for name in arguments.keys() & {"x", "resets", "dy"}:
                arguments[name] = np.ascontiguousarray(arguments[name].swapaxes(0, 1))
    return layer, given, above


def pack(arguments: Arguments, end: str, name: str) -> Arguments:
    """h0 and c0 as the pair that a layer takes."""
    prefix = "d" if name == "dstate" else ""
    states = [arguments.pop(f"{prefix}{s}{end}", None) for s in ("h", "c")]
    states = [state for state in states if state is not None]
    return arguments | {name: None if not states else states[0] if len(states) == 1 else states}


def as_returned(state: Any) -> Any:
    return tuple(state) if isinstance(state, list) else state


def expected_results(
    against: Any, cell: str, dtype: str, shape: Arguments, options: Arguments
) -> tuple[Any, Any]:
    problem, upstream = stack_of(cell, dtype, **shape)
    got = against.stack(cell, **problem, **options)
    return got, against.stack_gradients(cell, **problem, **upstream, **options)


def check_layer(
    cell: str, dtype: str, against: Any, options: Arguments, *, batch_first: bool, **shape: Any
) -> None:
    layer, given, above = layer_and_problem(
        cell, dtype, batch_first=batch_first, **shape, **options
    )
    y, state, tape = layer.forward(**given)
    grads = layer.backward(tape, **above)
    assert list(grads)[: len(layer.parameters())] == list(layer.parameters())
    if batch_first:
        assert y.flags.c_contiguous
        assert grads["x"].flags.c_contiguous
        y, grads["x"] = y.swapaxes(0, 1), grads["x"].swapaxes(0, 1)
    expected, expected_grads = expected_results(against, cell, dtype, shape, options)
    check(outputs(y, state), expected, BOUND[dtype])
    check(grads, expected_grads, BOUND[dtype])


@variants
@dtypes
@batch_firsts
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "both"])
def test_oracle(
    cell: str, options: Arguments, dtype: str, batch_first: bool, bidirectional: bool
) -> None:
    for num_layers in (1, 2):
        shape = {"num_layers": num_layers, "bidirectional": bidirectional, **HARD}
        check_layer(cell, dtype, oracle, options, batch_first=batch_first, **shape)


@variants
@dtypes
@batch_firsts
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "both"])
@pytest.mark.parametrize("given", [True, False], ids=["all", "bare"])
def test_reference(
    cell: str, options: Arguments, dtype: str, batch_first: bool, bidirectional: bool, given: bool
) -> None:
    """Three layers, with everything optional and without any of it."""
    optional = dict.fromkeys(("bias", "initial", "lengths", "resets"), given)
    sizes = {"steps": 9, "batch": 5, "input_size": 11, "hidden_size": 19}
    shape = {"num_layers": 3, "bidirectional": bidirectional, **sizes, **optional, "seed": 1}
    check_layer(cell, dtype, reference, options, batch_first=batch_first, **shape)


@cells
@batch_firsts
def test_empty(cell: str, batch_first: bool) -> None:
    empty: list[dict[str, Any]] = [{"steps": 0}, {"batch": 0}]
    for sizes in empty:
        layer, given, above = layer_and_problem(cell, batch_first=batch_first, **sizes, **HARD)
        y, state, tape = layer.forward(**given)
        assert y.shape == (*given["x"].shape[:2], 4)
        assert layer(given["x"])[0].shape == y.shape
        grads = layer.backward(tape, **above)
        assert grads["x"].shape == given["x"].shape
        assert not any(grads[name].any() for name in layer.parameters())
        if "steps" in sizes:
            check(outputs(y, state), outputs(y, as_returned(given["state"])), bound=0.0)


@cells
@dtypes
def test_inference_and_forward_give_the_same_bits(cell: str, dtype: str) -> None:
    layer, given, above = layer_and_problem(cell, dtype, hidden_size=17, **HARD, seed=2)
    y, state, tape = layer.forward(**given)
    same_bits(outputs(*layer(**given)), outputs(y, state))
    grads = layer.backward(tape, **above)
    y[...] = np.nan
    same_bits(layer.backward(tape, **above), grads)


@cells
@dtypes
def test_layouts_give_the_same_bits(cell: str, dtype: str) -> None:
    shape: dict[str, Any] = {"steps": 6, "batch": 5, "hidden_size": 9, **HARD, "seed": 3}
    layer, given, above = layer_and_problem(cell, dtype, **shape)
    y, state, tape = layer.forward(**given)
    grads = layer.backward(tape, **above)
    layer, given, above = layer_and_problem(cell, dtype, batch_first=True, **shape)
    y2, state2, tape = layer.forward(**given)
    place().check_alike(outputs(y2.swapaxes(0, 1), state2), outputs(y, state))
    grads2 = layer.backward(tape, **above)
    grads2["x"] = grads2["x"].swapaxes(0, 1)
    place().check_alike(grads2, grads)


@cells
@dtypes
@batch_firsts
def test_step_by_step(cell: str, dtype: str, batch_first: bool) -> None:
    """The same bits as one run, from a given state and from none."""
    layer, given, _ = layer_and_problem(
        cell, dtype, batch_first=batch_first, bidirectional=False, batch=5, hidden_size=18, seed=4
    )
    for initial in (given["state"], None):
        y, last = layer(given["x"], initial)
        state = initial
        for t in range(4):
            at = (slice(None), t) if batch_first else t
            y_t, state = layer.step(given["x"][at], state)
            place().check_alike({"y": y_t}, {"y": y[at]})
        place().check_alike(outputs(y, state), outputs(y, last))


@cells
def test_states_of_any_layout(cell: str) -> None:
    """Rows of a larger array, layers turned around: read and written where they lie."""
    layer, given, above = layer_and_problem(cell, **HARD, seed=10)
    y, state, tape = layer.forward(**given)
    grads = layer.backward(tape, **above)

    def spread(array: Any) -> Any:
        runs, batch, units = array.shape
        wide = np.full((2 * runs, batch + 1, units + 3), np.nan, array.dtype)
        part = wide[::-2, 1:, 2:-1]
        part[...] = array
        return part

    def of_each(states: Any) -> Any:
        return tuple(map(spread, states)) if cell == "lstm" else spread(states)

    given["state"] = of_each(given["state"])
    above["dstate"] = of_each(above["dstate"])
    out = (np.full_like(y, np.nan), of_each(state))
    for written in out[1] if cell == "lstm" else (out[1],):
        written[...] = np.nan
    y2, state2, tape = layer.forward(**given, out=out)
    same_bits(outputs(y2, state2), outputs(y, state))
    names = [f"{name}0" for name in ("h", "c")[: 1 + (cell == "lstm")]]
    got = layer.backward(tape, **above, out={name: spread(grads[name]) for name in names})
    same_bits(got, grads)


def test_outputs_of_another_library() -> None:
    """What was given comes back, whatever x is."""
    torch = pytest.importorskip("torch")
    layer = fr.GRU(3, 5, 2, seed=0)
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype("float32")
    y, state, tape = layer.forward(x)
    out = (torch.empty(4, 2, 5), torch.empty(2, 2, 5))
    for given in (x, torch.from_numpy(x)):
        got = layer(given, out=out)
        assert got[0] is out[0]
        assert got[1] is out[1]
        same_bits({"y": out[0].numpy(), "h": out[1].numpy()}, {"y": y, "h": state})
    arrays = (np.empty_like(y), np.empty_like(state))
    got = layer(torch.from_numpy(x), out=arrays)
    assert got[0] is arrays[0]
    assert got[1] is arrays[1]
    grads = layer.backward(tape, y)
    dx = torch.empty(4, 2, 3)
    assert layer.backward(tape, y, out={"x": dx})["x"] is dx
    same_bits({"x": dx.numpy()}, {"x": grads["x"]})


@cells
def test_carried_state_continues_a_run(cell: str) -> None:
    layer, given, _ = layer_and_problem(cell, bidirectional=False, steps=8, seed=5)
    y, last = layer(given["x"])
    first, state = layer(given["x"][:3])
    rest, state = layer(given["x"][3:], state)
    place().check_alike(outputs(np.concatenate([first, rest]), state), outputs(y, last))


def test_half_a_pair_is_zero_in_the_other_half() -> None:
    layer, given, above = layer_and_problem("lstm", seed=6)
    zeros = np.zeros_like(given["state"][0])
    for i in range(2):
        half: list[Any] = [None, None]
        half[i] = given["state"][i]
        full = [zeros if value is None else value for value in half]
        same_bits(outputs(*layer(given["x"], half)), outputs(*layer(given["x"], full)))
        *_, tape = layer.forward(**given)
        half[i] = above["dstate"][i]
        full = [zeros if value is None else value for value in half]
        got, expected = (layer.backward(tape, above["dy"], d) for d in (half, full))
        check(got, expected, bound=0.0)


@cells
def test_absent_upstream_gradients_are_zero(cell: str) -> None:
    layer, given, above = layer_and_problem(cell, **HARD, seed=7)
    *_, tape = layer.forward(**given)
    dstate = above["dstate"]
    zeros = [np.zeros_like(d) for d in dstate] if cell == "lstm" else np.zeros_like(dstate)
    got = layer.backward(tape, above["dy"])
    check(got, layer.backward(tape, above["dy"], zeros), bound=0.0)
    got = layer.backward(tape, dstate=dstate)
    check(got, layer.backward(tape, np.zeros_like(above["dy"]), dstate), bound=0.0)
    assert not any(gradient.any() for gradient in layer.backward(tape).values())


@cells
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_parameters(cell: str, bias: bool, bidirectional: bool) -> None:
    layer = place().layer(cell, 3, 5, 2, bias=bias, bidirectional=bidirectional, seed=0)
    rows, width = {"rnn": 5, "gru": 15, "lstm": 20}[cell], 10 if bidirectional else 5
    expected: dict[str, tuple[int, ...]] = {}
    for k, inputs in enumerate([3, width]):
        for end in ("", "_reverse") if bidirectional else ("",):
            expected[f"weight_ih_l{k}{end}"] = (rows, inputs)
            expected[f"weight_hh_l{k}{end}"] = (rows, 5)
            if bias:
                expected[f"bias_ih_l{k}{end}"] = expected[f"bias_hh_l{k}{end}"] = (rows,)
    parameters = layer.parameters()
    assert {name: value.shape for name, value in parameters.items()} == expected
    assert list(parameters) == list(expected)
    assert {value.dtype.name for value in parameters.values()} == {"float32"}


def test_initial_parameters() -> None:
    """Uniform over the interval, repeatable, no two alike."""
    layer = fr.LSTM(40, 100, 2, seed=7)
    for value in layer.parameters().values():
        assert 0.09 < np.abs(value).max() <= 0.1
        assert abs(value.mean()) < 0.01
    same_bits(fr.LSTM(40, 100, 2, seed=7).parameters(), layer.parameters())
    assert len({value.tobytes() for value in layer.parameters().values()}) == 8
    for seed in (8, None):
        other = fr.LSTM(40, 100, 2, seed=seed).parameters()["weight_hh_l0"]
        assert not np.array_equal(other, layer.parameters()["weight_hh_l0"])


@cells
def test_parameters_are_live_and_state_dicts_are_copies(cell: str) -> None:
    layer = LAYERS[cell](2, 3, seed=0)
    x = np.ones((2, 1, 2), "float32")
    before, saved = layer(x)[0], layer.state_dict()
    layer.parameters()["weight_ih_l0"][...] = 0.5
    assert not np.array_equal(layer(x)[0], before)
    layer.load_state_dict(saved)
    saved["weight_ih_l0"][...] = 0.5
    same_bits({"y": layer(x)[0]}, {"y": before})


@cells
def test_state_dict_of_the_other_dtype_is_cast(cell: str) -> None:
    for here, there in (DTYPES, DTYPES[::-1]):
        source = place().layer(cell, 2, 3, dtype=there, seed=0)
        layer = place().layer(cell, 2, 3, dtype=here, seed=1)
        layer.load_state_dict(source.state_dict())
        same_bits(layer.parameters(), cast(source.parameters(), here))


def test_a_layer_may_load_its_own_parameters_in_another_order() -> None:
    layer = fr.RNN(3, 3, seed=0)
    before = layer.state_dict()
    own = dict(layer.parameters())
    own["weight_ih_l0"], own["weight_hh_l0"] = own["weight_hh_l0"], own["weight_ih_l0"]
    layer.load_state_dict(own)
    after = layer.parameters()
    assert np.array_equal(after["weight_ih_l0"], before["weight_hh_l0"])
    assert np.array_equal(after["weight_hh_l0"], before["weight_ih_l0"])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@cells
def test_copies_are_equal_and_independent(cell: str, duplicate: Any) -> None:
    layer, given, above = layer_and_problem(cell, hidden_size=5, seed=8)
    y, state, _ = layer.forward(**given)
    twin = duplicate(layer)
    assert repr(twin) == repr(layer)
    y2, state2, tape = twin.forward(**given)
    same_bits(outputs(y2, state2), outputs(y, state))
    assert twin.backward(tape, **above).keys() >= twin.parameters().keys()
    twin.parameters()["weight_ih_l0"][...] = 0
    assert not np.array_equal(twin(**given)[0], y)
    same_bits(outputs(*layer(**given)), outputs(y, state))


def test_repr() -> None:
    assert repr(fr.LSTM(3, 4)) == "LSTM(3, 4)"
    layers = [
        fr.RNN(3, 4, nonlinearity="relu", dtype="float64"),
        fr.GRU(3, 4, 2, reset_after=False, bias=False, batch_first=True, bidirectional=True),
    ]
    for layer in layers:
        assert repr(eval(repr(layer), vars(fr))) == repr(layer)


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64"), "d"])
def test_a_dtype_may_be_given_in_several_ways(dtype: Any) -> None:
    layer = fr.GRU(np.int32(2), np.int64(3), dtype=dtype)
    assert layer.dtype == "float64"
    assert layer(np.zeros((1, 1, 2)))[0].dtype == np.float64


# Parameters that are set


def test_what_is_assigned_is_written_into_the_layer() -> None:
    layer = fr.LSTM(2, 3, seed=0)
    p, name = layer.parameters(), "weight_ih_l0"
    array, start = p[name], p[name].copy()
    p[name] = p[name][::-1]
    assert np.array_equal(array, start[::-1])
    p[name] = np.full(array.shape, 0.1)  # float64: cast, as by load_state_dict
    assert np.array_equal(array, np.full(array.shape, np.float32(0.1)))
    p.update({name: start}, bias_ih_l0=p["bias_hh_l0"], bias_hh_l0=p["bias_ih_l0"])
    before = fr.LSTM(2, 3, seed=0).parameters()
    assert np.array_equal(array, start)
    assert np.array_equal(p["bias_ih_l0"], before["bias_hh_l0"])
    assert np.array_equal(p["bias_hh_l0"], before["bias_ih_l0"])
    assert p[name] is array
    same_bits(layer.parameters(), p)
    x = np.ones((2, 1, 2), "float32")
    assert not np.array_equal(layer(x)[0], fr.LSTM(2, 3, seed=0)(x)[0])


@cells
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_steps_downhill_by_every_way_of_writing_it(cell: str, dtype: str) -> None:
    steps = {n: np.ones_like(v) for n, v in LAYERS[cell](2, 3, dtype=dtype).parameters().items()}

    def in_place(p: Any) -> None:
        for name in p:
            p[name] -= steps[name]

    def anew(p: Any) -> None:
        for name in p:
            p[name] = p[name] - steps[name]

    def elementwise(p: Any) -> None:
        for name in p:
            p[name][...] = p[name] - steps[name]

    def together(p: Any) -> None:
        p |= {name: value - steps[name] for name, value in p.items()}
        assert type(p) is type(LAYERS[cell](2, 3).parameters())

    wanted = {
        n: v - steps[n] for n, v in LAYERS[cell](2, 3, dtype=dtype, seed=0).parameters().items()
    }
    for change in (in_place, anew, elementwise, together):
        layer = LAYERS[cell](2, 3, dtype=dtype, seed=0)
        change(layer.parameters())
        same_bits(layer.parameters(), wanted)


def test_parameters_of_another_library_may_be_assigned() -> None:
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    layer = fr.RNN(2, 3, bias=False, seed=0)
    p = layer.parameters()
    p["weight_ih_l0"] = torch.full((3, 2), 0.5)
    p["weight_hh_l0"] = jax.numpy.full((3, 3), 0.25)
    assert (layer.parameters()["weight_ih_l0"] == 0.5).all()
    assert (layer.parameters()["weight_hh_l0"] == 0.25).all()


def test_parameters_are_a_dict_for_whoever_reads_them(tmp_path: Any) -> None:
    layer = fr.GRU(2, 3, seed=0)
    p = layer.parameters()
    assert isinstance(p, dict)
    np.savez(tmp_path / "p.npz", **p)
    with np.load(tmp_path / "p.npz") as saved:
        fr.GRU(2, 3).load_state_dict(saved)
    for plain in (p.copy(), p | {}, {} | p, dict(p), {**p}, copy.copy(p), copy.deepcopy(p)):
        assert type(plain) is dict
        same_bits(plain, p)
    assert type(pickle.loads(pickle.dumps(p))) is dict
    assert not np.shares_memory(copy.deepcopy(p)["bias_ih_l0"], p["bias_ih_l0"])
    assert p.setdefault("bias_ih_l0") is p["bias_ih_l0"]
    x = np.ones((2, 1, 2), "float32")
    same_bits({"y": layer(x, parameters=p)[0]}, {"y": layer(x)[0]})


@cells
def test_structure_is_read_only(cell: str) -> None:
    """Every argument of the constructor that a layer shows."""
    layer = LAYERS[cell](2, 3, seed=0)
    names = {name for name in inspect.signature(LAYERS[cell]).parameters if hasattr(layer, name)}
    assert names >= {"input_size", "hidden_size", "num_layers", "bias", "batch_first", "dtype"}
    for owner in (layer, layer.freeze(), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        for name in names & set(dir(owner)):
            before = getattr(owner, name)
            message = re.escape(f"{name}: of {owner!r} it cannot be changed; make a new ")
            with pytest.raises(AttributeError, match=f"^{message}"):
                setattr(owner, name, before)
            with pytest.raises(AttributeError, match=f"^{message}"):
                delattr(owner, name)
            assert getattr(owner, name) == before
    layer.note = "of one's own"
    layer.note = "may change"
    del layer.note
