"""Weights from and to other libraries::

    layer = fusedrnn.convert.from_torch(model, "encoder.lstm")
    node = fusedrnn.convert.from_onnx("model.onnx")         # node.run as in ONNX, node.layer

No other library is imported before a function needs it: the arrays of `load_safetensors` become a
layer, by `from_torch`, where there is no PyTorch. What the formats need comes with the extra
``fusedrnn[convert]``. Nothing is dropped silently: what a library or this one cannot express is an
error that says so.
"""

from fusedrnn.convert.flax import from_flax, to_flax
from fusedrnn.convert.keras import from_keras, to_keras
from fusedrnn.convert.onnx import OnnxNode, from_onnx
from fusedrnn.convert.onnx_models import to_onnx
from fusedrnn.convert.rtneural import from_rtneural, to_rtneural
from fusedrnn.convert.safetensors import load_safetensors, save_safetensors
from fusedrnn.convert.torch import from_torch, to_torch

__all__ = [
    "OnnxNode",
    "from_flax",
    "from_keras",
    "from_onnx",
    "from_rtneural",
    "from_torch",
    "load_safetensors",
    "save_safetensors",
    "to_flax",
    "to_keras",
    "to_onnx",
    "to_rtneural",
    "to_torch",
]


def __dir__() -> list[str]:
    """Return what is meant for users."""
    special = {name for name in globals() if name.startswith("__") and name.endswith("__")}
    return sorted({*__all__, *special})
