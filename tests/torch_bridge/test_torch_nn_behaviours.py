"""What PyTorch's own tests (test_nn.py) ask of its recurrent modules, asked of both."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence
from torch.utils._pytree import tree_map

import fusedrnn.torch as bridge
from torch_support import CELLS, LAYERS, check_same, gradients, pair, total

T, B, INPUT, H = 5, 3, 4, 6
MODULES = (*LAYERS, *CELLS)
modules = pytest.mark.parametrize("name", MODULES)
layers = pytest.mark.parametrize("name", LAYERS)
cells = pytest.mark.parametrize("name", CELLS)


@pytest.fixture(autouse=True)
def _as_torch_tests_run() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def input_of(name: str) -> torch.Tensor:
    return torch.randn((B, INPUT) if name in CELLS else (T, B, INPUT))


def y_of(results: Any) -> torch.Tensor:
    return results if isinstance(results, torch.Tensor) else results[0]


def outcome(run: Callable[[], Any]) -> Any:
    """Results, or what was raised."""
    try:
        return run()
    except Exception as error:
        return type(error), str(error)


@modules
def test_backward_again_with_a_graph_that_was_kept(name: str) -> None:
    """test_rnn_retain_variables"""
    _, ours = pair(name, INPUT, H)
    result = total(ours(input_of(name)))
    result.backward(retain_graph=True)
    first = [parameter.grad.clone() for parameter in ours.parameters()]
    for _ in range(3):
        ours.zero_grad()
        result.backward(retain_graph=True)
        check_same([parameter.grad for parameter in ours.parameters()], first, 0.0)
    result.backward()
    check_same([parameter.grad for parameter in ours.parameters()], [2 * g for g in first])
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        result.backward()


@cells
def test_cells_step_by_step(name: str) -> None:
    """test_RNN_cell, test_LSTM_cell: gradients flow through all steps, and stop where detached."""
    theirs, ours = pair(name, INPUT, H)
    x = torch.randn(T, B, INPUT, requires_grad=True)

    def steps(cell: Any, detached: int) -> Any:
        hx = None
        for t in range(T):
            hx = cell(x[t], hx)
            if t == detached:
                hx = tree_map(torch.Tensor.detach, hx)
        return hx

    for detached in (-1, 2):
        found, expected = steps(ours, detached), steps(theirs, detached)
        check_same(found, expected)
        got = gradients(ours, found, x)
        check_same(got, gradients(theirs, expected, x))
        assert bool(got[0][:3].any()) == (detached < 0)


@cells
def test_cells_do_not_broadcast(name: str) -> None:
    """test_RNN_cell_no_broadcasting, test_LSTM_cell_forward_hidden_size, ..._input_size"""
    theirs, ours = pair(name, INPUT, H)
    pairs = ((B, INPUT, 1, H), (1, INPUT, B, H), (B, INPUT, B, 1), (B, INPUT + 1, B, H))
    for rows, width, hidden_rows, hidden_width in pairs:
        h = torch.zeros(hidden_rows, hidden_width)
        hx = (h, h) if name == "LSTMCell" else h
        x = torch.randn(rows, width)
        expected = outcome(lambda x=x, hx=hx: theirs(x, hx))
        assert expected[0] is RuntimeError
        assert outcome(lambda x=x, hx=hx: ours(x, hx)) == expected
    if name == "LSTMCell":
        good, bad = torch.zeros(B, H), torch.zeros(B, H + 1)
        for hx in ((good, bad), (bad, good)):
            expected = outcome(lambda hx=hx: theirs(torch.randn(B, INPUT), hx))
            assert outcome(lambda hx=hx: ours(torch.randn(B, INPUT), hx)) == expected


def test_sizes_of_nothing() -> None:
    """test_RNN_input_size_zero, test_error_RNN_seq_len_zero, and no sequences or units"""
    for name in LAYERS:
        for sizes in ((0, H), (INPUT, 0), (INPUT, H, 0)):
            expected = outcome(lambda name=name, sizes=sizes: getattr(nn, name)(*sizes))
            assert expected[0] is ValueError
            assert outcome(lambda name=name, sizes=sizes: getattr(bridge, name)(*sizes)) == expected
        theirs, ours = pair(name, INPUT, H)
        expected = outcome(lambda m=theirs: m(torch.zeros(0, B, INPUT)))
        assert expected[0] is RuntimeError
        y, state = ours(torch.zeros(0, B, INPUT))  # which have a meaning: the state stands still
        assert y.shape == (0, B, H)
        assert not torch.cat([*state]).any()
        x = torch.zeros(T, 0, INPUT, requires_grad=True)
        check_same(ours(x), theirs(x))
        check_same(gradients(ours, ours(x), x), gradients(theirs, theirs(x), x))
    for name in CELLS:  # which torch.nn makes of no units at all
        with pytest.raises(ValueError, match="hidden_size: expected at least 1, got 0"):
            getattr(bridge, name)(INPUT, 0)


@layers
def test_dropout_that_makes_no_sense(name: str) -> None:
    """test_invalid_dropout_p, and of types that are no numbers"""
    for rate in (-0.1, 1.1, True, "0.1"):
        expected = outcome(lambda rate=rate: getattr(nn, name)(INPUT, H, 2, dropout=rate))
        assert expected[0] is ValueError
        found = outcome(lambda rate=rate: getattr(bridge, name)(INPUT, H, 2, dropout=rate))
        assert found == expected
    for module in (nn, bridge):
        with pytest.warns(UserWarning, match="num_layers greater than 1"):
            getattr(module, name)(INPUT, H, dropout=0.2)


@layers
def test_dropout_is_drawn_from_torchs_generator(name: str) -> None:
    """test_RNN_dropout, test_RNN_dropout_state, test_RNN_change_dropout"""
    ours = getattr(bridge, name)(INPUT, H, 2, dropout=0.5)
    x = input_of(name)

    def seeded(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return y_of(ours(x))

    assert torch.equal(seeded(1), seeded(1))
    assert not torch.equal(seeded(1), seeded(2))
    state = torch.get_rng_state()
    first = ours(x)[0]
    assert not torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(state)
    assert torch.equal(ours(x)[0], first)
    again = pickle.loads(pickle.dumps(ours))
    torch.set_rng_state(state)
    assert torch.equal(again(x)[0], first)
    kept = ours.eval()(x)[0]
    assert torch.equal(kept, seeded(3))
    ours.train().dropout = 0.0
    assert torch.equal(ours(x)[0], kept)
    ours.dropout = 0.9
    zeros = torch.stack([seeded(seed) for seed in range(3)])
    assert not torch.equal(zeros[0], zeros[1])


@modules
def test_weight_norm(name: str) -> None:
    """test_rnn_weight_norm, as parametrisation and in its old form"""
    theirs, ours = pair(name, INPUT, H)
    x = input_of(name)
    weight = "weight_hh" if name in CELLS else "weight_hh_l0"
    before = ours(x)
    for module in (theirs, ours):
        parametrizations.weight_norm(module, weight)
    check_same(ours(x), before)
    with torch.no_grad():
        for module in (theirs, ours):
            getattr(module.parametrizations, weight).original0.mul_(2)
        check_same(ours(x), theirs(x))
    check_same(gradients(ours, ours(x)), gradients(theirs, theirs(x)))
    torch.nn.utils.parametrize.remove_parametrizations(ours, weight)
    check_same(ours(x), theirs(x))
    old = pair(name, INPUT, H)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.nn.utils.weight_norm(old, weight)
    count = len(list(old.parameters()))
    check_same(old(x), before)
    with torch.no_grad():
        getattr(old, f"{weight}_g").mul_(2)
        check_same(old(x), theirs(x))
    torch.nn.utils.remove_weight_norm(old, weight)
    assert len(list(old.parameters())) == count - 1
    check_same(old(x), theirs(x))


@layers
def test_the_initial_state(name: str) -> None:
    """test_rnn_initial_hidden_state, test_projections_lstm_initial_hidden_state"""
    for options in ({}, {"num_layers": 2, "bidirectional": True}):
        theirs, ours = pair(name, INPUT, H, **options)
        x = input_of(name)
        zeros = tree_map(torch.zeros_like, theirs(x)[1])
        check_same(ours(x), ours(x, zeros), 0.0)
        for sizes in ((1, B, H + 1), (9, B, H), (1, B + 1, H)):
            hx = torch.zeros(sizes)
            hx = (hx, hx) if name == "LSTM" else hx
            expected = outcome(lambda m=theirs, x=x, hx=hx: m(x, hx))
            assert expected[0] is RuntimeError
            assert outcome(lambda m=ours, x=x, hx=hx: m(x, hx)) == expected


def test_projections() -> None:
    """test_projections_errors_on_gru_and_rnn, test_projections_lstm_args_check"""
    for name, size in (("GRU", 2), ("RNN", 2), ("LSTM", -1), ("LSTM", H)):
        expected = outcome(lambda n=name, s=size: getattr(nn, n)(INPUT, H, proj_size=s))
        assert expected[0] is ValueError
        assert outcome(lambda n=name, s=size: getattr(bridge, n)(INPUT, H, proj_size=s)) == expected
    theirs, ours = pair("LSTM", INPUT, H, proj_size=2)
    x, good = input_of("LSTM"), (torch.zeros(1, B, 2), torch.zeros(1, B, H))
    check_same(ours(x, good), theirs(x, good))
    for bad in (good[::-1], (good[0], good[0]), (good[1], good[1])):
        expected = outcome(lambda hx=bad: theirs(x, hx))
        assert expected[0] is RuntimeError
        assert outcome(lambda hx=bad: ours(x, hx)) == expected


def test_nonlinearities() -> None:
    """test_RNN_nonlinearity, test_RNN_nonlinearity_passed_as_arg"""
    theirs, ours = pair("RNN", INPUT, H, 2, "relu")
    x = input_of("RNN")
    check_same(ours(x), theirs(x))
    assert ours.nonlinearity == "relu"
    assert bridge.RNN(INPUT, H).nonlinearity == "tanh"
    theirs, ours = pair("RNNCell", INPUT, H, False, "relu")
    check_same(ours(x[0]), theirs(x[0]))
    for make in (bridge.RNN, bridge.RNNCell):
        with pytest.raises(ValueError, match="nonlinearity"):
            make(INPUT, H, nonlinearity="garbage")


@modules
def test_devices_and_dtypes_that_differ(name: str) -> None:
    """test_rnn_check_device and its kind; the meta device stands in for another one"""
    theirs, ours = pair(name, INPUT, H)
    x = input_of(name)
    with pytest.raises(RuntimeError, match="at the same device"):
        ours(x.to("meta"))
    y, *_ = tree_map(torch.zeros_like, theirs(x)), None
    hx = y if name in CELLS else y[1]
    with pytest.raises(RuntimeError, match="at the same device"):
        ours(x, tree_map(lambda h: h.to("meta"), hx))
    assert y_of(copy.deepcopy(ours).to("meta")(x.to("meta"))).shape == y_of(ours(x)).shape
    with pytest.raises((RuntimeError, ValueError)):
        ours(x.float())
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        check_same(y_of(ours.to(dtype)(x.to(dtype))), y_of(theirs.to(dtype)(x.to(dtype))), 2e-2)


@modules
def test_written_to_before_backward(name: str) -> None:
    """What was saved must be what it was; autograd counts the writes."""
    _, ours = pair(name, INPUT, H)
    x = input_of(name)
    result = total(ours(x))
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()
    with torch.no_grad():
        assert not total(ours(x)).requires_grad
    result = total(ours(x))
    with torch.no_grad():
        next(ours.parameters()).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


@modules
def test_hooks(name: str) -> None:
    """Forward hooks, pre-hooks and full backward hooks, in torch.nn's order and with its values."""
    found: list[list[Any]] = []
    for module in pair(name, INPUT, H):
        seen: list[Any] = []
        module.register_forward_pre_hook(lambda _m, given, s=seen: s.append(given[0].detach()))
        module.register_forward_hook(lambda _m, _in, out, s=seen: s.append(y_of(out).detach()))
        module.register_full_backward_hook(
            lambda _m, into, out, s=seen: s.extend([into[0], y_of(out)])
        )
        torch.manual_seed(3)
        x = input_of(name).requires_grad_()
        y_of(module(x)).sin().sum().backward()
        assert len(seen) == 4
        found.append(seen)
    check_same(found[1], found[0])


