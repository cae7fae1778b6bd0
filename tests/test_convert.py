"""What is public of fusedrnn.convert, and that it imports other libraries where it needs them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, ClassVar

import numpy as np
import pytest

import fusedrnn as fr
import fusedrnn.convert
from convert_support import layer_of, rejected
from fusedrnn.convert import packages, weights

OTHERS = ["flax", "jax", "keras", "ml_dtypes", "onnx", "safetensors", "torch"]


def run(code: str) -> None:
    """In a process where nothing has been imported yet."""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names() -> None:
    assert dir(fr.convert) == sorted(
        {*fr.convert.__all__, *(name for name in vars(fr.convert) if name.startswith("__"))}
    )
    for name in fr.convert.__all__:
        assert getattr(fr.convert, name).__doc__


def test_nothing_is_imported_before_it_is_needed() -> None:
    run(
        f"import sys; others = {OTHERS}; import fusedrnn, fusedrnn.convert as c; "
        "layer = fusedrnn.LSTM(3, 4); "
        "c.from_torch(layer.state_dict()), c.from_flax(c.to_flax(layer)), "
        "c.from_rtneural(c.to_rtneural(layer)); "
        "found = [name for name in others if name in sys.modules]; assert not found, found"
    )


def test_convert_needs_no_import_of_its_own() -> None:
    run("import fusedrnn; fusedrnn.convert.from_torch")


@pytest.mark.parametrize(
    ("name", "arguments", "package", "wanted"),
    [
        ("from_onnx", ["model.onnx"], "onnx", "'fusedrnn[convert]'"),
        ("to_onnx", ["layer"], "onnx", "'fusedrnn[convert]'"),
        ("load_safetensors", ["path"], "safetensors", "safetensors"),
        ("save_safetensors", [{}, "path"], "safetensors", "safetensors"),
        ("to_keras", ["layer"], "keras", "keras"),
        ("to_torch", ["layer"], "torch", "torch"),
    ],
)
def test_a_package_that_is_missing(
    name: str, arguments: list[Any], package: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    given = [layer_of("lstm") if value == "layer" else value for value in arguments]
    rejected(
        ImportError,
        f"{name} needs the package {package}, which cannot be imported "
        f"(import of {package} halted; None in sys.modules): pip install {wanted}",
        *(getattr(fr.convert, name), *given),
    )


class Attentive(fr.LSTM):
    attention = 0.1
    _usual: ClassVar[dict[str, Any]] = fr.LSTM._usual | {"attention": 0.0}


def test_dropout_does_not_keep_a_layer_from_being_converted() -> None:
    """It acts in training alone."""
    layer = fr.LSTM(2, 3, 2, dropout=0.5, weight_dropout=0.5, recurrent_dropout=0.5, seed=0)
    _, upper = weights.runs_of(layer, "PyTorch", ("lstm",))
    assert np.array_equal(upper.w_ih, layer.parameters()["weight_ih_l1"])


def test_an_option_that_no_converter_knows() -> None:
    layer = Attentive(4, 6)
    message = (
        "layer: expected none of the options attention, which cannot be converted to RTNeural, "
        "got Attentive(4, 6, attention=0.1)"
    )
    rejected(ValueError, message, fr.convert.to_rtneural, layer)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"clip": 2.0}, "limits of what activations are given (clip=None)"),
        ({"cell_clip": 2.0}, "limit of the cell state (cell_clip=None)"),
        ({"zoneout": 0.1}, "zoneout, which inference has too (zoneout=0)"),
        ({"activations": ("sigmoid", "relu", "tanh")}, "activations of its own (activations=None)"),
    ],
)
def test_constants_that_a_library_has_not(options: dict[str, Any], what: str) -> None:
    layer = fr.LSTM(4, 6, **options)
    message = f"layer: expected no {what}, which RTNeural has not, got {layer!r}"
    rejected(ValueError, message, fr.convert.to_rtneural, layer)


class Normed(fr.LSTM):
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"weight_norm_l0": super().state_dict()["weight_hh_l0"]}


def test_a_parameter_that_no_converter_knows() -> None:
    layer = Normed(4, 6)
    message = (
        "layer: expected the parameters of weight_ih, weight_hh, bias_ih, bias_hh, "
        "weight_peephole, weight_hr, got weight_norm_l0 too, which cannot be converted to Flax"
    )
    rejected(ValueError, message, fr.convert.to_flax, layer)


def test_the_extra_names_what_it_brings() -> None:
    for package in packages.EXTRA:
        assert package in OTHERS


def test_gates_are_permutations() -> None:
    for cell, gates in weights.GATES.items():
        for other in (weights.KERAS_GATES, weights.ONNX_GATES):
            assert sorted(other.get(cell, gates)) == sorted(gates)
