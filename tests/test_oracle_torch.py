"""The oracle against PyTorch's float64 autograd, where PyTorch has the cell.

PyTorch knows nothing of resets or of a single reverse direction: a sequence is cut at its resets
by hand, each piece is run (turned round for reverse) and the pieces are laid side by side.
"""

import itertools

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import oracle
from reference import random_problem, random_stack, relative_error

BOUND = 1e-12
MODULES = {
    "rnn-tanh": ("rnn", {"nonlinearity": "tanh"}, torch.nn.RNN, {"nonlinearity": "tanh"}),
    "rnn-relu": ("rnn", {"nonlinearity": "relu"}, torch.nn.RNN, {"nonlinearity": "relu"}),
    "gru": ("gru", {"reset_after": True}, torch.nn.GRU, {}),
    "lstm": ("lstm", {}, torch.nn.LSTM, {}),
}
NAMES = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}


def tensors(arrays):
    """Float64 leaves of the autograd graph."""
    return {
        name: torch.tensor(value, requires_grad=value.dtype == np.float64)
        for name, value in arrays.items()
    }


def pieces(length, resets, reverse):
    """(start, end, whether the state before it is cut), in the order of computation."""
    inner = [t for t in range(1, length) if resets[t]]
    bounds = list(itertools.pairwise([0, *inner, length])) if length else []
    if reverse:
        return [(start, end, k > 0) for k, (start, end) in enumerate(reversed(bounds))]
    return [(start, end, k > 0 or bool(resets[0])) for k, (start, end) in enumerate(bounds)]


def run_one_by_one(peer, problem, reverse):
    """y, h_n (and c_n), each sequence alone, each piece of it alone."""
    steps, batch, _ = problem["x"].shape
    hidden = problem["w_hh"].shape[1]
    weights = {NAMES[short]: value for short, value in problem.items() if short in NAMES}
    letters = "hc" if "c0" in problem else "h"
    ys, finals = [], {letter: [] for letter in letters}
    for b in range(batch):
        states = [problem[f"{s}0"][b] for s in letters]
        y = torch.zeros(steps, hidden, dtype=torch.float64)
        length = int(problem["lengths"][b])
        for start, end, cut in pieces(length, problem["resets"][:, b], reverse):
            if cut:
                states = [torch.zeros_like(s) for s in states]
            x = problem["x"][start:end, b]
            packed = [s[None] for s in states]
            out, new = torch.func.functional_call(
                peer,
                weights,
                (x.flip(0) if reverse else x, tuple(packed) if len(packed) > 1 else packed[0]),
            )
            states = [s[0] for s in (new if isinstance(new, tuple) else (new,))]
            y[start:end] = out.flip(0) if reverse else out
        ys.append(y)
        for letter, state in zip(letters, states, strict=True):
            finals[letter].append(state)
    stacked = {f"{letter}_n": torch.stack(rows) for letter, rows in finals.items()}
    return {"y": torch.stack(ys, dim=1), **stacked}


def grads_of(outputs, upstream, variables):
    loss = sum((outputs[name[1:]] * torch.tensor(g)).sum() for name, g in upstream.items())
    found = torch.autograd.grad(loss, list(variables.values()), materialize_grads=True)
    return dict(zip(variables, found, strict=True))


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert relative_error(actual[name], value.detach().numpy()) < BOUND, name


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("resets", [False, True], ids=["no resets", "resets"])
@pytest.mark.parametrize("lengths", [False, True], ids=["no lengths", "lengths"])
def test_one_direction(name, reverse, bias, resets, lengths):
    cell, options, module, keywords = MODULES[name]
    problem, upstream = random_problem(
        cell, steps=7, batch=4, bias=bias, resets=resets, lengths=lengths, seed=3
    )
    full = {
        "lengths": np.full(4, 7),
        "resets": np.zeros((7, 4), dtype=bool),
        **problem,
    }
    leaves = tensors(full)
    peer = module(2, 3, bias=bias, dtype=torch.float64, **keywords)
    expected = run_one_by_one(peer, leaves, reverse)
    variables = {k: v for k, v in leaves.items() if v.requires_grad}

    options = {**options, "reverse": reverse}
    assert_same(oracle.forward(cell, **problem, **options), expected)
    grads = grads_of(expected, upstream, variables)
    assert_same(
        oracle.gradients(cell, **problem, **upstream, **options),
        {f"d{k}": v for k, v in grads.items()},
    )


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "bidirectional"])
@pytest.mark.parametrize("packed", [False, True], ids=["whole", "packed"])
def test_stack(name, bidirectional, packed):
    cell, options, module, keywords = MODULES[name]
    problem, upstream = random_stack(
        cell, num_layers=3, bidirectional=bidirectional, steps=6, input_size=4, hidden_size=3
    )
    if packed:
        problem["lengths"] = np.array([2, 6, 1])  # PyTorch packs no empty sequence
    parameters = tensors(problem["parameters"])
    x = torch.tensor(problem["x"], requires_grad=True)
    states = tensors({k: problem[k] for k in ("h0", "c0") if k in problem})
    peer = module(4, 3, 3, bidirectional=bidirectional, dtype=torch.float64, **keywords)
    assert parameters.keys() == {name for name, _ in peer.named_parameters()}

    given = x
    if packed:
        given = pack_padded_sequence(x, torch.tensor(problem["lengths"]), enforce_sorted=False)
    initial = tuple(states.values())
    y, final = torch.func.functional_call(
        peer, parameters, (given, initial if cell == "lstm" else initial[0])
    )
    if packed:
        y, _ = pad_packed_sequence(y, total_length=6)
    final = final if isinstance(final, tuple) else (final,)
    names = ("h_n", "c_n")[: len(final)]
    expected = {"y": y, **dict(zip(names, final, strict=True))}

    assert_same(oracle.stack(cell, **problem, **options), expected)
    grads = grads_of(expected, upstream, {"x": x, **states, **parameters})
    assert_same(oracle.stack_gradients(cell, **problem, **upstream, **options), grads)


