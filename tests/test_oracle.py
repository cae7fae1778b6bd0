"""The oracle: its semantics on numbers done by hand, its gradients against differences."""

import copy
import math

import pytest

import oracle
from reference import (
    NEWER_VARIANT_IDS,
    NEWER_VARIANTS,
    NORMED_VARIANT_IDS,
    NORMED_VARIANTS,
    VARIANT_IDS,
    VARIANTS,
    random_problem,
    random_stack,
    relative_error,
)

every_variant = pytest.mark.parametrize(
    ("cell", "options"),
    VARIANTS + NEWER_VARIANTS + NORMED_VARIANTS,
    ids=VARIANT_IDS + NEWER_VARIANT_IDS + NORMED_VARIANT_IDS,
)


def lists(value):
    """A problem of arrays as nested lists."""
    if isinstance(value, dict):
        return {name: lists(item) for name, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


# An identity RNN with weights of 1 adds up what it reads: x is 1, 10, 100, 1000 and h0 is 5. Its
# gradient adds up what comes after: dy is 1, 10, 100, 1000 and dh_n is 5.
SUMS = {
    "forward": ({}, [6, 16, 116, 1116], 1116, [1116, 1115, 1105, 1005], 1116),
    "reverse": ({"reverse": True}, [1116, 1115, 1105, 1005], 1116, [6, 16, 116, 1116], 1116),
    "length 2": ({"lengths": [2]}, [6, 16, 0, 0], 16, [16, 15, 0, 0], 16),
    "length 2, reverse": (
        {"lengths": [2], "reverse": True},
        [16, 15, 0, 0],
        16,
        [6, 16, 0, 0],
        16,
    ),
    "length 0": ({"lengths": [0], "resets": [[1]] * 4}, [0, 0, 0, 0], 5, [0, 0, 0, 0], 5),
    "length 0, reverse": (
        {"lengths": [0], "resets": [[1]] * 4, "reverse": True},
        [0, 0, 0, 0],
        5,
        [0, 0, 0, 0],
        5,
    ),
    "reset 2": (
        {"resets": [[0], [0], [1], [0]]},
        [6, 16, 100, 1100],
        1100,
        [11, 10, 1105, 1005],
        11,
    ),
    "reset 2, reverse": (
        {"resets": [[0], [0], [1], [0]], "reverse": True},
        [11, 10, 1105, 1005],
        11,
        [6, 16, 100, 1100],
        1100,
    ),
    "reset 0": (
        {"resets": [[1], [0], [0], [0]]},
        [1, 11, 111, 1111],
        1111,
        [1116, 1115, 1105, 1005],
        0,
    ),
    "reset 0, reverse": (
        {"resets": [[1], [0], [0], [0]], "reverse": True},
        [1116, 1115, 1105, 1005],
        1116,
        [6, 16, 116, 1116],
        1116,
    ),
    "reset at the length": (
        {"lengths": [2], "resets": [[0], [0], [1], [1]]},
        [6, 16, 0, 0],
        16,
        [16, 15, 0, 0],
        16,
    ),
    "reset at the length, reverse": (
        {"lengths": [2], "resets": [[0], [0], [1], [1]], "reverse": True},
        [16, 15, 0, 0],
        16,
        [6, 16, 0, 0],
        16,
    ),
    "reset within the length, reverse": (
        {"lengths": [3], "resets": [[0], [1], [0], [1]], "reverse": True},
        [1, 115, 105, 0],
        1,
        [6, 10, 110, 0],
        110,
    ),
}


@pytest.mark.parametrize(("arguments", "y", "h_n", "dx", "dh0"), SUMS.values(), ids=SUMS)
def test_running_sums(arguments, y, h_n, dx, dh0):
    numbers = [[[1.0]], [[10.0]], [[100.0]], [[1000.0]]]
    arguments = {
        "x": numbers,
        "w_ih": [[1.0]],
        "w_hh": [[1.0]],
        "h0": [[5.0]],
        "nonlinearity": "identity",
        **arguments,
    }
    out = oracle.forward("rnn", **arguments)
    grads = oracle.gradients("rnn", **arguments, dy=numbers, dh_n=[[5.0]])
    assert out == {"y": [[[v]] for v in y], "h_n": [[h_n]]}
    assert grads["dx"] == [[[v]] for v in dx]
    assert grads["dh0"] == [[dh0]]


# The gates by hand: the biases decide every gate, nothing else reaches it.
OPEN, SHUT = 40.0, -40.0


def test_lstm_gates_stand_in_the_order_i_f_g_o():
    def c_and_h(i, f, o):
        out = oracle.forward(
            "lstm",
            [[[0.0]]],
            w_ih=[[0.0]] * 4,
            w_hh=[[0.0]] * 4,
            b_ih=[i, f, 0.5, o],
            c0=[[3.0]],
        )
        return out["c_n"][0][0], out["h_n"][0][0]

    g = math.tanh(0.5)
    assert c_and_h(OPEN, SHUT, OPEN) == pytest.approx((g, math.tanh(g)))
    assert c_and_h(SHUT, OPEN, OPEN) == pytest.approx((3.0, math.tanh(3.0)))
    assert c_and_h(OPEN, OPEN, SHUT) == pytest.approx((3.0 + g, 0.0))


@pytest.mark.parametrize("reset_after", [True, False])
def test_gru_gates_stand_in_the_order_r_z_n(reset_after):
    def h(r, z):
        out = oracle.forward(
            "gru",
            [[[0.0]]],
            w_ih=[[0.0]] * 3,
            w_hh=[[0.0], [0.0], [2.0]],
            b_ih=[r, z, 0.5],
            b_hh=[0.0, 0.0, 0.25],
            h0=[[0.3]],
            reset_after=reset_after,
        )
        return out["h_n"][0][0]

    # z keeps the old state; r lets it into n: the bias b_hn goes with it only if reset_after.
    assert h(OPEN, OPEN) == pytest.approx(0.3)
    assert h(OPEN, SHUT) == pytest.approx(math.tanh(0.5 + 2.0 * 0.3 + 0.25))
    assert h(SHUT, SHUT) == pytest.approx(math.tanh(0.5 + (0.0 if reset_after else 0.25)))


def leaves(value, path=()):
    if isinstance(value, list):
        for k, item in enumerate(value):
            yield from leaves(item, (*path, k))
    else:
        yield path, value


def shifted(value, path, shift):
    value = copy.deepcopy(value)
    inner = value
    for k in path[:-1]:
        inner = inner[k]
    inner[path[-1]] += shift
    return value


def differences(loss, value, step=1e-4):
    """d loss / d value by five-point central differences, one element at a time."""

    def at(path, shift):
        return loss(shifted(value, path, shift))

    return [
        (8 * (at(p, step) - at(p, -step)) - (at(p, 2 * step) - at(p, -2 * step))) / (12 * step)
        for p, _ in leaves(value)
    ]


def inner_product(outputs, upstream):
    return math.fsum(
        a * b
        for name, seed in upstream.items()
        for (_, a), (_, b) in zip(leaves(outputs[name[1:]]), leaves(seed), strict=True)
    )


@every_variant
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "lengths-resets"])
def test_gradients_are_the_differences(cell, options, reverse, masked):
    problem, upstream = map(
        lists,
        random_problem(cell, steps=4, batch=4, hidden_size=2, lengths=masked, resets=masked),
    )
    grads = oracle.gradients(cell, **problem, **upstream, **options, reverse=reverse)
    differentiable = [name for name in problem if name not in ("lengths", "resets")]
    assert grads.keys() == {f"d{name}" for name in differentiable}
    for name in differentiable:

        def loss(value, name=name):
            out = oracle.forward(cell, **{**problem, name: value}, **options, reverse=reverse)
            return inner_product(out, upstream)

        actual = [grad for _, grad in leaves(grads[f"d{name}"])]
        assert relative_error(actual, differences(loss, problem[name])) < 1e-9, name


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_gradients_of_a_stack_are_the_differences(cell):
    problem, upstream = map(lists, random_stack(cell, steps=3, batch=3, lengths=True, resets=True))
    grads = oracle.stack_gradients(cell, **problem, **upstream)
    states = ["h0", "c0"][: 1 + (cell == "lstm")]
    assert grads.keys() == {"x", *states, *problem["parameters"]}
    for name in grads:
        where = "parameters" if name in problem["parameters"] else None

        def loss(value, name=name, where=where):
            changed = {name: value}
            if where:
                changed = {where: {**problem[where], **changed}}
            return inner_product(oracle.stack(cell, **{**problem, **changed}), upstream)

        value = problem[where][name] if where else problem[name]
        actual = [grad for _, grad in leaves(grads[name])]
        assert relative_error(actual, differences(loss, value)) < 1e-9, name


