"""Layers and cells of fusedrnn.torch against torch.nn's, and what else modules must do."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import fusedrnn
import fusedrnn.torch as bridge
from torch_support import CELLS, LAYERS, OTHERS, check_same, gradients, pair, total, variants


@pytest.fixture(autouse=True)
def _double() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_layers_are_torch_nns(name: str) -> None:
    for options in variants(name):
        theirs, ours = pair(name, 4, 3, **options)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        check_same(list(ours.parameters()), list(theirs.parameters()), 0.0)
        named = {id(parameter): name for name, parameter in ours.named_parameters()}
        of_runs = [[named[id(parameter)] for parameter in run] for run in ours.all_weights]
        assert of_runs == theirs._all_weights
        ours.flatten_parameters()
        assert repr(ours) == repr(theirs)
        for shape in ((5, 2, 4), (5, 4)):
            x = torch.randn(shape, requires_grad=True)
            expected, found = theirs(x), ours(x)
            check_same(found, expected)
            assert found[0].stride() == expected[0].stride() or x.dim() == 2
            check_same(gradients(ours, found, x), gradients(theirs, expected, x))
            hx = torch.utils._pytree.tree_map(
                lambda state: torch.randn_like(state).requires_grad_(), expected[1]
            )
            states = list(hx) if name == "LSTM" else [hx]
            found, expected = ours(x, hx), theirs(x, hx)
            check_same(found, expected)
            check_same(gradients(ours, found, x, *states), gradients(theirs, expected, x, *states))


@pytest.mark.parametrize("name", CELLS)
def test_cells_are_torch_nns(name: str) -> None:
    for bias, shape in ((True, (2, 4)), (False, (2, 4)), (True, (4,))):
        theirs, ours = pair(name, 4, 3, bias=bias)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert repr(ours) == repr(theirs)
        x = torch.randn(shape, requires_grad=True)
        expected, found = theirs(x), ours(x)
        check_same(found, expected)
        for _ in range(2):
            expected, found = theirs(x, expected), ours(x, found)
        check_same(found, expected)
        check_same(gradients(ours, found, x), gradients(theirs, expected, x))
    if name == "RNNCell":
        theirs, ours = pair(name, 4, 3, nonlinearity="relu")
        assert repr(ours) == repr(theirs)
        check_same(ours(x), theirs(x))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("ordered", [True, False])
def test_packed_sequences(name: str, ordered: bool) -> None:
    theirs, ours = pair(name, 4, 3, 2, bidirectional=True)
    lengths = [5, 3, 2] if ordered else [2, 5, 3]
    x = torch.randn(5, 3, 4, requires_grad=True)
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=ordered)
    expected, found = theirs(packed), ours(packed)
    assert isinstance(found[0], PackedSequence)
    assert torch.equal(found[0].batch_sizes, packed.batch_sizes)
    check_same(found, expected)
    h = torch.randn(4, 3, 3)
    hx = (h, torch.randn(4, 3, 3)) if name == "LSTM" else h
    expected, found = theirs(packed, hx), ours(packed, hx)
    check_same(found, expected)
    check_same(gradients(ours, found, x), gradients(theirs, expected, x))
    # The same of our own lengths, in any order, without packing; a list will do.
    check_same(ours(x, hx, lengths=lengths)[1], found[1])
    y, state = ours(x, hx, lengths=torch.tensor(lengths))
    check_same(state, found[1])
    check_same(pack_padded_sequence(y, torch.tensor(lengths), enforce_sorted=ordered), found[0])
    with pytest.raises(ValueError, match=r"^lengths, resets, mask: expected None beside a Packed"):
        ours(packed, lengths=torch.tensor(lengths))


@pytest.mark.parametrize("other", OTHERS)
def test_every_cell_is_the_layers(other: str) -> None:
    """Numbers of our own layer with the same weights, and gradients of its backward."""
    make, options = OTHERS[other]
    module = make(4, 3, 2, bidirectional=True, batch_first=True, **options)
    layer = getattr(fusedrnn, make.__name__)(
        4, 3, 2, bidirectional=True, batch_first=True, dtype="float64", **options
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.7, 0.7)
    layer.load_state_dict(module.state_dict())
    assert list(module.state_dict()) == list(layer.parameters())
    x = torch.randn(2, 5, 4, requires_grad=True)
    resets = torch.zeros(2, 5, dtype=torch.bool)
    resets[0, 2] = True
    mask = torch.rand(2, 5) < 0.8
    many = len(module._states) > 1
    given = {
        "lengths": torch.tensor([5, 3]),
        "resets": resets,
        "mask": mask,
        "padding": "last",
        "reset_state": tuple(torch.randn(4, 3) for _ in module._states)
        if many
        else torch.randn(4, 3),
        "return_cells": many,
    }
    found = module(x, **given)
    *expected, tape = layer.forward(x.detach(), **given)
    check_same(found, tuple(expected))
    dy = torch.randn_like(found[0])
    grads = layer.backward(tape, dy)
    names = [name for name, _ in module.named_parameters()]
    check_same(
        torch.autograd.grad(found[0], [x, *module.parameters()], dy),
        tuple(grads[name] for name in ("x", *names)),
    )


def test_first_values_of_options_come_of_torchs_generator() -> None:
    for make, options in (*OTHERS.values(), (bridge.LSTM, {"init": "orthogonal"})):
        torch.manual_seed(3)
        first, other = make(4, 3, **options), make(4, 3, **options)
        torch.manual_seed(3)
        check_same(list(make(4, 3, **options).parameters()), list(first.parameters()), 0.0)
        assert not torch.equal(first.weight_ih_l0, other.weight_ih_l0)
    assert (bridge.LSTM(4, 3, layer_norm=True).gain_ih_l0 == 1).all()
    opened = bridge.LSTM(4, 3, forget_bias=1.0)
    assert ((opened.bias_ih_l0 + opened.bias_hh_l0)[3:6] == 1).all()


@pytest.mark.parametrize("name", LAYERS)
def test_dropout(name: str) -> None:
    module = getattr(bridge, name)(4, 3, 2, dropout=0.5)
    x = torch.randn(5, 2, 4)
    torch.manual_seed(1)
    first = module(x)
    assert not torch.equal(module(x)[0], first[0])
    torch.manual_seed(1)
    check_same(module(x), first, 0.0)
    module.eval()
    check_same(module(x), module(x), 0.0)
    module.train()
    module.dropout = 0.0
    check_same(module(x), module.eval()(x), 0.0)
    # The mean over many draws of what the second layer reads is what it would read without.
    module.dropout = 0.5
    module.train()
    wide = x[:1, :1].expand(1, 4000, 4)
    linear = bridge.RNN(4, 3, 2, "identity", dropout=0.5)
    expected = linear.eval()(wide)[0].mean(1)
    check_same(linear.train()(wide)[0].mean(1), expected, 0.1)
    # Gradients are those of what was drawn.
    torch.manual_seed(2)
    y = module(x)[0]
    torch.manual_seed(2)
    again = module(x.clone())[0]
    check_same(gradients(module, y), gradients(module, again), 0.0)


def test_noise_of_options_is_drawn_in_training_alone() -> None:
    module = bridge.LSTM(4, 8, zoneout=0.3, recurrent_dropout=0.2, weight_dropout=0.1)
    x = torch.randn(5, 2, 4)
    assert not torch.equal(module(x)[0], module(x)[0])
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    theirs, ours = pair(name, 4, 3)
    ours.to(dtype)
    x = torch.randn(2, 4) if name in CELLS else torch.randn(5, 2, 4)
    found = ours(x.to(dtype))
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5}.get(dtype, 3e-2)
    expected = torch.utils._pytree.tree_map(lambda result: result.to(dtype), theirs(x))
    check_same(found, expected, tolerance)
    total(found).backward()
    for parameter in ours.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == dtype
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
@pytest.mark.parametrize("given", [False, True])
def test_autocast_has_torchs_dtypes(name: str, given: bool) -> None:
    theirs, ours = pair(name, 4, 3, dtype=torch.float32)
    x = torch.randn((2, 4) if name in CELLS else (5, 2, 4), dtype=torch.float32)
    hx = theirs(x) if name in CELLS else theirs(x)[1]
    arguments = (x, hx) if given else (x,)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = ours(*arguments), theirs(*arguments)
    check_same(found, expected, 3e-2)
    total(found).backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in ours.parameters())


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_what_modules_do(name: str) -> None:
    options: dict[str, Any] = {} if name in CELLS else {"num_layers": 2}
    theirs, ours = pair(name, 4, 3, **options)
    x = torch.randn((2, 4) if name in CELLS else (5, 2, 4))
    expected = ours(x)
    check_same(copy.deepcopy(ours)(x), expected, 0.0)
    check_same(pickle.loads(pickle.dumps(ours))(x), expected, 0.0)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    check_same(torch.load(file, weights_only=False)(x), expected, 0.0)

    # Without memory at first, then with empty memory, or with that of a state dict.
    for assign in (False, True):
        empty = getattr(bridge, name)(4, 3, device="meta", **options)
        shapes = torch.utils._pytree.tree_map(lambda result: result.shape, expected)
        found = empty(x.to("meta"))
        assert torch.utils._pytree.tree_map(lambda result: result.shape, found) == shapes
        if not assign:
            empty.to_empty(device="cpu")
            torch.manual_seed(11)
            empty.reset_parameters()
        empty.load_state_dict(theirs.state_dict(), assign=assign)
        check_same(empty(x), expected, 0.0)
    check_same(
        torch.func.functional_call(ours, {n: p * 0.5 for n, p in ours.named_parameters()}, (x,)),
        torch.func.functional_call(theirs, {n: p * 0.5 for n, p in ours.named_parameters()}, (x,)),
    )
    # Memory that is no tensor's own: parts of larger tensors, and none in order.
    spread = torch.randn(*x.shape[:-1], 8)[..., ::2]
    check_same(ours(spread), theirs(spread))
    expanded = x[..., :1, :].expand_as(x)
    check_same(ours(expanded), theirs(expanded))
    negative = torch.complex(x, -x).conj().imag  # negated as it is read
    check_same(ours(negative), theirs(negative))


def test_parametrizations_and_tied_weights() -> None:
    theirs, ours = pair("LSTM", 3, 3)
    x = torch.randn(5, 2, 3)
    for module in (theirs, ours):
        nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
        nn.utils.parametrizations.orthogonal(module, "weight_ih_l0", use_trivialization=False)
        with torch.no_grad():
            module.parametrizations.weight_hh_l0.original0.mul_(1.5)
    ours.load_state_dict(theirs.state_dict())
    check_same(ours(x), theirs(x))
    check_same(gradients(ours, ours(x)), gradients(theirs, theirs(x)))
    first, second = bridge.GRU(3, 3), bridge.GRU(3, 3)
    second.weight_hh_l0 = first.weight_hh_l0
    y, _ = second(first(x)[0])
    tied = torch.autograd.grad(total(y), first.weight_hh_l0)[0]
    apart = copy.deepcopy(second)
    y, _ = apart(first(x)[0])
    parts = torch.autograd.grad(total(y), [first.weight_hh_l0, apart.weight_hh_l0])
    check_same(tied, parts[0] + parts[1])


def test_frozen_parameters_have_no_gradient() -> None:
    _, ours = pair("GRU", 4, 3)
    ours.weight_ih_l0.requires_grad_(False)
    total(ours(torch.randn(5, 2, 4))).backward()
    assert ours.weight_ih_l0.grad is None
    assert ours.weight_hh_l0.grad is not None
    ours.requires_grad_(False)
    assert ours(torch.randn(5, 2, 4))[0].grad_fn is None
    with torch.inference_mode():
        assert ours(torch.randn(5, 2, 4))[0].is_inference()


def test_no_sequences() -> None:
    theirs, ours = pair("LSTM", 4, 3, 2)
    x = torch.randn(5, 0, 4)
    check_same(ours(x), theirs(x))
    packed = pack_sequence([torch.randn(1, 4)])
    check_same(ours(packed), theirs(packed))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("shape", "state"),
    [
        ((4,), None),
        ((1, 5, 2, 4), None),
        ((5, 2, 3), None),
        ((5, 2, 4), (1, 3, 3)),
        ((5, 2, 4), (2, 2, 3)),
        ((5, 2, 4), (1, 2, 4)),
        ((5, 2, 4), (2, 3)),
        ((5, 4), (1, 2, 3)),
    ],
)
def test_errors_of_layers_are_torchs(name: str, shape: Any, state: Any) -> None:
    theirs, ours = pair(name, 4, 3)
    hx = None if state is None else torch.zeros(state)
    hx = (hx, hx) if name == "LSTM" and hx is not None else hx
    _check_same_error(ours, theirs, torch.zeros(shape), hx)


@pytest.mark.parametrize("name", LAYERS)
def test_errors_of_dtypes_are_torchs(name: str) -> None:
    theirs, ours = pair(name, 4, 3)
    _check_same_error(ours, theirs, torch.zeros(5, 2, 4, dtype=torch.float32), None)


def _check_same_error(ours: Any, theirs: Any, x: torch.Tensor, hx: Any) -> None:
    with pytest.raises((RuntimeError, ValueError)) as expected:
        theirs(x, hx)
    with pytest.raises(type(expected.value)) as found:
        ours(x, hx)
    # In torch.nn one class says "2D tensor" and another "2D".
    assert str(found.value) == str(expected.value).replace("D tensor instead", "D instead")


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(
    ("shape", "state"),
    [((1, 2, 4), None), ((2, 3), (2, 3)), ((2, 4), (3, 3)), ((2, 4), (2, 4)), ((2, 4), (1, 2, 3))],
)
def test_errors_of_cells_are_torchs(name: str, shape: Any, state: Any) -> None:
    theirs, ours = pair(name, 4, 3)
    hx = None if state is None else torch.zeros(state)
    hx = (hx, hx) if name == "LSTMCell" and hx is not None else hx
    _check_same_error(ours, theirs, torch.zeros(shape), hx)


def test_no_sequences_with_lengths() -> None:
    y, state = bridge.GRU(4, 3)(torch.zeros(5, 0, 4), lengths=[])
    assert (y.shape, state.shape) == ((5, 0, 3), (1, 0, 3))


def test_errors_of_our_own() -> None:
    gru, lstm = bridge.GRU(4, 3), bridge.LSTM(4, 3)
    x = torch.zeros(5, 2, 4)
    with pytest.raises(ValueError, match=r"^padding: expected 'zero' or 'last', got 'none'"):
        gru(x, padding="none")
    with pytest.raises(ValueError, match=r"^return_cells: expected False for GRU"):
        gru(x, return_cells=True)
    with pytest.raises(TypeError, match=r"^hx: expected a pair \(h, c\), got Tensor"):
        lstm(x, torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match=r"^hx: expected a pair \(h, c\), got 1 values"):
        lstm(x, [torch.zeros(1, 2, 3)])
    with pytest.raises(TypeError, match=r"^hx\[1\]: expected a tensor, got int"):
        lstm(x, (None, 1))
    with pytest.raises(TypeError, match=r"^resets: expected a tensor, got list"):
        gru(x, resets=[True])
    with pytest.raises(ValueError, match=r"^lengths"):
        gru(x, lengths=torch.tensor([5, 6]))
    with pytest.raises(TypeError, match=r"^lengths\[1\]: expected an int, got float"):
        gru(x, lengths=[5, 2.0])  # type: ignore[list-item]
    for bad in ("ab", {1, 2}, object()):
        with pytest.raises(TypeError, match=r"^lengths: expected a tensor or a sequence of ints"):
            gru(x, lengths=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^resets: expected shape"):
        gru(x, resets=torch.zeros(5, 3, dtype=torch.bool))
    with pytest.raises(RuntimeError, match="hidden tensors are not the same dtype"):
        gru(x, torch.zeros(1, 2, 3, dtype=torch.float32))
    with pytest.raises(RuntimeError, match="at the same device, found input tensor at meta"):
        gru(x.to("meta"))
    with pytest.raises(TypeError, match="peepholes"):
        bridge.LSTM(4, 3, peepholes=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^seed: expected none for GRU"):
        bridge.GRU(4, 3, seed=0)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM"):
        bridge.GRU(4, 3, proj_size=2)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"^dropout: expected a number below 1"):
        bridge.GRU(4, 3, 2, dropout=1.0)
    with pytest.raises(ValueError, match=r"^bias: expected True for WorldModelGRU, got False"):
        bridge.WorldModelGRU(4, 3, bias=False)
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last") as found:
        bridge.GRU(4, 3, dropout=0.5)
    assert found[0].filename == __file__


def test_fusedrnn_imports_no_torch() -> None:
    program = "import sys, fusedrnn; assert 'torch' not in sys.modules; fusedrnn.torch.GRU(2, 3)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_torch() -> None:
    program = (
        "import importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *more: None if name == 'torch' else find(name, *more); "
        "import fusedrnn; assert 'torch' not in dir(fusedrnn); fusedrnn.torch"
    )
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    last = found.stderr.strip().splitlines()[-1]
    assert last == "ImportError: fusedrnn.torch needs PyTorch: pip install 'fusedrnn[torch]'"


@pytest.mark.parametrize("name", CELLS)
def test_cells_have_no_options_of_layers(name: str) -> None:
    for option in ("num_layers", "batch_first", "dropout", "bidirectional", "proj_size"):
        with pytest.raises(TypeError, match=f"{name}.*unexpected keyword argument '{option}'"):
            getattr(bridge, name)(4, 3, **{option: 1})
