"""What cannot be read from ONNX, run or written to it, and the words for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fusedrnn as fr
from convert_support import B, H, I, T, layer_of, rejected
from fusedrnn.convert import from_onnx, to_onnx
from onnx_support import LENGTHS, changed, model_of, weights_of

helper = pytest.importorskip("onnx").helper


def test_attributes_that_cells_do_not_have() -> None:
    none = "expected none, for layers have none, got "
    names = (
        "Sigmoid, Tanh, Relu, Softsign, Softplus, LeakyRelu, Elu, ThresholdedRelu, HardSigmoid, "
        "Affine, ScaledTanh"
    )
    for model, message in [
        (changed("LSTM", clip=-3.0), "clip: expected None or a number of at least 1e-9, got -3.0"),
        (changed("LSTM", input_forget=2), "input_forget: expected 0 or 1, got 2"),
        (
            changed("LSTM", activations=["Sigmoid", "Gelu", "Tanh"]),
            f"activations: expected 3 of {names}, got ['Sigmoid', 'Gelu', 'Tanh']",
        ),
        (
            changed("GRU", activations=["Sigmoid"]),
            f"activations: expected 2 of {names}, got ['Sigmoid']",
        ),
        (
            changed("GRU", activations=["Sigmoid", "Tanh"], activation_alpha=[0.5]),
            "activation_alpha: expected 0 numbers with the activations ['Sigmoid', 'Tanh'], got "
            "[0.5]",
        ),
        (
            changed("RNN", activations=["Affine"], activation_alpha=[2.0]),
            "activation_beta: expected 1 numbers with the activations ['Affine'], got []",
        ),
        (
            changed("RNN", activations=["ThresholdedRelu"]),
            "activation_alpha: expected 1 numbers with the activations ['ThresholdedRelu'], got []",
        ),
        (
            changed("RNN", activations=["Elu"], activation_alpha=[float("inf")]),
            "activations: expected a finite number, got inf",
        ),
    ]:
        rejected(ValueError, f"node 'n', {message}", from_onnx, model)
    model = changed("GRU")
    model.graph.node[0].attribute.append(helper.make_attribute("direction", "sideways"))
    rejected(
        ValueError,
        "node 'n', direction: expected 'forward' or 'reverse' or 'bidirectional', got 'sideways'",
        *(from_onnx, model),
    )
    model.graph.node[0].attribute.pop()
    model.graph.node[0].attribute.append(helper.make_attribute("output_sequence", 1))
    rejected(ValueError, f"node 'n', output_sequence: {none}1", from_onnx, model)
    model = changed("RNN")
    model.graph.node[0].attribute.append(helper.make_attribute("activation_alpha", 1.0))
    rejected(ValueError, "node 'n', activation_alpha: expected a list, got 1.0", from_onnx, model)
    for hidden_size in (0, -1, H + 1):
        model.graph.node[0].attribute.pop()
        model.graph.node[0].attribute.append(helper.make_attribute("hidden_size", hidden_size))
        message = f"node 'n', hidden_size: expected {H}, the last axis of R, got {hidden_size}"
        rejected(ValueError, message, from_onnx, model)


def test_weights_that_do_not_fit() -> None:
    zeros = np.zeros
    for weights, message in [
        (
            {"W": zeros((1, 4 * H, I), "f4")},
            f"W: expected shape (1, {3 * H}, *), got (1, {4 * H}, {I})",
        ),
        (
            {"R": zeros((1, 3 * H, I), "f4")},
            f"hidden_size: expected {I}, the last axis of R, got {H}",
        ),
        ({"B": zeros((1, 3 * H), "f4")}, f"B: expected shape (1, {6 * H}), got (1, {3 * H})"),
        (
            {"W": zeros((2, 3 * H, I), "f4")},
            f"W: expected shape (1, {3 * H}, *), got (2, {3 * H}, {I})",
        ),
    ]:
        rejected(ValueError, f"node 'n', {message}", from_onnx, changed("GRU", weights))
    rejected(
        ValueError,
        "node 'n', 0: expected dtype float32, got float64",
        *(from_onnx, changed("GRU", {"B": zeros((1, 6 * H))})),
    )


def test_weights_that_are_not_constant() -> None:
    inputs = {"B": weights_of("GRU")["B"]}
    weights = {k: v for k, v in weights_of("GRU").items() if k != "B"}
    model = model_of("GRU", weights, inputs, name="n", hidden_size=H)
    message = "node 'n', B: expected an initializer or a constant, got "
    rejected(ValueError, f"{message}the input 'B' of the model", from_onnx, model)
    model.graph.input[1].name = "b"
    model.graph.node.insert(0, helper.make_node("Neg", ["b"], ["B"]))
    rejected(ValueError, f"{message}the output 'B' of a node Neg", from_onnx, model)
    model.graph.node[0].op_type = "Identity"
    rejected(ValueError, f"{message}the output 'B' of a node Identity", from_onnx, model)
    model.graph.node[1].input[1] = ""
    rejected(ValueError, "node 'n', W: expected an input, got none", from_onnx, model)
    loop = changed("GRU")
    del loop.graph.initializer[2]
    loop.graph.node.insert(0, helper.make_node("Identity", ["B"], ["B"]))
    rejected(ValueError, f"{message}the output 'B' of a node Identity", from_onnx, loop)


def test_a_broken_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"^model: expected an ONNX model at .*, got none"):
        from_onnx(path)
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "nothing.onnx")
    rejected(TypeError, "model: expected a path, got int", from_onnx, 3)
    model = changed("GRU")
    model.graph.initializer[0].raw_data = b"short"
    with pytest.raises(ValueError, match=r"^W: expected a tensor, got a broken one"):
        from_onnx(model)
    model = changed("GRU")
    model.graph.initializer[2].name = "b"
    model.graph.node.insert(0, helper.make_node("Concat", ["b"], ["B"], axis=7))
    with pytest.raises(ValueError, match=r"^B: expected a constant, got a Concat that cannot be"):
        from_onnx(model)


def test_inputs_of_a_run() -> None:
    inputs = {"sequence_lens": LENGTHS, "initial_h": np.zeros((1, B, H), np.float32)}
    node = from_onnx(model_of("GRU", weights_of("GRU"), inputs, hidden_size=H))
    x = np.zeros((T, B, I), np.float32)
    for missing in inputs:
        given = {name: value for name, value in inputs.items() if name != missing}
        rejected(
            ValueError,
            f"{missing}: expected an array (zeros for no state), for the node reads the input "
            f"{missing!r} of the model, got None",
            *(node.run, x),
            **given,
        )
    node = from_onnx(changed("GRU"))
    for given, message in [
        ({"x": x[..., :2]}, f"x: expected shape (*, *, {I}), got ({T}, {B}, 2)"),
        (
            {"initial_h": np.zeros((B, 1, H), "f4")},
            f"initial_h: expected shape (1, {B}, {H}), got ({B}, 1, {H})",
        ),
        (
            {"initial_c": np.zeros((1, B, H), "f4")},
            "initial_c: expected None for an GRU, got an array",
        ),
        (
            {"sequence_lens": np.ones(2, np.int32)},
            f"sequence_lens: expected integers of shape ({B},), got int32 of shape (2,)",
        ),
        (
            {"sequence_lens": np.ones(B)},
            f"sequence_lens: expected integers of shape ({B},), got float64 of shape ({B},)",
        ),
        ({"sequence_lens": [1, T + 1, 0]}, f"sequence_lens[1]: expected 0 to {T}, got {T + 1}"),
        ({"sequence_lens": [1, 1, -1]}, f"sequence_lens[2]: expected 0 to {T}, got -1"),
    ]:
        rejected(ValueError, message, lambda x=x, **rest: node.run(x, **rest), **given)


def test_what_onnx_does_not_have(tmp_path: Path) -> None:
    for layer, message in [
        (fr.IndRNN(I, H), "RNN, GRU or LSTM, which ONNX has"),
        (fr.LSTM(I, H, proj_size=2), "no projection (proj_size=0), which ONNX has not"),
    ]:
        rejected(ValueError, f"layer: expected {message}, got {layer!r}", to_onnx, layer)
    rejected(TypeError, "layer: expected a layer of fusedrnn, got dict", to_onnx, {})
    rejected(TypeError, "state: expected a bool, got int", to_onnx, layer_of("gru"), state=1)
    rejected(TypeError, "path: expected a path, got int", to_onnx, layer_of("gru"), 3)
    with pytest.raises(ValueError, match=r"^path: expected a file or nothing at .*, got something"):
        to_onnx(layer_of("gru"), tmp_path)
    with pytest.raises(FileNotFoundError):
        to_onnx(layer_of("gru"), tmp_path / "no folder" / "model.onnx")
    assert not list(tmp_path.iterdir())
