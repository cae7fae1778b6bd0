"""What mypy says of words that are none: it asks for each ignored error to be there.

Nothing here runs.
"""

from __future__ import annotations

from typing import Any

import fusedrnn as fr


def wrong_words(x: Any, w: Any) -> None:
    fr.RNN(2, 3, nonlinearity="softmax")  # type: ignore[arg-type]
    fr.RNN(2, 3, init="orthagonal")  # type: ignore[arg-type]
    fr.rnn(x, w, w, nonlinearity="softmax")  # type: ignore[arg-type]
    fr.rnn(x, w, w, nonlinearity=("elu", 0.5, 1.0, 2.0))  # type: ignore[arg-type]
    fr.gru(x, w, w, padding="first")  # type: ignore[call-overload]
    fr.gru(x, w, w, activations=("sigmoid", "gelu"))  # type: ignore[arg-type]
    fr.lstm(x, w, w, cell_clip_nan="ignore")  # type: ignore[call-overload]
    fr.mingru(x, w, candidate="exp")  # type: ignore[arg-type]
    fr.slstm(x, w, w, forget="tanh")  # type: ignore[call-overload]
    fr.gru_layer_norm(x, w, w, w, w, w, w, padding="first")  # type: ignore[call-overload]
    fr.WorldModelGRU(2, 3, recurrent_dropout_mode="candidate")  # type: ignore[arg-type]
    fr.rnn_forward(x, w, w, memory="less")  # type: ignore[arg-type]
    fr.GRU(2, 3, memory="less")  # type: ignore[arg-type]
    fr.LSTM(2, 3).freeze("int4")  # type: ignore[arg-type]
    fr.LSTM(2, 3).freeze()(x, padding="first")  # type: ignore[call-overload]
    fr.convert.from_keras([w, w], cell="lstms")  # type: ignore[arg-type]
    fr.convert.from_keras([w, w], cell="rnn", nonlinearity="softmax")  # type: ignore[arg-type]
    fr.convert.from_flax({}, nonlinearity="softmax")  # type: ignore[arg-type]
    fr.convert.to_flax(fr.GRU(2, 3), form="nxx")  # type: ignore[arg-type]
    fr.LSTM(2, 3, 2, dropout="half")  # type: ignore[arg-type]
    fr.LSTM(2, 3, 2).dropout_state = 7  # type: ignore[assignment]
    fr.LSTM(2, 3, 2).training = True  # type: ignore[misc]


def right_words(x: Any, w: Any) -> None:
    fr.RNN(2, 3, nonlinearity=("leaky_relu", 0.1), init="orthogonal").freeze("int8")
    fr.gru(x, w, w, padding="last", activations=("hard_sigmoid", ("elu", 0.5)))
    y, (h_n, c_n) = fr.lstm(x, w, w)
    y, (h_n, c_n), c = fr.lstm(x, w, w, return_cells=True)
    y, (h_n, c_n) = fr.lstm_layer_norm(x, w, w, w, w, w, w, w, w)
    y, (h_n, c_n), c = fr.lstm_layer_norm(x, w, w, w, w, w, w, w, w, return_cells=True)
    y, h_n = fr.gru_world_model(x, w, w, w, w)
    y, h_n, gates = fr.gru(x, w, w, return_gates=True)
    y, (h_n, c_n), c, gates = fr.lstm(x, w, w, return_cells=True, return_gates=True)
    y, (h_n, c_n), c = fr.LSTM(2, 3)(x, return_cells=True, out=(x, (x, x), x))
    y, state, c, n, m = fr.SLSTM(2, 3)(x, return_cells=True)
    y, state, c, n, m, slstm_tape = fr.SLSTM(2, 3).forward(x, return_cells=True)
    y, state, c, lstm_tape = fr.LSTM(2, 3).forward(x, return_cells=True)
    fr.LSTM(2, 3).backward(lstm_tape)
    y, state = fr.LSTM(2, 3).freeze()(x)
    y, state, c = fr.LSTM(2, 3).freeze()(x, return_cells=True, out=(x, (x, x), x))
    layer: fr.LSTM = fr.LSTM(2, 3, 2, dropout=0.5).eval().train()
    layer.dropout_state = (7, 0)
    del y, h_n, c_n, c, n, m, gates, state, slstm_tape
    fr.torch.RNN(2, 3, nonlinearity="softmax")  # type: ignore[arg-type]
    fr.torch.LSTM(2, 3, peephole="yes")  # type: ignore[arg-type]
    fr.torch.GRUCell(2, 3, peephole=True)  # type: ignore[call-arg]