def test_a_stack_is_its_layers_one_upon_the_other():
    problem, _ = map(lists, random_stack("lstm", lengths=True, resets=True, bias=False))
    parameters, masks = problem["parameters"], {k: problem[k] for k in ("lengths", "resets")}
    x, h_n, c_n = problem["x"], [], []
    for k, suffix in enumerate(["_l0", "_l0_reverse", "_l1", "_l1_reverse"]):
        out = oracle.forward(
            "lstm",
            x,
            w_ih=parameters[f"weight_ih{suffix}"],
            w_hh=parameters[f"weight_hh{suffix}"],
            h0=problem["h0"][k],
            c0=problem["c0"][k],
            reverse="reverse" in suffix,
            **masks,
        )
        h_n.append(out["h_n"])
        c_n.append(out["c_n"])
        if "reverse" not in suffix:
            forth = out["y"]
        else:
            x = [
                [p + q for p, q in zip(*rows, strict=True)]
                for rows in zip(forth, out["y"], strict=True)
            ]
    assert oracle.stack("lstm", **problem) == {"y": x, "h_n": h_n, "c_n": c_n}


@every_variant
def test_chunks_joined_by_their_states_are_the_whole(cell, options):
    problem, upstream = random_problem(cell, steps=6, resets=True)
    problem["resets"][4] = [True, False, False]
    whole = oracle.gradients(cell, **problem, **upstream, **options)
    states = [letter for letter in "hcnm" if f"{letter}0" in problem]

    def chunk(start, end, arguments):
        cut = {
            name: arguments[name][start:end] for name in ("x", "resets", "dy") if name in arguments
        }
        return {**arguments, **cut}

    first = oracle.forward(cell, **chunk(0, 4, problem), **options)
    joined = {f"{s}0": first[f"{s}_n"] for s in states}
    late = oracle.gradients(cell, **chunk(4, 6, {**problem, **upstream, **joined}), **options)
    back = {f"d{s}_n": late[f"d{s}0"] for s in states}
    early = oracle.gradients(cell, **chunk(0, 4, {**problem, **upstream, **back}), **options)

    assert relative_error(early.pop("dx") + late.pop("dx"), whole.pop("dx")) < 1e-12
    for name, value in whole.items():
        if name[1:] in (f"{s}0" for s in states):
            assert relative_error(early[name], value) < 1e-12, name
        else:
            total = [
                a + b
                for (_, a), (_, b) in zip(leaves(early[name]), leaves(late[name]), strict=True)
            ]
            assert relative_error(total, [v for _, v in leaves(value)]) < 1e-12, name


