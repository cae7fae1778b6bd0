"""Weights from and to PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from convert_support import (
    H,
    I,
    blocks,
    close,
    layer_of,
    rejected,
    same_layer,
    sequence,
    states,
)
from fusedrnn.convert import from_torch, load_safetensors, save_safetensors, to_torch

torch = pytest.importorskip("torch")

MODULES = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
CELLS = {"rnn": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}

cells = pytest.mark.parametrize("cell", MODULES)
shapes = pytest.mark.parametrize(
    "shape",
    [{}, {"num_layers": 3}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}],
    ids=["one", "stack", "both", "both, stack"],
)


def module_of(cell: str, **options: Any) -> Any:
    torch.manual_seed(3)
    return MODULES[cell](I, H, **options)


def parts(state: Any) -> list[Any]:
    return list(state) if isinstance(state, tuple) else [state]


def check_same_function(module: Any, layer: Any) -> None:
    x, state_0 = sequence(layer), states(layer)
    y, state_n = layer(x, tuple(state_0) if len(state_0) == 2 else state_0[0])
    given = [torch.from_numpy(s) for s in state_0]
    with torch.no_grad():
        expected_y, expected_n = module(
            torch.from_numpy(x), tuple(given) if len(given) == 2 else given[0]
        )
    close(y, expected_y)
    for got, expected in zip(parts(state_n), parts(expected_n), strict=True):
        close(got, expected)


@cells
@shapes
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_a_module(cell: str, shape: dict[str, Any], bias: bool) -> None:
    module = module_of(cell, bias=bias, **shape)
    layer = from_torch(module)
    assert repr(layer) == repr(layer_of(cell, bias=bias, **shape))
    check_same_function(module, layer)


@cells
@shapes
def test_to_a_module(cell: str, shape: dict[str, Any]) -> None:
    layer = layer_of(cell, batch_first=True, **shape)
    module = module_of(cell, batch_first=True, **shape)
    module.load_state_dict(to_torch(layer))
    check_same_function(module, layer)
    same_layer(from_torch(module), layer)


@cells
def test_gates(cell: str) -> None:
    # torch.nn's documentation: (W_ir|W_iz|W_in) and (W_ii|W_if|W_ig|W_io), each [H, ...].
    order = {"rnn": "h", "gru": "rzn", "lstm": "ifgo"}[cell]
    layer = layer_of(cell)
    tensors = to_torch(layer)
    for name, array in layer.state_dict().items():
        for k, gate in enumerate(order):
            np.testing.assert_array_equal(
                tensors[name][k * H : (k + 1) * H].numpy(), blocks(cell, array)[gate]
            )


@cells
def test_a_cell(cell: str) -> None:
    torch.manual_seed(3)
    module = CELLS[cell](I, H)
    layer = from_torch(module)
    x, state_0 = sequence(layer)[0], [s[0] for s in states(layer)]
    given = [torch.from_numpy(s) for s in state_0]
    with torch.no_grad():
        expected = module(torch.from_numpy(x), tuple(given) if cell == "lstm" else given[0])
    _, state = layer.step(
        x, tuple(s[None] for s in state_0) if cell == "lstm" else state_0[0][None]
    )
    for got, wanted in zip(parts(state), parts(expected), strict=True):
        close(got[0], wanted)


def test_the_nonlinearity_is_the_modules() -> None:
    module = module_of("rnn", nonlinearity="relu", batch_first=True)
    layer = from_torch(module)
    assert repr(layer) == f"RNN({I}, {H}, batch_first=True, nonlinearity='relu')"
    check_same_function(module, layer)
    assert from_torch(torch.nn.RNNCell(I, H, nonlinearity="relu")).nonlinearity == "relu"
    assert from_torch(module, batch_first=False).batch_first is False
    assert from_torch(module.state_dict()).nonlinearity == "tanh"
    assert from_torch(module.state_dict(), nonlinearity="relu").nonlinearity == "relu"
    rejected(
        ValueError,
        "nonlinearity: expected None or the module's, 'relu', got 'tanh'",
        *(from_torch, module),
        nonlinearity="tanh",
    )


class Model(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Linear(I, I), torch.nn.GRU(I, H, 2))
        self.decoder = torch.nn.LSTM(H, I)


def test_a_part_of_a_model() -> None:
    model = Model()
    gru = from_torch(model, "encoder.1")
    assert repr(gru) == f"GRU({I}, {H}, num_layers=2)"
    check_same_function(model.encoder[1], gru)
    for prefix in ("encoder.1", "encoder.1."):
        same_layer(from_torch(model.state_dict(), prefix), gru)
    # Parameters of a module: tensors that require gradients.
    same_layer(from_torch(dict(model.named_parameters()), "encoder.1."), gru)
    model.load_state_dict(
        to_torch(gru, "encoder.1") | to_torch(fr.LSTM(H, I), "decoder"), strict=False
    )
    message = (
        "source: expected a module of torch.nn or fusedrnn.torch with recurrent weights at prefix "
        "{!r}, got {}; "
        "there are such at 'encoder.1', 'decoder'"
    )
    rejected(ValueError, message.format("", "Model"), from_torch, model)
    rejected(ValueError, message.format("encoder.0.", "Linear"), from_torch, model, "encoder.0")
    rejected(ValueError, message.format("coder.", "nothing"), from_torch, model, "coder")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_dtypes(dtype: str) -> None:
    module = module_of("lstm", dtype=getattr(torch, dtype))
    layer = from_torch(module)
    assert layer.dtype == dtype
    for name, tensor in to_torch(layer).items():
        assert torch.equal(tensor, module.state_dict()[name])
        assert tensor.dtype == module.weight_ih_l0.dtype


@pytest.mark.parametrize(
    ("cell", "options", "known"),
    [
        ("rnn", {"nonlinearity": "sigmoid"}, {"nonlinearity": "sigmoid"}),
        ("rnn", {"nonlinearity": "softplus"}, {"nonlinearity": "softplus"}),
        ("rnn", {"nonlinearity": ("elu", 0.5)}, {"nonlinearity": ("elu", 0.5)}),
        ("gru", {"reset_after": False}, {"reset_after": False}),
        ("lstm", {"peephole": True, "bidirectional": True}, {}),
        ("indrnn", {"num_layers": 2}, {}),
        ("indrnn", {"bias": False, "nonlinearity": "tanh"}, {"nonlinearity": "tanh"}),
    ],
)
def test_state_dicts_of_our_own_layers(
    cell: str, options: dict[str, Any], known: dict[str, Any]
) -> None:
    layer = layer_of(cell, **options)
    same_layer(from_torch(layer.state_dict(), **known), layer)


BOTH = {"num_layers": 2, "bidirectional": True}
OWN: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "lstm peephole": (fr.LSTM, {"peephole": True}, {}),
    "lstm projection": (fr.LSTM, {"proj_size": 5}, {}),
    "lstm projection peephole": (fr.LSTM, {"proj_size": 5, "peephole": True}, {}),
    "lstm coupled": (fr.LSTM, {"coupled": True}, {"coupled": True}),
    "lstm coupled peephole": (fr.LSTM, {"coupled": True, "peephole": True}, {}),
    "lstm layer norm": (fr.LSTM, {"layer_norm": True}, {}),
    "gru before": (fr.GRU, {"reset_after": False}, {"reset_after": False}),
    "gru layer norm": (fr.GRU, {"layer_norm": True}, {}),
    "gru world model": (fr.WorldModelGRU, {}, {}),
    "indrnn": (fr.IndRNN, {}, {}),
    "rnn heads": (fr.RNN, {"heads": 3}, {"heads": 3}),
    "gru heads": (fr.GRU, {"heads": 2}, {"heads": 2}),
    "lstm heads": (fr.LSTM, {"heads": 2, "peephole": True}, {"heads": 2}),
    "lstm layer norm heads": (fr.LSTM, {"heads": 2, "layer_norm": True}, {}),
    "gru world model heads": (fr.WorldModelGRU, {"heads": 3}, {}),
    "slstm heads": (fr.SLSTM, {"heads": 3}, {"cell": "slstm"}),
    "mingru": (fr.MinGRU, {"candidate": "positive"}, {"cell": "mingru", "candidate": "positive"}),
    "minlstm": (fr.MinLSTM, {}, {"cell": "minlstm"}),
    "slstm": (fr.SLSTM, {"forget": "exp"}, {"cell": "slstm", "forget": "exp"}),
}


@pytest.mark.parametrize("shape", [{}, BOTH], ids=["one", "both, stack"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("name", list(OWN))
def test_every_layer_there_and_back(
    name: str, dtype: str, shape: dict[str, Any], tmp_path: Path
) -> None:
    kind, options, known = OWN[name]
    layer = kind(I, H, dtype=dtype, seed=7, **options, **shape)
    rng = np.random.default_rng(0)
    for array in layer.parameters().values():  # gains and biases too, which begin alike
        array[...] = rng.standard_normal(array.shape).astype(array.dtype)
    given = layer.state_dict()
    path = tmp_path / "layer.safetensors"
    save_safetensors({f"model.{key}": array for key, array in given.items()}, path)
    tensors = {
        key: torch.from_numpy(array.view("i2")).view(torch.bfloat16)
        if dtype == "bfloat16"
        else torch.from_numpy(array)
        for key, array in given.items()
    }
    for source, prefix in ((given, ""), (tensors, ""), (load_safetensors(path), "model")):
        same_layer(from_torch(source, prefix, **known), layer)


def test_layers_whose_biases_are_left_out() -> None:
    for kind, known in ((fr.MinGRU, {"cell": "mingru"}), (fr.SLSTM, {"cell": "slstm"})):
        layer = kind(I, H, bias=False, batch_first=True, seed=7)
        same_layer(from_torch(layer.state_dict(), batch_first=True, **known), layer)


OWN_MODULES = {
    "LSTM": {"num_layers": 2, "bidirectional": True, "batch_first": True, "cell_clip": 0.3},
    "GRU": {"reset_after": False, "zoneout": 0.3},
    "RNN": {"nonlinearity": "sigmoid", "heads": 2, "clip": 0.5},
    "WorldModelGRU": {"dtype": torch.float64},
    "IndRNN": {"nonlinearity": "tanh"},
    "MinGRU": {"candidate": "positive"},
    "MinLSTM": {"dtype": torch.bfloat16},
    "SLSTM": {"forget": "exp", "heads": 2},
    "GRUCell": {},
    "LSTMCell": {"coupled": True, "bias": False},
}


@pytest.mark.parametrize("name", OWN_MODULES)
def test_a_module_of_fusedrnn_torch(name: str) -> None:
    torch.manual_seed(3)
    module = getattr(fr.torch, name)(I, 4, **OWN_MODULES[name]).eval()
    layer = from_torch(torch.nn.ModuleDict({"rnn": module}), "rnn")
    assert type(layer).__name__ == name.removesuffix("Cell")
    x = torch.randn(3, 2, I, dtype=next(module.parameters()).dtype)
    with torch.no_grad():
        if "Cell" in name:
            expected = parts(module(x[0]))
            got = [state[0] for state in parts(layer(x[:1])[1])]
        else:
            (y, state), (our_y, our_state) = module(x), layer(x)
            expected, got = [y, *parts(state)], [our_y, *parts(our_state)]
    assert all(map(torch.equal, got, expected))


def test_a_module_of_fusedrnn_torch_as_it_is_now() -> None:
    module = torch.nn.utils.parametrizations.weight_norm(fr.torch.GRU(I, H), "weight_hh_l0")
    layer = from_torch(module.double())
    assert layer.dtype == "float64"
    close(layer.parameters()["weight_hh_l0"], module.weight_hh_l0.detach())
    assert from_torch(fr.torch.GRU(I, H), batch_first=True).batch_first
    replaced = module_of("lstm")
    fr.torch.replace(replaced)
    check_same_function(replaced, from_torch(replaced))


@pytest.mark.parametrize("option", ["reset_after", "cell", "heads"])
def test_a_module_of_fusedrnn_torch_knows_its_options(option: str) -> None:
    value = {"reset_after": True, "cell": "mingru", "heads": 1}[option]
    message = f"{option}: expected None for a module of fusedrnn.torch, got {value!r}"
    rejected(ValueError, message, from_torch, fr.torch.GRU(I, H), **{option: value})


def test_what_is_no_layer_of_our_own() -> None:
    def of(kind: Any, change: dict[str, Any], **options: Any) -> dict[str, Any]:
        changed = kind(I, H, num_layers=2, **options).state_dict() | change
        return {key: value for key, value in changed.items() if value is not None}

    rows, same = np.zeros((3 * H, I)), "source: expected the same names for each layer and "
    missing = "direction, got weight_hh_l0, weight_hh_l1 missing"
    biases = {"bias_l0": None, "bias_l1": None}
    min_gru, s_lstm = of(fr.MinGRU, {}), of(fr.SLSTM, {})
    gain, world = {"gain_l0": None, "gain_l1": None}, of(fr.WorldModelGRU, {})
    for given, known, message in [
        (of(fr.GRU, gain, layer_norm=True), {"coupled": True}, "coupled: expected None for the G"),
        (of(fr.LSTM, {}, coupled=True), {"candidate": "linear"}, "candidate: expected None for "),
        (of(fr.LSTM, {}), {"coupled": True}, "weight_hh_l0: expected shape (3*H, H) with coupled="),
        (min_gru, {}, same + missing + " and none in excess; cell='mingru' or 'minlstm' has no"),
        (min_gru, {"cell": "gru"}, "cell: expected 'mingru', 'minlstm' or 'slstm', got 'gru'"),
        (min_gru, {"cell": "minlstm"}, f"weight_ih_l1: expected shape ({2 * H}, {2 * H // 3})"),
        (min_gru, {"cell": "slstm"}, same + missing),
        (s_lstm, {"cell": "mingru"}, "source: expected weight_ih, bias_ih, which MinGRU has, got "),
        (s_lstm, {"cell": "slstm", "forget": "relu"}, "forget: expected 'sigmoid' or 'exp', got"),
        (world | {"gain_l1": rows}, {}, f"gain_l1: expected shape ({3 * H},), got ({3 * H}, {I})"),
        (world | {"gain_l1": np.zeros(3 * H)}, {}, "gain_l1: expected dtype float32, got float64"),
        (world | {"weight_ih_l0": rows[1:]}, {}, "weight_ih_l0: expected shape (3*H, I), got ("),
        (of(fr.WorldModelGRU, biases), {}, "source: expected weight_ih, weight_hh, gain, bias, "),
    ]:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            from_torch(given, **known)
        assert str(caught.value).startswith(message)
    rejected(
        ValueError,
        "cell: expected None for a module of PyTorch, got 'slstm'",
        *(from_torch, module_of("lstm")),
        cell="slstm",
    )


def test_the_copy_is_a_copy() -> None:
    layer = layer_of("gru")
    tensors = to_torch(layer)
    before = tensors["weight_ih_l0"].clone()
    layer.parameters()["weight_ih_l0"][...] = 0
    assert torch.equal(tensors["weight_ih_l0"], before)


# Errors


def test_layers_that_pytorch_does_not_have_at_all() -> None:
    for layer in (fr.MinGRU(I, H), fr.MinLSTM(I, H), fr.SLSTM(I, H)):
        with pytest.raises(
            ValueError, match=r"^layer: expected RNN, GRU or LSTM, which PyTorch has, got"
        ):
            to_torch(layer)


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("gru", {"reset_after": False}, "reset_after=True, which PyTorch has"),
        ("lstm", {"peephole": True}, "no peepholes, which PyTorch has not"),
        ("lstm", {"coupled": True}, "no coupled gates, which PyTorch has not"),
        (
            "rnn",
            {"nonlinearity": "sigmoid"},
            "the nonlinearity 'tanh' or 'relu', which PyTorch has",
        ),
        ("indrnn", {}, "RNN, GRU or LSTM, which PyTorch has"),
    ],
)
def test_what_pytorch_does_not_have(cell: str, options: dict[str, Any], message: str) -> None:
    layer = layer_of(cell, **options)
    rejected(ValueError, f"layer: expected {message}, got {layer!r}", to_torch, layer)


def state_dict(cell: str = "lstm", **options: Any) -> dict[str, Any]:
    return layer_of(cell, **options).state_dict()


def test_wrong_names() -> None:
    both = "source: expected the same names for each layer and direction, got "
    for change, message in [
        ({"bias_hh_l0": None}, None),
        (
            {"weight_ih_l1": 0},
            both + "weight_hh_l1, bias_ih_l1, bias_hh_l1 missing and none in excess",
        ),
        (
            {"weight_hh_l0_reverse": 0},
            both + "weight_ih_l0_reverse, bias_ih_l0_reverse, bias_hh_l0_reverse missing and none "
            "in excess",
        ),
        ({"weight_hh_l7": 0}, both + "none missing and weight_hh_l7 in excess"),
        ({"weight_ih_l00": 0}, "source: expected names such as weight_ih_l0, got weight_ih_l00"),
        ({"h0": 0}, "source: expected names such as weight_ih_l0, got h0"),
        ({"weight_ih": 0}, None),
    ]:
        given = {k: v for k, v in (state_dict() | change).items() if v is not None}
        with pytest.raises(ValueError, match=r"^source: expected ") as caught:
            from_torch(given)
        if message:
            assert str(caught.value) == message
    rejected(
        ValueError,
        "source: expected names such as a.weight_ih_l0, got none",
        *(from_torch, state_dict(), "a"),
    )
    rejected(TypeError, "source: expected names that are str, got int", from_torch, {3: 4})
    rejected(
        TypeError,
        "source: expected a torch.nn.Module or a mapping, got LSTM",
        *(from_torch, layer_of("lstm")),
    )
    rejected(TypeError, "prefix: expected a str, got int", from_torch, {}, 3)
    rejected(TypeError, "prefix: expected a str, got int", to_torch, layer_of("lstm"), 3)
    rejected(
        TypeError,
        "layer: expected a layer of fusedrnn, got Frozen",
        to_torch,
        layer_of("lstm").freeze(),
    )


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("shape", [{}, {"num_layers": 2, "bidirectional": True, "bias": False}])
def test_a_projection(shape: dict[str, Any]) -> None:
    module = module_of("lstm", proj_size=2, **shape)
    layer = from_torch(module)
    assert layer.proj_size == 2
    x = sequence(layer)
    y, state = layer(x)
    with torch.no_grad():
        expected_y, expected = module(torch.from_numpy(x))
    close(y, expected_y)
    for got, wanted in zip(state, expected, strict=True):
        close(got, wanted)
    for name, tensor in to_torch(layer).items():
        assert torch.equal(tensor, module.state_dict()[name])


def test_a_projection_that_does_not_fit() -> None:
    given = from_torch(torch.nn.LSTM(I, H, proj_size=2)).state_dict()
    for name, value, message in [
        ("weight_hr_l0", np.zeros((3, H), "f4"), f"expected shape (2, {H}), got (3, {H})"),
        ("weight_hr_l0", np.zeros(H, "f4"), "expected shape (P, H), of weight_hh (4*H, P), got "),
        (
            "weight_hh_l0",
            np.zeros((3 * H, 2), "f4"),
            f"expected shape ({4 * H}, 2), got ({3 * H}, 2)",
        ),
    ]:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            from_torch(given | {name: value})
        assert str(caught.value).startswith(f"{name}: {message}")


def test_wrong_arrays() -> None:
    for name, value, error, message in [
        ("weight_ih_l0", np.zeros((4 * H, I, 1), "f4"), ValueError, f"expected shape ({4 * H}, *)"),
        ("weight_ih_l0", np.zeros((3 * H, I), "f4"), ValueError, f"expected shape ({4 * H}, *)"),
        ("bias_ih_l0", np.zeros(H, "f4"), ValueError, f"expected shape ({4 * H},)"),
        ("bias_hh_l0", np.zeros(4 * H, "i4"), TypeError, "expected a dtype among float32, "),
        ("weight_hh_l0", np.zeros((2 * H, H), "f4"), ValueError, "expected shape (G*H, H) with G"),
        ("weight_hh_l0", np.zeros((0, 0), "f4"), ValueError, "expected shape (G*H, H) with G"),
        ("weight_hh_l0", [[1.0]], TypeError, "expected an array"),
    ]:
        with pytest.raises(error) as caught:
            from_torch({f"a.{k}": v for k, v in (state_dict() | {name: value}).items()}, "a.")
        assert str(caught.value).startswith(f"a.{name}: {message}")
    mixed = state_dict() | {"bias_hh_l0": np.zeros(4 * H)}
    rejected(ValueError, "source, *_l0: expected dtype float32, got float64", from_torch, mixed)
    wide = state_dict(num_layers=2) | {"weight_ih_l1": np.zeros((4 * H, I), "f4")}
    rejected(ValueError, f"source, *_l1: expected input size {H}, got {I}", from_torch, wide)


def test_options_of_another_cell() -> None:
    for given in ({"nonlinearity": "tanh"}, {"reset_after": True}):
        ((name, value),) = given.items()
        rejected(
            ValueError,
            f"{name}: expected None for the lstm, got {value!r}",
            *(from_torch, state_dict()),
            **given,
        )
    rejected(
        ValueError,
        "reset_after: expected None or True for a module of PyTorch, got False",
        *(from_torch, module_of("gru")),
        reset_after=False,
    )
    rejected(
        ValueError,
        "nonlinearity: expected 'relu' or 'tanh', got 'sigmoid'",
        *(from_torch, state_dict("indrnn")),
        nonlinearity="sigmoid",
    )
    with pytest.raises(ValueError, match=r"^nonlinearity: expected 'sigmoid', .*, got ''$"):
        from_torch(state_dict("rnn"), nonlinearity="")  # type: ignore[arg-type]
    rejected(
        ValueError,
        "source: expected weight_ih, weight_hh, bias_ih, as its weight_hh is of the cell indrnn, "
        "got weight_ih, weight_hh, bias_ih, bias_hh",
        *(from_torch, state_dict("indrnn") | {"bias_hh_l0": np.zeros(H, "f4")}),
    )
