"""Weights from and to other libraries.

    layer = fusedrnn.convert.from_torch(model, "encoder.lstm")
    node = fusedrnn.convert.from_onnx("model.onnx")

No other library is imported before a function needs it: NumPy arrays, such as those of
`load_safetensors`, become a layer where there is no PyTorch.
"""

from fusedrnn.convert.keras import from_keras, to_keras
from fusedrnn.convert.onnx import OnnxNode, from_onnx, to_onnx
from fusedrnn.convert.torch import from_torch, to_torch

__all__ = ["OnnxNode", "from_keras", "from_onnx", "from_torch", "to_keras", "to_onnx", "to_torch"]


def __dir__() -> list[str]:
    """Return what is meant for users."""
    special = {name for name in globals() if name.startswith("__") and name.endswith("__")}
    return sorted({*__all__, *special})
