"""The vectorised float64 reference, for shapes that are too large for the oracle.

Same entries, same arguments and the same names as `oracle`, with arrays for nested lists, and a
backward derived by hand. It imports nothing of the package; `test_oracle_reference.py` holds it
against the oracle.

    problem, upstream = reference.random_problem("lstm", T=50, B=8, I=64, H=96, lengths=True)
    grads = reference.gradients("lstm", **problem, **upstream, reverse=True)
    assert reference.relative_error(got.dw_hh, grads["dw_hh"]) < 1e-12

With `rounding=STORED_IN["bfloat16"]` it rounds where the package does.
"""

from .problems import (
    NEWER_VARIANT_IDS,
    NEWER_VARIANTS,
    NORMED_VARIANT_IDS,
    NORMED_VARIANTS,
    VARIANT_IDS,
    VARIANTS,
    random_problem,
    random_stack,
    relative_error,
)
from .rounding import (
    COMPUTED_IN,
    COMPUTED_IN_ON_CUDA,
    EXACT,
    FROZEN_IN,
    STORED_IN,
    STORED_IN_ON_CUDA,
    Rounding,
    rounded,
)
from .sequence import forward, gradients
from .stack import stack, stack_gradients

__all__ = [
    "COMPUTED_IN",
    "COMPUTED_IN_ON_CUDA",
    "EXACT",
    "FROZEN_IN",
    "NEWER_VARIANTS",
    "NEWER_VARIANT_IDS",
    "NORMED_VARIANTS",
    "NORMED_VARIANT_IDS",
    "STORED_IN",
    "STORED_IN_ON_CUDA",
    "VARIANTS",
    "VARIANT_IDS",
    "Rounding",
    "forward",
    "gradients",
    "random_problem",
    "random_stack",
    "relative_error",
    "rounded",
    "stack",
    "stack_gradients",
]
