"""Other libraries, imported where a function needs them and not before."""

from __future__ import annotations

import importlib
from typing import Any

# What the extra brings. A framework (PyTorch, Keras) is its user's choice, and not small.
EXTRA = ("ml_dtypes", "onnx")


def load(function: str, name: str) -> Any:
    """Import a module.

    Raises
    ------
    ImportError
        Where that fails; the message names the function that needs it, and what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        wanted = "'fusedrnn[convert]'" if package in EXTRA else package
        raise ImportError(
            f"{function} needs the package {package}, which cannot be imported ({error}): "
            f"pip install {wanted}"
        ) from error
