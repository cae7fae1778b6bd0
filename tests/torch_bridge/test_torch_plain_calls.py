"""Calls that go past PyTorch's operators: the same bits and gradients, and none too many."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import fusedrnn.torch as bridge
from fusedrnn.torch import autograd, base
from torch_support import CELLS, LAYERS, OTHERS, check_same, pair, variants

ROOT = Path(__file__).resolve().parent.parent.parent
T, B, INPUT, H = 5, 3, 4, 6
HAS_TABLE = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each call so far, whether it went the plain way."""
    calls: list[bool] = []
    plain = base.Recurrent._plain_call

    def spy(self: Any, *arguments: Any) -> Any:
        done = plain(self, *arguments)
        calls.append(done is not None)
        return done

    monkeypatch.setattr(base.Recurrent, "_plain_call", spy)
    return calls


def the_long_way(module: Any, *arguments: Any, **options: Any) -> Any:
    """The results without the plain way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base.Recurrent, "_plain_call", lambda *_: None)
        return module(*arguments, **options)


def check_bits(found: Any, expected: Any) -> None:
    mine, yours = tree_leaves(found), tree_leaves(expected)
    assert len(mine) == len(yours)
    for a, b in zip(mine, yours, strict=True):
        assert type(a) is torch.Tensor
        assert a.dtype == b.dtype
        assert a.stride() == b.stride()
        assert a.is_inference() == b.is_inference()
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_layers(name: str, taken: list[bool]) -> None:
    for options in variants(name):
        theirs, ours = pair(name, INPUT, H, **options)
        for shape in ((T, B, INPUT), (T, INPUT), (1, 1, INPUT)):
            x = torch.randn(shape)
            expected = the_long_way(ours, x)
            check_bits(ours(x), expected)
            check_same(expected, theirs(x), 1e-5)
            hx = tree_map(torch.randn_like, expected[1])
            check_bits(ours(x, hx), the_long_way(ours, x, hx))
    assert len(taken) > 0
    assert taken == [HAS_TABLE] * len(taken)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
def test_cells(name: str, dtype: torch.dtype, taken: list[bool]) -> None:
    for bias, shape in ((True, (B, INPUT)), (False, (1, INPUT)), (True, (INPUT,))):
        cell = getattr(bridge, name)(INPUT, H, bias=bias, dtype=dtype)
        x = torch.randn(shape, dtype=dtype)
        expected = the_long_way(cell, x)
        check_bits(cell(x), expected)
        hx = tree_map(torch.randn_like, expected)
        check_bits(cell(x, hx), the_long_way(cell, x, hx))
    assert taken == [HAS_TABLE] * 6


@pytest.mark.parametrize("other", OTHERS)
def test_other_cells(other: str, taken: list[bool]) -> None:
    make, options = OTHERS[other]
    module = make(INPUT, H, num_layers=2, bidirectional=True, batch_first=True, **options)
    x = torch.randn(B, T, INPUT)
    expected = the_long_way(module, x)
    check_bits(module(x), expected)
    check_bits(module(x, expected[1]), the_long_way(module, x, expected[1]))
    assert taken == [HAS_TABLE] * 2


def test_large_calls_let_other_threads_run_and_keep_what_they_read() -> None:
    """Another thread puts other parameters in the place of a layer's all the time."""
    layer = bridge.GRU(64, 64)
    x = torch.randn(64, 16, 64)
    expected = layer(x)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for name, parameter in list(layer.named_parameters()):
                setattr(layer, name, nn.Parameter(parameter.clone()))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(20):
            check_bits(layer(x), expected)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("change", ["in place", "data in place", "data", "assigned", "deleted"])
