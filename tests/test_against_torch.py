"""The layers against torch.nn and its autograd in float64."""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from support import LAYERS, check

BOUND = 1e-11
TORCH = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}


def as_pair(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


def as_state(values: Any) -> Any:
    return tuple(values) if len(values) > 1 else values[0]


def check_against_torch(
    cell: str,
    *,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    bias: bool,
    lengths: bool,
    initial: bool,
    nonlinearity: str = "tanh",
    seed: int,
) -> None:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"nonlinearity": nonlinearity} if cell == "rnn" else {}
    options |= {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional}
    theirs = TORCH[cell](input_size, hidden_size, num_layers, **options, dtype=torch.float64)
    ours = LAYERS[cell](input_size, hidden_size, num_layers, **options, dtype="float64")
    ours.load_state_dict(theirs.state_dict())

    double: dict[str, Any] = {"dtype": torch.float64}
    axes = (batch, steps) if batch_first else (steps, batch)
    rows = num_layers * (2 if bidirectional else 1)
    x = torch.randn(*axes, input_size, **double).requires_grad_()
    states = [
        torch.randn(rows, batch, hidden_size, **double).requires_grad_()
        for _ in range(2 if cell == "lstm" else 1)
    ]
    limits = torch.randint(1, steps + 1, (batch,)) if lengths else None

    given: Any = x
    if limits is not None:
        given = torch.nn.utils.rnn.pack_padded_sequence(
            x, limits, batch_first=batch_first, enforce_sorted=False
        )
    y, state = theirs(given, as_state(states) if initial else None)
    if limits is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(
            y, batch_first=batch_first, total_length=steps
        )
    y_ours, state_ours, tape = ours.forward(
        x.detach(), as_state([s.detach() for s in states]) if initial else None, limits
    )
    names = ["y", "h", "c"]
    got = dict(zip(names, (y_ours, *as_pair(state_ours)), strict=False))
    expected = dict(zip(names, (y.detach(), *(s.detach() for s in as_pair(state))), strict=False))
    check(got, expected, BOUND)

    upstream = [torch.randn_like(value) for value in (y, *as_pair(state))]
    torch.autograd.backward((y, *as_pair(state)), upstream)
    grads = ours.backward(tape, upstream[0], as_state(upstream[1:]))
    expected = {name: value.grad for name, value in theirs.named_parameters()} | {"x": x.grad}
    for name, leaf in zip(("h0", "c0"), states, strict=False):
        if initial:
            expected[name] = leaf.grad
        else:
            del grads[name]
    check(grads, expected, BOUND)


@pytest.mark.parametrize("cell", TORCH)
@hypothesis.given(
    configuration=st.fixed_dictionaries(
        {
            "steps": st.integers(1, 12),
            "batch": st.integers(1, 9),
            "input_size": st.integers(1, 40),
            "hidden_size": st.integers(1, 40),
            "num_layers": st.integers(1, 3),
            "bidirectional": st.booleans(),
            "batch_first": st.booleans(),
            "bias": st.booleans(),
            "lengths": st.booleans(),
            "initial": st.booleans(),
            "nonlinearity": st.sampled_from(["tanh", "relu"]),
            "seed": st.integers(0, 1000),
        }
    )
)
def test_random_configurations(cell: str, configuration: dict[str, Any]) -> None:
    check_against_torch(cell, **configuration)


@pytest.mark.parametrize("cell", TORCH)
@pytest.mark.parametrize("lengths", [False, True])
def test_large(cell: str, lengths: bool) -> None:
    check_against_torch(
        cell,
        steps=30,
        batch=16,
        input_size=96,
        hidden_size=128,
        num_layers=2,
        bidirectional=True,
        batch_first=False,
        bias=True,
        lengths=lengths,
        initial=True,
        seed=0,
    )


@pytest.mark.parametrize("cell", TORCH)
def test_parameters_have_the_same_names_order_and_shapes(cell: str) -> None:
    theirs = TORCH[cell](3, 5, 2, bidirectional=True)
    ours = LAYERS[cell](3, 5, 2, bidirectional=True, seed=0)
    shapes = [(name, tuple(value.shape)) for name, value in theirs.named_parameters()]
    assert [(name, value.shape) for name, value in ours.parameters().items()] == shapes


@pytest.mark.parametrize("cell", TORCH)
def test_state_dicts_go_both_ways(cell: str) -> None:
    theirs = TORCH[cell](3, 5, 2, bidirectional=True, dtype=torch.float64)
    ours = LAYERS[cell](3, 5, 2, bidirectional=True, dtype="float64", seed=0)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((4, 2, 3))
    with torch.no_grad():
        y, _ = theirs(torch.from_numpy(x))
    check({"y": ours(x)[0]}, {"y": y}, BOUND)
