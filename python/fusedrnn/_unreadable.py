"""What to do about an object whose memory could not be read: the end of the message."""

from __future__ import annotations

import sys
from typing import Any

NEEDS_VALUES = "these functions need values and cannot be traced; call them outside of"
OUTSIDE_JAX = f"{NEEDS_VALUES} jax.jit, jax.grad and jax.vmap, or by jax.pure_callback"
OUTSIDE_TORCH = (
    f"{NEEDS_VALUES} torch.compile, torch.export, torch.fx and torch.func, or in an operator of "
    "your own (torch.library.custom_op)"
)


def advice(value: object) -> str:
    """Return what is known of the library that made `value`, or "". No library is imported."""
    try:
        text = _of_object(value)
    except Exception:  # a hostile object, or a library of another version
        text = ""
    return text and f": {text}"


def _of_object(value: Any) -> str:
    classes = {(base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__}
    if ("jax", "Tracer") in classes:
        return OUTSIDE_JAX
    if "jaxlib" in dict(classes) and value.is_deleted():
        return "its memory is gone, deleted or donated to a jitted function"
    if classes & {("torch", name) for name in ("FakeTensor", "FunctionalTensor", "Proxy")}:
        return OUTSIDE_TORCH
    if ("torch", "Tensor") in classes:
        return _of_tensor(value, sys.modules["torch"])
    if hasattr(value, "__dlpack__"):
        return ""
    if hasattr(value, "todense"):
        return "pass its todense()"
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return "pass what numpy.asarray makes of it"
    return ""


def _of_tensor(tensor: Any, torch: Any) -> str:
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return OUTSIDE_TORCH
    if tensor.device.type == "meta":
        return "the meta device has no memory"
    if tensor.is_nested:
        return "pass its to_padded_tensor(0), and lengths"
    if tensor.layout != torch.strided:
        return f"pass its to_dense(), for its layout is {tensor.layout}"
    if tensor.is_quantized:
        return "pass its dequantize()"
    if tensor.is_conj():
        return "pass its resolve_conj()"
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return "its class wraps tensors; pass the one that is inside"
    return ""