def test_parameters_are_those_of_the_moment(change: str) -> None:
    cell = bridge.GRUCell(INPUT, H)
    x, h = torch.randn(B, INPUT), torch.randn(B, H)
    cell(x, h)
    new = torch.randn(3 * H, H)
    if change == "in place":
        cell.weight_hh.copy_(new)
    elif change == "data in place":
        cell.weight_hh.data.copy_(new)
    elif change == "data":
        cell.weight_hh.data = new
    elif change == "assigned":
        cell.weight_hh = nn.Parameter(new)
    else:
        del cell.weight_hh
        cell.weight_hh = new  # an attribute that is no parameter
    torch_cell = nn.GRUCell(INPUT, H)
    torch_cell.load_state_dict(cell.state_dict() | {"weight_hh": new})
    check_same(cell(x, h), torch_cell(x, h), 1e-5)


def test_tensors_that_cannot_be_read_as_they_lie(taken: list[bool]) -> None:
    cell = bridge.GRUCell(INPUT, H)
    numbers = torch.randn(B, INPUT)
    columns = torch.randn(INPUT, B)
    unaligned = torch.frombuffer(bytearray(66), dtype=torch.float32, offset=2)
    tensors = {
        "negated": (torch._neg_view(numbers), -numbers),
        "zero": (torch._efficientzerotensor((B, INPUT)), torch.zeros(B, INPUT)),
        "expanded": (numbers[:, :1].expand(B, INPUT), numbers[:, :1].repeat(1, INPUT)),
        "unaligned": (unaligned[: B * INPUT].view(B, INPUT), torch.zeros(B, INPUT)),
        "by columns": (columns.t(), columns.t().contiguous()),
    }
    for x, same in tensors.values():
        check_same(cell(x), cell(same), 1e-6)
    assert taken == [False, HAS_TABLE] * len(tensors)
    # What can: rows with gaps between them, parts of larger tensors, parameters and buffers.
    taken.clear()
    wide = torch.randn(2 * B, 2 * INPUT)
    for x in (wide[::2, :INPUT], wide[:B, INPUT:], nn.Buffer(numbers)):
        check_same(cell(x), cell(x.clone()), 1e-6)
    assert taken == [HAS_TABLE] * 6
    negated = torch._neg_view(torch.ones(B, H))
    check_same(cell(numbers, negated), cell(numbers, -torch.ones(B, H)), 1e-6)


class _Subclass(torch.Tensor):
    """One that counts on being asked."""

    seen = 0

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        cls.seen += 1
        return super().__torch_function__(function, types, args, kwargs or {})


class _Functions(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*args, **(kwargs or {}))


class _Dispatches(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")
def trained(module: Any, x: Any, hx: Any, **options: Any) -> list[torch.Tensor]:
    """Results, first and second derivatives, as a training step finds them."""
    with torch.enable_grad():
        data = x.data if isinstance(x, PackedSequence) else x
        leaves = [data, *(s for s in tree_leaves(hx) if s is not None), *module.parameters()]
        results = [r for r in tree_leaves(module(x, hx, **options)) if r.requires_grad]
        loss = sum(r.sin().sum() for r in results)
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    return [*(r.detach() for r in results), *(g.detach() for g in first), *second]


def check_trained(module: Any, x: Any, hx: Any, **options: Any) -> None:
    found = trained(module, x, hx, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base.Recurrent, "_plain_call", lambda *_: None)
        expected = trained(module, x, hx, **options)
    assert len(found) == len(expected)
    for mine, yours in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, yours, rtol=0, atol=0)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_layers_with_gradients(name: str, batch_first: bool, taken: list[bool]) -> None:
    lengths, count = torch.tensor([2, T, 3]), 0
    for options in variants(name):
        ours = pair(name, INPUT, H, **options | {"batch_first": batch_first})[1]
        x = torch.randn((B, T, INPUT) if batch_first else (T, B, INPUT), requires_grad=True)
        hx = tree_map(lambda s: torch.randn_like(s, requires_grad=True), ours(x.detach())[1])
        rows = torch.randn(T + 3 + 2, INPUT, requires_grad=True)
        packed = PackedSequence(rows, torch.tensor([3, 3, 2, 1, 1]), torch.tensor([1, 2, 0]))
        for given, state, beside in (
            *((x, None, {}), (x, hx, {}), (x, hx, {"lengths": lengths})),
            *((packed, None, {}), (packed, hx, {})),
        ):
            taken.clear()
            check_trained(ours, given, state, **beside)
            assert taken[-1] == HAS_TABLE
            count += 1
    assert count > 4


