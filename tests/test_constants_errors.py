"""Limits and activations of one's own: what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import _core
from fusedrnn.cells import constants
from fusedrnn.runs import Run


def test_wrong_limits() -> None:
    x, w_ih, w_hh = (np.zeros(shape, "float32") for shape in ((2, 1, 3), (16, 3), (16, 4)))
    for name in ("clip", "cell_clip"):
        for wrong in (0, -1.0, math.nan, 1e-10):
            message = rf"^{name}: expected None or a number of at least 1e-9, got {wrong}$"
            with pytest.raises(ValueError, match=message):
                fr.lstm(x, w_ih, w_hh, **{name: wrong})
            with pytest.raises(ValueError, match=message):
                fr.LSTM(3, 4, **{name: wrong})
        with pytest.raises(TypeError, match=rf"^{name}: expected a number, got bool$"):
            fr.lstm_forward(x, w_ih, w_hh, **{name: True})
    with pytest.raises(
        ValueError, match=r"^clip: expected None or a number of at least 1e-9, got 0$"
    ):
        fr.RNN(3, 4, clip=0)
    with pytest.raises(
        ValueError, match=r"^clip: expected None or a number of at least 1e-9, got 0$"
    ):
        fr.GRU(3, 4, clip=0)
    message = r"^cell_clip_nan: expected 'propagate' or 'limit', got 'stop'$"
    with pytest.raises(ValueError, match=message):
        fr.lstm(x, w_ih, w_hh, cell_clip=1.0, cell_clip_nan="stop")
    message = r"^cell_clip_nan: expected 'propagate' with cell_clip=None, got 'limit'$"
    with pytest.raises(ValueError, match=message):
        fr.lstm(x, w_ih, w_hh, cell_clip_nan="limit")


def test_wrong_activations() -> None:
    names = "'sigmoid', 'tanh', 'relu', .* or 'thresholded_relu'"
    with pytest.raises(ValueError, match=rf"^nonlinearity: expected {names}, got 'mish'$"):
        fr.RNN(3, 4, nonlinearity="mish")
    with pytest.raises(TypeError, match=r"^nonlinearity: expected a name, or a tuple .*, got int$"):
        fr.RNN(3, 4, nonlinearity=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^nonlinearity: expected none after 'tanh', got 1 numb"):
        fr.RNN(3, 4, nonlinearity=("tanh", 1.0))
    with pytest.raises(ValueError, match=r"^nonlinearity: expected alpha after 'elu', got 2 numb"):
        fr.RNN(3, 4, nonlinearity=("elu", 1.0, 2.0))
    with pytest.raises(ValueError, match=r"^nonlinearity: expected a finite number, got inf$"):
        fr.RNN(3, 4, nonlinearity=("elu", math.inf))
    with pytest.raises(TypeError, match=r"^nonlinearity: expected a number, got str$"):
        fr.RNN(3, 4, nonlinearity=("elu", "1"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^nonlinearity: expected a name and .*, got \(\)$"):
        fr.RNN(3, 4, nonlinearity=())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^activations: expected a tuple of 2 .*\(f, g\), got 3$"):
        fr.GRU(3, 4, activations=("sigmoid", "tanh", "tanh"))
    with pytest.raises(TypeError, match=r"^activations: expected a tuple of 3 .*, got str$"):
        fr.LSTM(3, 4, activations="relu")
    with pytest.raises(ValueError, match=rf"^activations\[1\]: expected {names}, got 'mish'$"):
        fr.LSTM(3, 4, activations=("sigmoid", "mish", "tanh"))
    with pytest.raises(ValueError, match=r"^runs\[0\].constants\[2\]: expected a finite "):
        fr.RNN(3, 4, nonlinearity=("elu", 1e300))
    wide = fr.RNN(3, 4, nonlinearity=("elu", 1e300), dtype="float64")
    assert wide.nonlinearity == ("elu", 1e300)


def test_the_module_checks_constants() -> None:
    def network(cell: str, numbers: tuple[float, ...]) -> _core.Network:
        return _core.Network(Run(cell, False, 0, 1, 0, 0, 3, 4, 0, 1, numbers).record(), "float32")

    count = r"^runs\[0\].num_constants: expected"
    with pytest.raises(ValueError, match=rf"{count} 0 \(gru has no constants\), got 1$"):
        network("gru", (1.0,))
    with pytest.raises(ValueError, match=rf"{count} 7, got 2$"):
        network("gru_general", (1.0, 2.0))
    usual = constants.numbers((None,), (("sigmoid",), ("tanh",)))
    for index, wrong, message in (
        (0, math.nan, r"at least 1e-09 \(clip\), got nan"),
        (0, -1.0, r"at least 1e-09 \(clip\), got -1"),
        (1, 12.0, r"a fusedrnn_activation, 0 to 11 \(f\), got 12"),
        (1, 0.5, r"a fusedrnn_activation, 0 to 11 \(f\), got 0.5"),
        (1, math.nan, r"a fusedrnn_activation, 0 to 11 \(f\), got nan"),
        (5, math.inf, r"a finite number of float32 \(g_alpha\), got inf"),
        (6, 1e39, r"a finite number of float32 \(g_beta\), got 1e\+39"),
    ):
        numbers = (*usual[:index], wrong, *usual[index + 1 :])
        with pytest.raises(
            ValueError, match=rf"^runs\[0\].constants\[{index}\]: expected {message}$"
        ):
            network("gru_general", numbers)
    with pytest.raises(ValueError, match=r"^runs: expected what a record can hold, got Run"):
        network("gru_general", (1.0,) * 17)


def test_a_reserve_belongs_to_its_constants() -> None:
    x = np.zeros((2, 1, 3), "float32")
    networks = [
        _core.Network(
            Run("rnn_general", False, 0, 1, 0, 0, 3, 4, 0, 1, (clip, 1.0, 0.0, 0.0)).record(),
            "float32",
        )
        for clip in (0.5, 0.25)
    ]
    weights = (np.ones((4, 3), "float32"), np.ones((4, 4), "float32"), None, None)
    *_, tape = networks[0].forward(x, weights, save=True)
    assert tape is not None
    assert tape.reserve is not None
    _core.Tape(networks[0], x, weights, None, tape.reserve).backward(None, None, None, False)
    with pytest.raises(ValueError, match=r"^reserve: expected what a forward call of this network"):
        _core.Tape(networks[1], x, weights, None, tape.reserve).backward(None, None, None, False)
