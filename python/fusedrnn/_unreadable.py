"""What to do about an object whose memory could not be read: the end of the message."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

NEEDS_VALUES = "these functions need values and cannot be traced; call them outside of"
IN_JAX = f"{NEEDS_VALUES} jax.jit, jax.grad and jax.vmap; JAX traces those of fusedrnn.jax"
IN_TORCH = (
    f"{NEEDS_VALUES} torch.compile, torch.export, torch.fx and torch.func, or in an operator of "
    "your own (torch.library.custom_op)"
)
TRACED = {
    ("jax", "Tracer"): IN_JAX,
    ("torch", "FakeTensor"): IN_TORCH,
    ("torch", "FunctionalTensor"): IN_TORCH,
    ("torch", "Proxy"): IN_TORCH,
}


def advice(value: object) -> str:
    """Return what is known of the library that made `value`, or "". No library is imported."""
    try:
        text = next(_of_object(value), "")
    except Exception:  # a hostile object, or a library of another version
        text = ""
    return text and f": {text}"


def _of_object(value: Any) -> Iterator[str]:
    """What holds, the most telling first."""
    classes = [(base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__]
    yield from (TRACED[known] for known in classes if known in TRACED)
    if ("torch", "Tensor") in classes:
        yield from _of_tensor(value, sys.modules["torch"])
    if "jaxlib" in dict(classes) and value.is_deleted():
        yield "it was deleted, or donated to a jitted function"
    if hasattr(value, "__dlpack__"):
        return
    if hasattr(value, "todense"):
        yield "it is not dense; pass its todense()"
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        yield "pass what numpy.asarray makes of it"


def _of_tensor(tensor: Any, torch: Any) -> Iterator[str]:
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        yield IN_TORCH
    if tensor.device.type == "meta":
        yield "the meta device has no memory"
    if tensor.is_nested:
        yield "it is nested; pass its to_padded_tensor(0), and lengths"
    if tensor.layout != torch.strided:
        yield "it is not dense; pass its to_dense()"
    if tensor.is_quantized:
        yield "it is quantised; pass its dequantize()"
    if tensor.is_conj():
        yield "it is conjugated; pass its resolve_conj()"
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        yield "its class wraps tensors; pass the one that is inside"