# Cells with layer normalisation, of which PyTorch has the norm and not the cell.


def lstm_layer_norm(w, x, h, c):
    """Ba et al. (2016), by PyTorch's operations."""
    norm = torch.nn.functional.layer_norm
    gates = w["w_ih"].shape[:1]
    v = norm(x @ w["w_ih"].T, gates, w["g_ih"], w["b_ih"])
    v = v + norm(h @ w["w_hh"].T, gates, w["g_hh"], w["b_hh"])
    i, f, g, o = v.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(norm(c, c.shape[-1:], w["g_c"], w["b_c"])), c


def gru_layer_norm(w, x, h):
    """Ba et al. (2016), by PyTorch's operations."""

    def normed(v, gain, bias):
        sizes = [2 * h.shape[-1], h.shape[-1]]
        parts = zip(*(whole.split(sizes, -1) for whole in (v, gain, bias)), strict=True)
        norms = [torch.nn.functional.layer_norm(v, v.shape[-1:], g, b) for v, g, b in parts]
        return torch.cat(norms, -1).chunk(3, -1)

    a_r, a_z, a_n = normed(x @ w["w_ih"].T, w["g_ih"], w["b_ih"])
    u_r, u_z, u_n = normed(h @ w["w_hh"].T, w["g_hh"], w["b_hh"])
    n = torch.tanh(a_n + torch.sigmoid(a_r + u_r) * u_n)
    return (torch.lerp(n, h, torch.sigmoid(a_z + u_z)),)


def gru_world_model(w, x, h):
    """Hafner et al. (2020): as their GRUCell, one product of [x, h]."""
    v = torch.cat([x, h], -1) @ torch.cat([w["w_ih"], w["w_hh"]], 1).T
    v = torch.nn.functional.layer_norm(v, v.shape[-1:], w["g"], w["b"], eps=1e-3)
    reset, new, update = v.chunk(3, -1)
    new = torch.tanh(torch.sigmoid(reset) * new)
    update = torch.sigmoid(update)
    return (update * new + (1 - update) * h,)


@pytest.mark.parametrize("step", [lstm_layer_norm, gru_layer_norm, gru_world_model])
@pytest.mark.parametrize("hidden", [3, 8])  # of fewer, all gradients are nearly zero
def test_layer_norm(step, hidden):
    cell = step.__name__
    problem, upstream = random_problem(
        cell, steps=5, batch=3, input_size=4, hidden_size=hidden, seed=4
    )
    problem["x"][1] = 0  # a product without variance
    leaves = tensors(problem)
    letters = "hc" if "c0" in problem else "h"
    states, rows = tuple(leaves[f"{s}0"] for s in letters), []
    for x in leaves["x"]:
        states = step(leaves, x, *states)
        rows.append(states[0])
    finals = {f"{s}_n": state for s, state in zip(letters, states, strict=True)}
    expected = {"y": torch.stack(rows), **finals}
    assert_same(oracle.forward(cell, **problem), expected)
    grads = grads_of(expected, upstream, leaves)
    assert_same(
        oracle.gradients(cell, **problem, **upstream), {f"d{k}": v for k, v in grads.items()}
    )