@pytest.mark.parametrize("name", CELLS)
def test_cells_with_gradients(name: str, taken: list[bool]) -> None:
    ours = pair(name, INPUT, H)[1]
    x = torch.randn(B, INPUT, requires_grad=True)
    hx = tree_map(lambda s: torch.randn_like(s, requires_grad=True), ours(x.detach()))
    for state in (None, hx):
        taken.clear()
        check_trained(ours, x, state)
        assert taken == [HAS_TABLE]


@pytest.fixture
def ways_back(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each backward so far that could go the plain way, whether it did."""
    calls: list[bool] = []
    plain = autograd.plain_backward_of

    def spied(*key: Any) -> Any:
        def run(*arguments: Any) -> Any:
            done = plain(*key)(*arguments)
            calls.append(done is not None)
            return done

        return run

    monkeypatch.setattr(autograd, "plain_backward_of", spied)
    return calls


def gradients(
    module: Any, leaves: list[Any], used: list[int], *arguments: Any, **options: Any
) -> Any:
    """Of the leaves that want one, of a loss of some of the results."""
    with torch.enable_grad():
        results = tree_leaves(module(*arguments, **options))
        loss = sum(results[i].sin().sum() for i in used)
    wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    return torch.autograd.grad(loss, wanted, allow_unused=True)


@pytest.mark.parametrize("name", LAYERS + CELLS)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_small_gradients(name: str, ways_back: list[bool]) -> None:
    cell = name in CELLS
    for options in [{}] if cell else [*variants(name), {"batch_first": True, "num_layers": 2}]:
        ours = pair(name, INPUT, H, **options)[1]
        first = options.get("batch_first", False)
        whole = torch.randn((B, INPUT) if cell else (B, T, INPUT) if first else (T, B, INPUT))
        state = ours(whole) if cell else ours(whole)[1]
        hx = tree_map(lambda s: torch.randn_like(s, requires_grad=True), state)
        lengths = {} if cell else {"lengths": torch.tensor([2, T, 3])}
        count = len(tree_leaves(ours(whole)))
        for wants_dx, given, beside, used in (
            (True, hx, {}, [*range(count)]),
            (False, None, lengths, [0]),
            (True, None, lengths, [count - 1]),
        ):
            x = whole.clone().requires_grad_(wants_dx)
            next(ours.parameters()).requires_grad_(wants_dx)
            leaves = [x, *tree_leaves(given), *ours.parameters()]
            ways_back.clear()
            found = gradients(ours, leaves, used, x, given, **beside)
            assert ways_back == [HAS_TABLE]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(autograd, "plain_backward_of", lambda *_: lambda *_: None)
                expected = gradients(ours, leaves, used, x, given, **beside)
            check_bits([g for g in found if g is not None], [g for g in expected if g is not None])


def test_gradients_that_go_the_long_way(ways_back: list[bool]) -> None:
    layer = bridge.GRU(INPUT, H)

    def of(x: torch.Tensor, upstream: torch.Tensor | None = None) -> torch.Tensor:
        with torch.enable_grad():
            y = layer(x)[0]
        upstream = torch.ones_like(y) if upstream is None else upstream
        return torch.autograd.grad(y, layer.weight_hh_l0, upstream)[0]

    x = torch.randn(T, B, INPUT)
    expected = of(x)
    last = torch.empty(H, T, B).movedim(0, 2).fill_(1)  # no axis of it that is dense is the last
    torch.testing.assert_close(of(x, last), expected)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t.as_subclass(_Subclass)):
        torch.testing.assert_close(of(x).as_subclass(torch.Tensor), expected)
    assert ways_back == [HAS_TABLE, False, False]
    large = torch.randn(1 << 10, 64, INPUT)
    with torch.enable_grad():
        layer(large)[0].sum().backward()
    assert ways_back[3:] == [False]
    assert layer.weight_hh_l0.grad is not None


def test_plain_gradients_of_wrong_arguments() -> None:
    run = autograd.plain_backward_of(bridge.GRU(INPUT, H)._usual_key, torch.float32)
    x, reserve = torch.zeros(T, B, INPUT), torch.zeros(64, dtype=torch.uint8)
    saved = (x, torch.zeros(3 * H, INPUT), torch.zeros(3 * H, H), None, None, None, None, reserve)
    assert run(saved, (None, None), 0, True) is None  # no reserve of this network
    for wrong in (saved[:-1], list(saved), (x.double(), *saved[1:]), (None, *saved[1:])):
        assert run(wrong, (None, None), 0, True) is None
    for upstream in ((None,), [None, None], (x, 3)):
        assert run(saved, upstream, 0, True) is None
    with pytest.raises(ValueError, match="axes: expected 0 to 2, got 3"):
        run(saved, (None, None), 3, True)


def test_what_backward_reads_may_not_change() -> None:
    layer, x = bridge.GRU(INPUT, H), torch.randn(T, B, INPUT)
    for changed in (layer.weight_hh_l0, lengths := torch.tensor([2, T, 3])):
        with torch.enable_grad():
            loss = layer(x, lengths=lengths)[0].sum()
        changed.add_(0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_state_of_one_array_is_no_tuple() -> None:
    with pytest.raises(TypeError, match="hx: expected a tensor, got tuple"):
        bridge.GRU(INPUT, H)(torch.ones(T, B, INPUT), (torch.zeros(1, B, H),))
    with pytest.raises(TypeError, match="hx: expected a tensor, got tuple"):
        bridge.GRUCell(INPUT, H)(torch.ones(B, INPUT), (torch.zeros(B, H),))


@pytest.mark.filterwarnings("ignore:.torch.jit.(script|trace). is deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_what_wants_to_see_calls_sees_them(taken: list[bool]) -> None:
    layer, x = bridge.LSTM(INPUT, H), torch.randn(T, B, INPUT)
    expected = layer(x)[0]
    taken.clear()
    with _Dispatches() as mode:
        layer(x)
    assert "fusedrnn.network.default" in mode.names
    with _Functions():
        layer(x)
    layer(x.as_subclass(_Subclass))
    assert _Subclass.seen > 0
    check_same(torch.vmap(lambda part: layer(part)[0], 1, 1)(x), expected, 1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x)[0].dtype == torch.bfloat16
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        assert torch.autograd.forward_ad.unpack_dual(layer(dual)[0]).tangent is not None
    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda part: layer(part)[0])(x)
    assert "fusedrnn.network" in graph.code
    # TorchScript has no lists that operators take: an error, and no result that became a constant.
    with pytest.raises(RuntimeError, match="expected no module of fusedrnn"):
        torch.jit.trace(lambda part: layer(part)[0], x)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    check_same(compiled(x)[0], expected, 0.0)
    assert not any(taken)
    taken.clear()
    with torch.enable_grad():
        assert layer(x)[0].requires_grad
    assert taken == [HAS_TABLE]


def test_options_and_noise_go_the_long_way(taken: list[bool]) -> None:
    x = torch.randn(T, B, INPUT)
    layer = bridge.LSTM(INPUT, H, num_layers=2, dropout=0.5)
    torch.manual_seed(0)
    first, second = layer(x)[0], layer(x)[0]
    assert not torch.equal(first, second)
    noisy = bridge.GRUCell(INPUT, H, zoneout=0.5)
    assert not torch.equal(noisy(x[0], torch.ones(B, H)), noisy(x[0], torch.ones(B, H)))
    for options in (
        {"lengths": [5, 1, 3]},
        {"resets": torch.ones(T, B, dtype=torch.bool)},
        {"mask": torch.zeros(T, B, dtype=torch.bool)},
        {"reset_state": (torch.ones(2, H), torch.ones(2, H))},
        {"return_cells": True},
    ):
        layer.eval()(x, **options)
    assert not any(taken)
    layer(x), noisy.eval()(x[0])
    assert taken[-2:] == [HAS_TABLE] * 2


@pytest.mark.parametrize("name", ["LSTM", "GRUCell"])
def test_errors_are_those_of_the_long_way(name: str) -> None:
    module = getattr(bridge, name)(INPUT, H)
    shape = (T, B, INPUT) if name == "LSTM" else (B, INPUT)
    x = torch.randn(shape)
    state = torch.zeros(1, B, H) if name == "LSTM" else torch.zeros(B, H)
    wrong: list[tuple[Any, ...]] = [
        (x.double(),),
        (x.int(),),
        (x[..., 1:],),
        (x[None, None],),
        (x.to("meta"),),
        (x, state[..., 1:] if name == "GRUCell" else (state[..., 1:], state)),
        (x, state.double() if name == "GRUCell" else (state.double(), state)),
        (x, (state, state, state)),
        (x, [3]),
        (x.numpy(),),
        (None,),
        ([1.0],),
    ]
    if name == "LSTM":
        wrong += [(x[:0],), (x[:, :0],), (x, state), (x, (state, None))]
    for arguments in wrong:
        found = []
        for run in (module, lambda *given: the_long_way(module, *given)):
            try:
                found.append(tree_map(lambda t: t.shape, run(*arguments)))
            except Exception as error:
                found.append((type(error), str(error)))
        assert found[0] == found[1]


def test_memory_of_results_is_their_own() -> None:
    layer, x = bridge.GRU(64, 64), torch.randn(32, 8, 64)
    y, h = layer(x)
    kept = y.clone(), h.clone()
    layer(torch.randn(32, 8, 64)), gc.collect()
    check_bits((y, h), kept)
    y.zero_()
    check_bits(h, kept[1])
    part = y[3]
    del y
    gc.collect()
    assert part.abs().sum() == 0
    watched = weakref.ref(x)
    del x
    assert watched() is None
    with torch.inference_mode():
        assert layer(torch.randn(2, 1, 64))[0].is_inference()


@pytest.mark.skipif(not HAS_TABLE, reason="this PyTorch has no table")
def test_the_table_is_that_of_torchs_header() -> None:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    assert compiler, "a C++ compiler, which building this package needs too"
    command = [*compiler.split(), "-std=c++20", "-fsyntax-only"]
    command += [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}"]
    command += [f"-I{Path(torch.__file__).parent / 'include'}"]
    source = Path(__file__).parent / "exchange_table_test.cpp"
    subprocess.run([*command, str(source)], check=True)


def test_without_a_table() -> None:
    """Older PyTorch, and types whose attribute is something else."""
    program = """
import numpy as np, torch
if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    del torch.Tensor.__dlpack_c_exchange_api__
import fusedrnn as fr, fusedrnn.torch as bridge
torch.manual_seed(0)
cell, theirs = bridge.GRUCell(4, 6), torch.nn.GRUCell(4, 6)
theirs.load_state_dict(cell.state_dict())
x, h = torch.randn(3, 4), torch.randn(3, 6)
with torch.no_grad():
    torch.testing.assert_close(cell(x, h), theirs(x, h))
cell(x, h).sum().backward()
y, state = fr.GRU(4, 6, seed=0).freeze().step(x)
assert type(y) is torch.Tensor
class Odd:
    __dlpack_c_exchange_api__ = 5
    def __init__(self, array): self.array = array
    def __dlpack__(self, **given): return self.array.__dlpack__(**given)
    def __dlpack_device__(self): return self.array.__dlpack_device__()
found = fr.GRU(4, 6, seed=0).step(Odd(x.numpy()))[0]
np.testing.assert_array_equal(found, y)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
