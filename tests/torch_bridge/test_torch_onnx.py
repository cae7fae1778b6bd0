"""torch.onnx.export of fusedrnn.torch's modules, run by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn

import fusedrnn.torch as bridge
from torch_support import check_same

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Model(nn.Module):
    """Every kind of node, and a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = bridge.LSTM(4, 3, 2, bidirectional=True, peephole=True, batch_first=True)
        self.gru = bridge.GRU(6, 3, reset_after=False, dropout=0.0, clip=0.8)
        self.rnn = bridge.RNN(3, 3, 2, "leaky_relu", bias=False)
        self.cell = bridge.LSTMCell(3, 3)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, n: torch.Tensor) -> Any:
        y, state = self.lstm(x, (h, c), lengths=n)
        y, _ = self.gru(y.transpose(0, 1))
        y, last = self.rnn(y)
        return y, last, *state, *self.cell(y[0])


def inputs(B: int, T: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(B)
    h, c = torch.randn(2, 4, B, 3)
    return torch.randn(B, T, 4), h, c, torch.arange(B) % T + 1


def test_export(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = Model().eval()
    B, T = torch.export.Dim("B"), torch.export.Dim("T")
    program = torch.onnx.export(
        model,
        inputs(3, 5),
        dynamo=True,
        verbose=False,
        dynamic_shapes={"x": {0: B, 1: T}, "h": {1: B}, "c": {1: B}, "n": {0: B}},
    )
    assert program is not None
    nodes = [node.op_type for node in program.model.graph]
    counts = {op_type: nodes.count(op_type) for op_type in ("LSTM", "GRU", "RNN")}
    assert counts == {"LSTM": 3, "GRU": 1, "RNN": 2}
    assert {node.domain for node in program.model.graph} == {""}
    path = str(tmp_path / "model.onnx")
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    for B, T in ((3, 5), (1, 1), (6, 9)):
        given = inputs(B, T)
        names = [argument.name for argument in session.get_inputs()]
        found = session.run(None, {n: v.numpy() for n, v in zip(names, given, strict=True)})
        check_same([torch.from_numpy(part) for part in found], list(model(*given)), 1e-5)


def test_what_onnx_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    for ask in ("is_plain", "only_autograd"):  # no export's tensors are
        monkeypatch.setattr(f"fusedrnn.torch.base.{ask}", lambda *_: False)
    x = torch.zeros(5, 2, 4)
    plain = bridge.GRU(4, 3).eval()
    resets = torch.zeros(5, 2, dtype=torch.bool)
    for call, text in (
        (lambda: bridge.MinGRU(4, 3)(x), "layer: expected RNN, GRU or LSTM, which ONNX has"),
        (
            lambda: bridge.GRU(4, 3, layer_norm=True)(x),
            "layer: expected no layer normalisation, which ONNX has not",
        ),
        (lambda: bridge.LSTM(4, 3, proj_size=2)(x), "layer: expected no projection"),
        (lambda: bridge.GRU(4, 3, 2, dropout=0.5)(x), "of a module in evaluation, got more"),
        (lambda: plain(x, resets=resets), "nothing but lengths beside hx"),
        (lambda: plain(x, padding="last"), "nothing but lengths beside hx"),
        (lambda: plain(x, reset_state=torch.zeros(1, 3)), "nothing but lengths beside hx"),
        (lambda: bridge.LSTM(4, 3)(x, return_cells=True), "nothing but lengths beside hx"),
    ):
        with (
            pytest.warns(UserWarning, match="^torch.onnx.export: "),
            pytest.raises(ValueError, match=text),
        ):
            call()
