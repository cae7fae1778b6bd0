"""The operators of fusedrnn.torch by PyTorch's own checks, and the sizes of reserves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.library import opcheck

from fusedrnn.torch.plan import call_key, network_key, plan_of

OPS = torch.ops.fusedrnn
CELLS = (
    "lstm",
    "gru",
    "rnn_tanh",
    "slstm",
    "lstm_layer_norm",
    "lstm_projection",
    "gru_world_model",
)


def key_of(
    cell: str, *, layers: int = 2, directions: int = 2, lean: bool = False, **call: Any
) -> str:
    projection = 2 if "projection" in cell else 0
    description = (cell, 3, 4, projection, 1, layers, (), (), directions)
    usual = {"shows_last": False, "cells": False, "dropout": 0.0}
    return call_key(network_key(description, None, lean), **(usual | call))


def arrays_of(key: str, *, masked: bool = True, grad: bool = True) -> list[Any]:
    """Random float64 of everything there may be."""
    T, B, plan = 5, 2, plan_of(key)
    network = plan.network("float64", False)
    shapes = [(T, B, 3), *(shape for _, _, shape, _ in network.parameters)]
    shapes += [(len(plan.runs), B, size) for size in plan.state_sizes]
    shapes += [(len(plan.runs), size) for size in plan.state_sizes]
    generator = torch.Generator().manual_seed(4)
    arrays: list[Any] = [
        torch.randn(shape, dtype=torch.float64, generator=generator).mul_(0.7).requires_grad_(grad)
        for shape in shapes
    ]
    if not masked:
        states = 2 * plan.num_states
        return [*arrays[:-states], *[None] * (states + 4)]
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2, 0] = True
    return [*arrays, torch.tensor([5, 3]), torch.rand(T, B) < 0.8, resets, None]


@pytest.fixture
def filled() -> Iterator[None]:
    """Reserves have bytes that nobody writes; in this mode they are the same each time."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("masked", [False, True])
def test_opcheck(masked: bool) -> None:
    key = key_of("lstm", cells=True)
    arrays = arrays_of(key, masked=masked)
    *results, reserve = OPS.network_train(key, arrays)
    upstream = [torch.randn_like(result).requires_grad_() for result in results]
    upstream[1] = None  # type: ignore[call-overload]
    tangents = [a if torch.is_tensor(a) and a.requires_grad else None for a in arrays]
    opcheck(OPS.network.default, (key, arrays))
    opcheck(OPS.network_train.default, (key, arrays))
    opcheck(OPS.network_backward.default, (key, arrays, reserve, upstream, True))
    opcheck(OPS.network_backward.default, (key, arrays, reserve, upstream, False))
    opcheck(OPS.network_jvp.default, (key, arrays, tangents))
    # Of the last derivative there are none.
    last = (key, arrays_of(key, masked=masked, grad=False), tangents, upstream, upstream)
    last = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, last)
    opcheck(OPS.network_backward_jvp.default, last)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("lean", [False, True])
def test_reserves_have_room(cell: str, lean: bool) -> None:
    """Whatever T and B: what graphs know as an expression is at least what a call writes."""
    plan = plan_of(key_of(cell, lean=lean))
    sizes = (0, 1, 2, 3, 5, 8, 17, 31, 64, 65, 100, 129, 1000)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        network = plan.network(str(dtype).removeprefix("torch."), False)
        for T in sizes:
            for B in sizes:
                exact = network.reserve_bytes(T, B)
                bound = plan.reserve_bound(torch.empty(T, B, 0, dtype=dtype))
                assert exact <= bound
                times = 2.1 if lean else 1  # from checkpoint to checkpoint go whole blocks of steps
                assert T * B == 0 or bound <= times * exact + 64 * 21 * (len(plan.runs) + 1)


def test_reserve_moves(tmp_path: Any) -> None:
    """It is bytes: what comes back from a disk, to any address, is as good."""
    key = key_of("gru")
    arrays = arrays_of(key, grad=False)
    y, *_, reserve = OPS.network_train(key, arrays)
    upstream = [torch.ones_like(y), None]
    expected = OPS.network_backward(key, arrays, reserve, upstream, True)
    torch.save(reserve, tmp_path / "reserve")
    loaded = torch.load(tmp_path / "reserve")
    room = torch.empty(len(loaded) + 1, dtype=torch.uint8)
    room[1:] = loaded  # at an odd address
    for moved in (loaded, room[1:]):
        for a, b in zip(
            OPS.network_backward(key, arrays, moved, upstream, True), expected, strict=True
        ):
            assert torch.equal(a, b)


def test_wrong_arguments_are_errors() -> None:
    key = key_of("gru")
    arrays = arrays_of(key, grad=False)
    for wrong in ("", "[]", "{}", "[[1]]", key.replace("gru", "gro"), key.replace("3", "-3")):
        with pytest.raises(ValueError, match=r"^structure: expected what fusedrnn.torch's modules"):
            OPS.network(wrong, arrays)
    with pytest.raises(ValueError, match=r"^arrays: expected \d+ of them, got 3"):
        OPS.network(key, arrays[:3])
    with pytest.raises(TypeError, match=r"^x: expected a tensor, got None"):
        OPS.network(key, [None, *arrays[1:]])
    with pytest.raises(ValueError, match=r"^x: expected a tensor \[T, B, I\]"):
        OPS.network(key, [arrays[0][0], *arrays[1:]])
    with pytest.raises(ValueError, match=r"^w_ih|^parameters|w_ih"):
        OPS.network(key, [arrays[0], arrays[2], *arrays[2:]])
    with pytest.raises(
        TypeError, match=r"^x: expected dtype float32, float64, bfloat16 or float16, "
    ):
        OPS.network(key, [arrays[0].int(), *arrays[1:]])
    *_, reserve = OPS.network_train(key, arrays)
    y = OPS.network(key, arrays)[0]
    with pytest.raises(ValueError, match=r"^reserve: expected \d+ bytes"):
        OPS.network_backward(key, arrays, reserve[:64], [y, None], True)
    with pytest.raises(ValueError, match=r"^reserve: expected what a forward call"):
        OPS.network_backward(key, arrays, torch.zeros_like(reserve), [y, None], True)
    half = [a.bfloat16() if torch.is_tensor(a) and a.is_floating_point() else a for a in arrays]
    with pytest.raises(TypeError, match=r"^x: expected dtype float32 or float64"):
        OPS.network_jvp(key, half, half)
