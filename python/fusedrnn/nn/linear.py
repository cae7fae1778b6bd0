"""Linear layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusedrnn import _core, options
from fusedrnn.interop import warn_of_lost_gradients
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array, Dtype
from fusedrnn.nn.module import Module, ModuleTape


class Linear(Module):
    """A linear layer over the last axis, ``y = x W^T + b``: the same at every step.

    Parameters
    ----------
    input_size, output_size : int
        I and O.
    bias : bool
    dtype : "float32" or "float64"
    seed : int, optional
        Seeds the initial weights, uniform from -1/sqrt(I) to 1/sqrt(I) as PyTorch's.

    Attributes
    ----------
    weight : array [O, I]
    bias : array [O], or None
    """

    weight: Array
    bias: Array | None

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        bias: bool = True,
        dtype: Dtype = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.input_size = options.size("input_size", input_size)
        self.output_size = options.size("output_size", output_size)
        self.dtype = arrays.dtype(dtype)
        random = np.random.default_rng(options.seed(seed))
        bound = self.input_size**-0.5
        shape = self.output_size, self.input_size
        self.add_parameter("weight", random.uniform(-bound, bound, shape).astype(self.dtype))
        if options.flag("bias", bias):
            values = random.uniform(-bound, bound, self.output_size).astype(self.dtype)
            self.add_parameter("bias", values)
        else:
            self.bias = None

    def __repr__(self) -> str:
        extra = "" if self.bias is not None else ", bias=False"
        extra += "" if self.dtype == "float32" else f", dtype={self.dtype!r}"
        return f"Linear({self.input_size}, {self.output_size}{extra})"

    def __call__(self, x: Any) -> Array:
        """Return y [..., O] of x [..., I]: the same bits for a row whatever the others."""
        y = self._outputs(arrays.last_axis("x", x, self.input_size, self.dtype))
        warn_of_lost_gradients(x)
        return y

    def forward(self, x: Any) -> tuple[Array, ModuleTape]:
        """Return y [..., O] of x [..., I], and what `backward` needs; it refers to x.

        Raises
        ------
        ValueError, TypeError
            Where x is of the wrong shape or dtype.
        """
        source = arrays.last_axis("x", x, self.input_size, self.dtype)
        return self._outputs(source), self.make_tape(x=source)

    def backward(self, tape: ModuleTape, dy: Any) -> dict[str, Array]:
        """Return the gradients of ``sum(dy * y)``, dy [..., O]: "x", "weight" and "bias"."""
        x: Array = self.read_tape(tape)["x"]
        dy_ = arrays.like("dy", dy, (*x.shape[:-1], self.output_size), self.dtype)
        dx, weight, bias = _core.nn_linear_backward(
            self._rows(x), arrays.dense(self.weight), self._rows(dy_), self.bias is not None
        )
        grads = {"x": dx.reshape(x.shape), "weight": weight}
        return grads if self.bias is None else grads | {"bias": bias}

    def _outputs(self, x: Array) -> Array:
        bias = None if self.bias is None else arrays.dense(self.bias)
        y = _core.nn_linear(self._rows(x), arrays.dense(self.weight), bias)
        return y.reshape(*x.shape[:-1], self.output_size)

    @staticmethod
    def _rows(x: Array) -> Array:
        # Not -1: there may be no element.
        return arrays.dense(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