@modules
def test_what_follows_a_copy(name: str) -> None:
    """Copies, pickles, files and shared memory are of the same numbers, and of their own."""
    _, ours = pair(name, INPUT, H)
    x = input_of(name)
    expected = ours(x)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    others = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))]
    others.append(torch.load(file, weights_only=False))
    for other in others:
        check_same(other(x), expected, 0.0)
        with torch.no_grad():
            next(other.parameters()).zero_()
    check_same(ours(x), expected, 0.0)
    ours.share_memory()
    assert all(parameter.is_shared() for parameter in ours.parameters())
    check_same(ours(x), expected, 0.0)
    # A parameter that is put in another's place is used, and counted once.
    name_of_first, first = next(ours.named_parameters())
    setattr(ours, name_of_first, nn.Parameter(2 * first.detach()))
    assert not torch.equal(y_of(ours(x)), y_of(expected))
    with pytest.raises(TypeError):
        setattr(ours, name_of_first, torch.zeros_like(first))


@layers
def test_sequences_of_many_lengths(name: str) -> None:
    """test_variable_sequence and the like: packed, padded and one by one are the same."""
    theirs, ours = pair(name, INPUT, H, num_layers=2, bidirectional=True)
    sequences = [torch.randn(n, INPUT, requires_grad=True) for n in (2, 5, 1, 5)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    found, expected = ours(packed), theirs(packed)
    check_same(pad_packed_sequence(found[0])[0], pad_packed_sequence(expected[0])[0])
    check_same(found[1], expected[1])
    y, lengths = pad_packed_sequence(found[0])
    for i, sequence in enumerate(sequences):
        alone, state = ours(sequence)
        check_same(y[: lengths[i], i], alone)
        check_same(tree_map(lambda s, i=i: s[:, i], found[1]), state)
    check_same(
        gradients(ours, y, *sequences),
        gradients(theirs, pad_packed_sequence(expected[0])[0], *sequences),
    )
    wrong = pack_padded_sequence(torch.randn(3, 2, INPUT + 1), [3, 2])
    assert outcome(lambda: theirs(wrong))[0] is RuntimeError
    with pytest.raises(RuntimeError, match=r"input.size\(-1\) must be equal to input_size"):
        ours(wrong)


@modules
def test_a_penalty_on_gradients(name: str) -> None:
    """Double backward, as a training step uses it."""
    steps = []
    for module in pair(name, INPUT, H):
        torch.manual_seed(5)
        x = input_of(name).requires_grad_()
        (dx,) = torch.autograd.grad(total(module(x)), x, create_graph=True)
        (dx.norm() + total(module(x))).backward()
        steps.append([x.grad, *(parameter.grad for parameter in module.parameters())])
    check_same(steps[1], steps[0], 1e-8)


@modules
def test_nothing_is_left_behind(name: str) -> None:
    """No cycle keeps a graph, and with it its reserve, until the collector comes."""
    _, ours = pair(name, INPUT, H)
    x = input_of(name)
    total(ours(x)).backward()
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
        for _ in range(3):
            ours.zero_grad()
            total(ours(x)).backward()
        ours.zero_grad()
        after = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
    finally:
        gc.enable()
    assert after <= before
