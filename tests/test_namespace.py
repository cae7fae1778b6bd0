"""What the package shows to its users, and that its commands stand on nothing else."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fusedrnn as fr

# Named in docstrings: weights of other libraries, what a library of CUDA arrays is asked for, how
# results find their kind, functions and layers for JAX, and modules for PyTorch.
DOCUMENTED_MODULES = [
    "convert",
    "cuda_arrays",
    "interop",
    "jax",
    "models",
    "nn",
    "schedules",
    "torch",
]


def is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def test_dir_shows_what_is_public() -> None:
    shown = dir(fr)
    public = sorted({*fr.__all__, *DOCUMENTED_MODULES})
    assert [name for name in shown if name in fr.__all__ or not is_special(name)] == public
    assert {"__doc__", "__file__", "__name__", "__path__", "__version__"} <= set(shown)
    for name in shown:
        assert hasattr(fr, name), name


def test_documented_modules_need_no_import_of_their_own() -> None:
    # In a new process, where no other test has imported them.
    modules = "; ".join(f"fusedrnn.{name}.__doc__.strip()" for name in DOCUMENTED_MODULES)
    subprocess.run([sys.executable, "-c", f"import fusedrnn; {modules}"], check=True)


def test_dir_does_not_depend_on_what_was_imported() -> None:
    code = (
        "import fusedrnn; before = dir(fusedrnn); import fusedrnn.cli.demo, fusedrnn.__main__; "
        "import fusedrnn.options; assert dir(fusedrnn) == before, dir(fusedrnn)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_of_nn_names_what_there_is() -> None:
    page = (Path(__file__).parent.parent / "docs" / "nn.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![-\w])nn\.(\w+)", page))
    assert named <= set(fr.nn.__all__)
    results = {"Checkpoint", "Memory", "MemoryGradient", "ModuleTape", "RowGradient"}
    gradients = {"mse_grad", "quantile_grad", "ctc_grad"}  # "and mse_grad"
    assert named | results | gradients == set(fr.nn.__all__)
    assert all(name in page for name in gradients)


# The commands

MODULES = sorted(Path(fr.__file__).parent.joinpath("cli").rglob("*.py"))


class Uses(ast.NodeVisitor):
    """What a module of the commands takes from the package that is no part of its public names."""

    def __init__(self) -> None:
        self.private: list[str] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            inside, _, rest = alias.name.partition(".")
            if inside == "fusedrnn" and (alias.asname or rest):
                self._check(rest)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert not node.level, "relative imports could lead anywhere"
        inside, _, rest = (node.module or "").partition(".")
        if inside == "fusedrnn":
            for alias in node.names:
                self._check(f"{rest}.{alias.name}".strip("."))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = ast.unparse(node.value)
        if owner == "fusedrnn":
            self._check(node.attr)
        elif owner == "nn":
            self._check(f"nn.{node.attr}")
        elif (
            node.attr.startswith("_")
            and not is_special(node.attr)
            and owner not in {"self", "argparse"}
        ):
            self.private.append(f"{owner}.{node.attr}")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        # The name of a module to import; docstrings and messages are longer.
        if isinstance(node.value, str) and node.value.replace(".", "").isidentifier():
            inside, _, rest = node.value.partition(".")
            if inside == "fusedrnn" and rest:
                self._check(rest)

    def _check(self, name: str) -> None:
        first, _, rest = name.partition(".")
        known = {"nn": fr.nn.__all__, "models": fr.models.__all__}.get(first, [])
        if name not in fr.__all__ and not (
            first == "cli" or rest in known or name in {"nn", "models"}
        ):
            self.private.append(name)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_commands_use_public_names_alone(path: Path) -> None:
    uses = Uses()
    uses.visit(ast.parse(path.read_text(encoding="utf-8")))
    assert uses.private == []


@pytest.mark.parametrize(
    "code",
    [
        "from fusedrnn import _core",
        "from fusedrnn import options",
        "from fusedrnn.layers.base import Layer",
        "from fusedrnn.layers import LSTM",
        "import fusedrnn.bf16",
        "import fusedrnn._core as core",
        "fusedrnn.functional.gru",
        "model.rnn._runs",
        "from fusedrnn.nn import products",
        "nn.products.times",
        "importlib.import_module('fusedrnn.options')",
    ],
)
def test_a_private_name_is_noticed(code: str) -> None:
    uses = Uses()
    uses.visit(ast.parse(code))
    assert uses.private


def test_commands_have_modules() -> None:
    assert {path.stem for path in MODULES} >= {
        "demo",
        "flow",
        "generate",
        "predict",
        "train",
        "seq2seq",
    }
    for path in MODULES:
        inner = path.relative_to(Path(fr.__file__).parent).with_suffix("").parts
        importlib.import_module(".".join(("fusedrnn", *inner)))