@pytest.mark.parametrize(("cell", "options"), VARIANTS, ids=VARIANT_IDS)
def test_what_is_left_out_is_zero(cell, options):
    problem, upstream = random_problem(cell, initial=False, bias=False)
    rows, batch, hidden = len(problem["w_ih"]), 3, 3
    zeros = {"b_ih": [0.0] * rows, "b_hh": [0.0] * rows}
    zeros |= {name: [[0.0] * hidden] * batch for name in ["h0", "c0"][: 1 + (cell == "lstm")]}
    assert oracle.forward(cell, **problem, **options) == oracle.forward(
        cell, **problem, **zeros, **options
    )
    dy = {"dy": upstream["dy"]}
    without = oracle.gradients(cell, **problem, **dy, **options)
    given = oracle.gradients(cell, **problem, **zeros, **dy, **options)
    assert "db_ih" not in without
    assert "db_hh" not in without
    assert without == {name: given[name] for name in without}


def test_no_steps_and_no_sequences():
    weights = {"w_ih": [[1.0, 2.0]] * 4, "w_hh": [[3.0]] * 4}
    states = {"h0": [[4.0], [5.0]], "c0": [[6.0], [7.0]]}
    out = oracle.forward("lstm", [], **weights, **states)
    assert out == {"y": [], "h_n": states["h0"], "c_n": states["c0"]}
    grads = oracle.gradients("lstm", [], **weights, dc_n=[[1.0], [2.0]], **states)
    assert (grads["dx"], grads["dc0"]) == ([], [[1.0], [2.0]])
    assert grads["dw_ih"] == [[0.0, 0.0]] * 4
    assert oracle.forward("lstm", [], **weights, lengths=[0, 0])["h_n"] == [[0.0], [0.0]]
    assert oracle.forward("lstm", [[], []], **weights) == {"y": [[], []], "h_n": [], "c_n": []}


def test_an_argument_that_means_nothing_is_refused():
    problem, upstream = random_problem("lstm")
    with pytest.raises(KeyError):
        oracle.forward("elman", **problem)
    with pytest.raises(TypeError, match="nonlinearity"):
        oracle.forward("lstm", **problem, nonlinearity="relu")
    with pytest.raises(KeyError):
        oracle.forward("rnn", **random_problem("rnn")[0], nonlinearity="gelu")
    with pytest.raises(TypeError, match="c0"):
        oracle.forward("gru", **random_problem("gru")[0], c0=problem["c0"])
    with pytest.raises(TypeError, match="dc_n"):
        oracle.gradients("gru", **random_problem("gru")[0], dc_n=upstream["dc_n"])
    with pytest.raises(TypeError, match="w_peephole"):
        oracle.stack("lstm", **random_stack("lstm")[0], w_peephole=[1.0])
