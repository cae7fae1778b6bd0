"""Mistakes that the Python layer itself must catch; `test_errors.py` has those of the arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import _core
from support import Arguments, backward, forward, problem_of

FUNCTIONS = ["rnn", "gru", "lstm", "rnn_forward", "gru_forward", "lstm_forward"]


def of(function: str) -> Arguments:
    return problem_of(function.removesuffix("_forward"), "float32")[0]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("value", [None, 1, "yes", np.ones(1)])
def test_reverse_is_a_bool(function: str, value: Any) -> None:
    message = f"^reverse: expected a bool, got {type(value).__name__}$"
    with pytest.raises(TypeError, match=message):
        getattr(fr, function)(**of(function), reverse=value)


def test_numpy_bools_are_bools() -> None:
    x = of("gru")
    y, _ = fr.gru(**x, reverse=np.True_, reset_after=np.False_)  # type: ignore[arg-type]
    assert np.array_equal(y, fr.gru(**x, reverse=True, reset_after=False)[0])


@pytest.mark.parametrize("function", ["gru", "gru_forward"])
def test_reset_after_is_a_bool(function: str) -> None:
    with pytest.raises(TypeError, match=r"^reset_after: expected a bool, got int$"):
        getattr(fr, function)(**of(function), reset_after=1)


@pytest.mark.parametrize("function", ["rnn", "rnn_forward"])
def test_nonlinearity_is_known(function: str) -> None:
    message = "^nonlinearity: expected 'sigmoid', 'tanh', .* or 'thresholded_relu', got 'mish'$"
    with pytest.raises(ValueError, match=message):
        getattr(fr, function)(**of(function), nonlinearity="mish")
    with pytest.raises(TypeError, match=r"^nonlinearity: expected a name, or .*, got NoneType$"):
        getattr(fr, function)(**of(function), nonlinearity=None)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("option", ["w_pr", "zoneout", "dropout", "batch_first"])
def test_unknown_options_are_refused(function: str, option: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
        getattr(fr, function)(**of(function), **{option: None})


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_tape_of_something_else(cell: str) -> None:
    other = {"rnn": "gru", "gru": "lstm", "lstm": "rnn"}[cell]
    _, tape = forward(other, **of(other))
    message = f"^tape: expected the tape of {cell}_forward, got that of {other}_forward$"
    with pytest.raises(ValueError, match=message):
        backward(cell, tape)

    layer = fr.LSTM(2, 3)
    *_, layer_tape = layer.forward(of("lstm")["x"])
    for value in (None, "tape", layer_tape, tape.core):
        message = f"^tape: expected the tape of {cell}_forward, got {type(value).__name__}$"
        with pytest.raises(TypeError, match=message):
            backward(cell, value)


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_only_an_lstm_has_a_cell_state(cell: str) -> None:
    problem = of(cell)
    with pytest.raises(TypeError, match="unexpected keyword argument 'c0'"):
        forward(cell, **problem, c0=None)
    _, tape = forward(cell, **problem)
    with pytest.raises(TypeError, match="unexpected keyword argument 'dc_n'"):
        backward(cell, tape, dc_n=None)


def test_the_compiled_function_counts_its_arguments() -> None:
    with pytest.raises(TypeError, match=r"^run: expected 14 arguments, got 0$"):
        _core.run()  # type: ignore[call-arg]
    layer = fr.GRU(2, 3, seed=0)
    with pytest.raises(TypeError, match=r"^fast_step: expected 3 to 4 arguments, got 0$"):
        layer.freeze()._fast_step()
