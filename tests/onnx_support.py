"""Models of one node of ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convert_support import H, I, T

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

LENGTHS = np.array([T, 2, 1], np.int32)


def weights_of(op_type: str, directions: int = 1, seed: int = 5) -> dict[str, np.ndarray[Any, Any]]:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op_type]
    rng = np.random.default_rng(seed)
    shape = {
        "W": (directions, gates * H, I),
        "R": (directions, gates * H, H),
        "B": (directions, 2 * gates * H),
    }
    return {k: rng.uniform(-0.5, 0.5, s).astype(np.float32) for k, s in shape.items()}


def model_of(
    op_type: str,
    weights: dict[str, Any],
    inputs: dict[str, np.ndarray[Any, Any]] | None = None,
    name: str = "",
    **attributes: Any,
) -> Any:
    """A model of one node, whose weights are initializers and whose inputs are X and `inputs`."""
    order = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    given = {"X": None} | weights | (inputs or {})
    names = [
        key if key in given else "" for key in order if op_type == "LSTM" or key not in order[6:]
    ]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op_type == "LSTM" else 2]
    infos = [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["a", "b", I])]
    for key, value in (inputs or {}).items():
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        infos.append(helper.make_tensor_value_info(key, kind, value.shape))
    graph = helper.make_graph(
        [helper.make_node(op_type, names, outputs, name=name, **attributes)],
        "test",
        infos,
        [
            helper.make_tensor_value_info(
                y, onnx.TensorProto.FLOAT, [None] * (4 if y == "Y" else 3)
            )
            for y in outputs
        ],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def changed(op_type: str, weights: dict[str, Any] | None = None, **attributes: Any) -> Any:
    """A model of a node "n" whose weights are these, or else random."""
    return model_of(
        op_type, weights_of(op_type) | (weights or {}), name="n", hidden_size=H, **attributes
    )
