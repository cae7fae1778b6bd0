"""ONNX's nodes, run by this package; this package's layers, run by ONNX Runtime and by ONNX."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert_support import (
    B,
    H,
    I,
    T,
    close,
    layer_of,
    rejected,
    same_layer,
    sequence,
    states,
)
from fusedrnn.convert import from_onnx, to_onnx
from onnx_support import LENGTHS, changed, model_of, weights_of

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

OP_TYPES = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {}),
    ("rnn", {"nonlinearity": "relu"}),
    ("rnn", {"nonlinearity": "sigmoid"}),
    ("rnn", {"nonlinearity": "identity"}),
    ("gru", {}),
    ("gru", {"reset_after": False}),
    ("lstm", {}),
    ("lstm", {"peephole": True}),
    ("lstm", {"coupled": True}),
    ("lstm", {"coupled": True, "peephole": True}),
    ("rnn", {"clip": 0.5}),
    ("rnn", {"nonlinearity": ("leaky_relu", 0.25), "clip": 0.75}),
    *(("rnn", {"nonlinearity": name}) for name in ("softsign", "softplus", "hard_sigmoid", "elu")),
    *(("rnn", {"nonlinearity": (name, 0.5)}) for name in ("elu", "thresholded_relu")),
    *(("rnn", {"nonlinearity": (name, 0.5, 0.75)}) for name in ("affine", "scaled_tanh")),
    ("gru", {"clip": 0.5}),
    ("gru", {"reset_after": False, "clip": 0.5, "activations": (("hard_sigmoid", 0.25), "relu")}),
    ("gru", {"activations": (("hard_sigmoid", 0.25, 0.375), ("scaled_tanh", 0.5, 1.5))}),
    ("lstm", {"clip": 0.5}),
    ("lstm", {"clip": 0.5, "peephole": True}),
    ("lstm", {"activations": ("hard_sigmoid", "softsign", ("leaky_relu", 0.125)), "clip": 0.75}),
    ("lstm", {"coupled": True, "activations": ("sigmoid", ("elu", 0.5), "identity")}),
]
# ONNX's names where they are not ours with capitals.
ONNX_NAMES = {
    "leaky_relu": "LeakyRelu",
    "thresholded_relu": "ThresholdedRelu",
    "hard_sigmoid": "HardSigmoid",
    "scaled_tanh": "ScaledTanh",
}
ONNX_DEFAULTS = {"hard_sigmoid": (0.2, 0.5), "elu": (1.0,)}


def attributes_of(options: dict[str, Any], count: int) -> dict[str, Any]:
    """The node's attributes that say the same as these options, for so many directions."""
    attributes: dict[str, Any] = {"clip": options["clip"]} if "clip" in options else {}
    nonlinearity = options.get("nonlinearity")
    own = options.get("activations", () if nonlinearity is None else (nonlinearity,))
    if not own:
        return attributes
    names, alpha, beta = [], [], []
    for one in own * count:
        name, *given = (one,) if isinstance(one, str) else one
        given = [*given, *ONNX_DEFAULTS.get(name, ())[len(given) :]]
        if name == "identity":
            name, given = "affine", [1.0, 0.0]
        names.append(ONNX_NAMES.get(name, name.capitalize()))
        alpha += given[:1]
        beta += given[1:]
    attributes["activations"] = names
    return attributes | {
        name: values
        for name, values in (("activation_alpha", alpha), ("activation_beta", beta))
        if values
    }


variants = pytest.mark.parametrize(
    ("cell", "options"),
    VARIANTS,
    ids=lambda v: v if isinstance(v, str) else " ".join(map(str, v.values())),
)
shapes = pytest.mark.parametrize(
    "shape",
    [
        {},
        {"bias": False},
        {"bidirectional": True, "batch_first": True},
        {"num_layers": 3},
        {"num_layers": 2, "bidirectional": True, "bias": False},
    ],
    ids=lambda shape: " ".join(shape) or "plain",
)


def run_by_runtime(model: Any, **inputs: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    results: list[Any] = session.run(None, inputs)
    return results


# ONNX's own cases


def own_cases() -> list[Any]:
    cases = importlib.import_module("onnx.backend.test.case.node")
    for module in ("rnn", "gru", "lstm"):
        importlib.import_module(f"onnx.backend.test.case.node.{module}")
    return [
        case
        for case in cases._NodeTestCases
        if [node.op_type for node in case.model.graph.node] in (["RNN"], ["GRU"], ["LSTM"])
    ]


CASES = own_cases()


def test_the_cases_are_there() -> None:
    assert len(CASES) >= 18


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_own_case(case: Any) -> None:
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    ((inputs, outputs),) = case.data_sets
    given = {
        info.name: np.asarray(value) for info, value in zip(model.graph.input, inputs, strict=True)
    }
    x = given.pop("X")
    at_run = {k: given.pop(k) for k in ("sequence_lens", "initial_h", "initial_c") if k in given}
    # There its weights are inputs.
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in given.items())
    node = from_onnx(model)
    results = dict(zip(("Y", "Y_h", "Y_c"), node.run(x, **at_run), strict=False))
    (proto,) = model.graph.node
    named = [name for name, key in zip(("Y", "Y_h", "Y_c"), proto.output, strict=False) if key]
    assert len(named) == len(outputs)
    for name, expected in zip(named, outputs, strict=True):
        close(results[name], expected)


# From ONNX, against ONNX Runtime


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@variants
def test_a_node(cell: str, options: dict[str, Any], direction: str) -> None:
    op_type, count = OP_TYPES[cell], 2 if direction == "bidirectional" else 1
    weights = weights_of(op_type, count)
    rng = np.random.default_rng(3)
    attributes: dict[str, Any] = {"hidden_size": H, "direction": direction}
    if cell == "gru":
        attributes["linear_before_reset"] = int(options.get("reset_after", True))
    if options.get("coupled"):
        attributes["input_forget"] = 1
    if options.get("peephole"):
        weights["P"] = rng.uniform(-1, 1, (count, 3 * H)).astype(np.float32)
    attributes |= attributes_of(options, count)
    inputs = {"sequence_lens": LENGTHS}
    for state in ("initial_h", "initial_c")[: 2 if cell == "lstm" else 1]:
        inputs[state] = rng.standard_normal((count, B, H)).astype(np.float32)
    model = model_of(op_type, weights, inputs, **attributes)
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    node = from_onnx(model)
    assert (node.op_type, node.direction, node.layout) == (op_type, direction, 0)
    expected = run_by_runtime(model, X=x, **inputs)
    for got, wanted in zip(node.run(x, **inputs), expected, strict=True):
        close(got, wanted)
    # With batches first, which ONNX Runtime does not know.
    turned = from_onnx(model_of(op_type, weights, layout=1, **attributes))
    assert turned.layer.batch_first
    states = {k: v.swapaxes(0, 1) for k, v in inputs.items() if k != "sequence_lens"}
    y, *final = turned.run(x.swapaxes(0, 1), LENGTHS, **states)
    close(y.transpose(1, 2, 0, 3), expected[0])
    for got, wanted in zip(final, expected[1:], strict=True):
        close(got.swapaxes(0, 1), wanted)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_sequence_without_steps_keeps_its_state(direction: str) -> None:
    # ONNX Runtime gives 0.
    lengths = np.array([0, T, 0], np.int32)
    h = np.random.default_rng(0).standard_normal((1, B, H)).astype(np.float32)
    weights = weights_of("GRU")
    inputs = {"sequence_lens": lengths, "initial_h": h}
    model = model_of("GRU", weights, inputs, hidden_size=H, direction=direction)
    x = np.random.default_rng(1).standard_normal((T, B, I)).astype(np.float32)
    y, y_h = from_onnx(model).run(x, **inputs)
    expected_y, expected_h = run_by_runtime(model, X=x, **inputs)
    close(y, expected_y)
    np.testing.assert_array_equal(y_h[:, ::2], h[:, ::2])
    assert not expected_h[:, ::2].any()
    close(y_h[:, 1], expected_h[:, 1])


def test_results_are_of_the_kind_of_x() -> None:
    torch = pytest.importorskip("torch")
    for direction in ("reverse", "bidirectional"):
        node = from_onnx(
            model_of(
                "LSTM",
                weights_of("LSTM", 2 if direction[0] == "b" else 1),
                hidden_size=H,
                direction=direction,
            )
        )
        x = np.random.default_rng(1).standard_normal((T, B, I)).astype(np.float32)
        for got, expected in zip(node.run(torch.from_numpy(x)), node.run(x), strict=True):
            assert isinstance(got, torch.Tensor)
            np.testing.assert_array_equal(got.numpy(), expected)


def test_constant_inputs_of_a_run() -> None:
    h = np.random.default_rng(0).standard_normal((1, B, H)).astype(np.float32)
    weights = weights_of("RNN") | {"initial_h": h, "sequence_lens": LENGTHS}
    node = from_onnx(model_of("RNN", weights, hidden_size=H))
    x = np.random.default_rng(1).standard_normal((T, B, I)).astype(np.float32)
    plain = from_onnx(model_of("RNN", weights_of("RNN"), hidden_size=H))
    for got, expected in zip(node.run(x), plain.run(x, LENGTHS, h), strict=True):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(node.run(x, initial_h=0 * h), plain.run(x, LENGTHS), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_constants_that_nodes_form() -> None:
    weights = weights_of("LSTM")
    expected = from_onnx(model_of("LSTM", weights, hidden_size=H)).layer
    model = model_of("LSTM", weights, hidden_size=H)
    graph = model.graph
    i, rest = np.split(weights["W"], [H], axis=1)
    scale, zero = np.float32(0.01), np.int8(3)
    kept = np.random.default_rng(0).integers(-100, 100, weights["R"].shape).astype(np.int8)
    del graph.initializer[:2]
    for name, value in {"i": i, "rest": rest, "kept": kept, "scale": scale, "zero": zero}.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    lstm = graph.node.pop()
    graph.node.extend(
        [
            helper.make_node("Constant", [], ["axis"], value=numpy_helper.from_array(np.array(1))),
            helper.make_node("Identity", ["rest"], ["rest_too"]),
            helper.make_node("Concat", ["i", "rest_too"], ["W"], axis=1),
            helper.make_node("DequantizeLinear", ["kept", "scale", "zero"], ["R"]),
            lstm,
        ]
    )
    onnx.checker.check_model(model)
    node = from_onnx(model)
    np.testing.assert_array_equal(
        node.layer.state_dict()["weight_ih_l0"], expected.state_dict()["weight_ih_l0"]
    )
    x = np.random.default_rng(1).standard_normal((T, B, I)).astype(np.float32)
    for got, wanted in zip(node.run(x), run_by_runtime(model, X=x), strict=True):
        close(got, wanted)


def two_nodes_and_a_branch() -> Any:
    """A GRU that reads weights of the outer graph in each branch of an If, beside two others."""
    weights = weights_of("GRU")
    model = model_of("GRU", weights, hidden_size=H, name="first")
    graph = model.graph
    second = helper.make_node("GRU", ["X", "W", "R"], ["", "h_2"], hidden_size=H)
    branches = {}
    for branch in ("then_branch", "else_branch"):
        node = helper.make_node(
            "GRU", ["X", "W", "R", "B"], [f"{branch}_y"], hidden_size=H, name=branch
        )
        branches[branch] = helper.make_graph(
            [node], branch, [], [helper.make_tensor_value_info(f"{branch}_y", 1, [None] * 4)]
        )
    graph.input.append(helper.make_tensor_value_info("which", onnx.TensorProto.BOOL, []))
    graph.node.extend([second, helper.make_node("If", ["which"], ["y"], **branches)])
    onnx.checker.check_model(model)
    return model


def test_a_node_among_several() -> None:
    model = two_nodes_and_a_branch()
    names = ["first", "h_2", "else_branch", "then_branch"]
    shown = ", ".join(map(repr, names))
    for number, name in enumerate(names):
        assert from_onnx(model, name).name == from_onnx(model, number).name == name
    assert not from_onnx(model, "h_2").layer.bias
    same_layer(from_onnx(model, "then_branch").layer, from_onnx(model, "first").layer)
    kinds = f"one of the nodes RNN, GRU and LSTM, {shown}"
    for node, message in [
        (None, f"expected the name or number of {kinds}, got None"),
        ("third", f"expected the name of {kinds}, got 'third', the name of 0"),
        (4, f"expected a number of the nodes {shown}, got 4"),
        (-1, f"expected a number of the nodes {shown}, got -1"),
    ]:
        rejected(ValueError, f"node: {message}", from_onnx, model, node)
    rejected(TypeError, "node: expected a name or a number, got bool", from_onnx, model, True)
    rejected(
        ValueError,
        "node: expected the name or number of one of the nodes RNN, GRU and LSTM, none, got None",
        *(from_onnx, onnx.ModelProto()),
    )
    rejected(
        ValueError,
        "node: expected a number of the nodes none, got 0",
        from_onnx,
        onnx.ModelProto(),
        0,
    )


# To ONNX


@variants
@shapes
def test_a_layer(cell: str, options: dict[str, Any], shape: dict[str, Any]) -> None:
    layer = layer_of(cell, **options, **shape)
    model = to_onnx(layer)
    onnx.checker.check_model(model, full_check=True)
    counts = [node.op_type for node in model.graph.node].count(OP_TYPES[cell])
    assert counts == layer.num_layers
    x = sequence(layer)
    y, state = layer(x)
    expected = [y, *(state if cell == "lstm" else [state])]
    results = [run_by_runtime(model, x=x)]
    # ONNX's own evaluator does not have these.
    known = options.keys() <= {"reset_after", "peephole"}
    if known or options == {"nonlinearity": "identity"}:
        results.append(onnx.reference.ReferenceEvaluator(model).run(None, {"x": x}))
    for got in results:
        for one, wanted in zip(got, expected, strict=True):
            close(one, wanted)


@variants
@pytest.mark.parametrize(
    "shape", [{}, {"num_layers": 2, "bidirectional": True}], ids=["one", "four"]
)
def test_a_layer_with_all_inputs(cell: str, options: dict[str, Any], shape: dict[str, Any]) -> None:
    layer = layer_of(cell, **options, **shape)
    model = to_onnx(layer, state=True, lengths=True)
    onnx.checker.check_model(model, full_check=True)
    x, given = sequence(layer), states(layer)
    state_0 = tuple(given) if cell == "lstm" else given[0]
    y, state = layer(x, state_0, LENGTHS)
    results = run_by_runtime(
        model, x=x, lengths=LENGTHS, **dict(zip(("h0", "c0"), given, strict=False))
    )
    expected = [y, *(state if cell == "lstm" else [state])]
    for got, wanted in zip(results, expected, strict=True):
        close(got, wanted)


def test_any_number_of_steps_and_sequences() -> None:
    layer = layer_of("gru", num_layers=2)
    model = to_onnx(layer, state=True)
    for steps, batch in ((1, 1), (9, 2)):
        x = np.random.default_rng(0).standard_normal((steps, batch, I)).astype(np.float32)
        h = np.random.default_rng(1).standard_normal((2, batch, H)).astype(np.float32)
        for got, wanted in zip(run_by_runtime(model, x=x, h0=h), layer(x, h), strict=True):
            close(got, wanted)


@variants
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_there_and_back(cell: str, options: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    layer = layer_of(cell, **options, num_layers=2, bidirectional=True, dtype=dtype)
    path = tmp_path / "model.onnx"
    model = to_onnx(layer, path)
    onnx.checker.check_model(model, full_check=True)
    assert onnx.load(path) == model
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    for k in range(2):
        node = from_onnx(path, f"{cell}_l{k}")
        for name, array in node.layer.state_dict().items():
            np.testing.assert_array_equal(
                array, layer.state_dict()[name.replace("_l0", f"_l{k}")], strict=True
            )
    one = layer_of(cell, **options, dtype=dtype)
    same_layer(from_onnx(to_onnx(one)).layer, one)


GATES = {"rnn": "h", "gru": "zrh", "lstm": "iofc"}  # as the operators' reference lists them
OURS = {"rnn": {"h": 0}, "gru": {"r": 0, "z": 1, "h": 2}, "lstm": {"i": 0, "f": 1, "c": 2, "o": 3}}


@pytest.mark.parametrize("cell", GATES)
def test_gates(cell: str) -> None:
    layer = layer_of(cell, **({"peephole": True} if cell == "lstm" else {}))
    theirs = {t.name[0]: numpy_helper.to_array(t)[0] for t in to_onnx(layer).graph.initializer}
    own = layer.state_dict()
    count = len(GATES[cell])
    for k, gate in enumerate(GATES[cell]):
        at = slice(OURS[cell][gate] * H, (OURS[cell][gate] + 1) * H)
        for name, array in {
            "weight_ih_l0": theirs["W"][k * H : (k + 1) * H],
            "weight_hh_l0": theirs["R"][k * H : (k + 1) * H],
            "bias_ih_l0": theirs["B"][k * H : (k + 1) * H],
            "bias_hh_l0": theirs["B"][(count + k) * H : (count + k + 1) * H],
        }.items():
            np.testing.assert_array_equal(own[name][at], array)
    if cell == "lstm":
        for k, gate in enumerate("iof"):
            at = "ifo".index(gate)
            np.testing.assert_array_equal(
                own["weight_peephole_l0"][at * H : (at + 1) * H], theirs["P"][k * H : (k + 1) * H]
            )


def test_activations_of_the_two_directions() -> None:
    attributes: dict[str, Any] = {"hidden_size": H, "direction": "bidirectional"}
    model = model_of("RNN", weights_of("RNN", 2), activations=["Elu", "Tanh"], **attributes)
    message = (
        "node 'Y', activations: expected the same of both directions, got ('elu',) and ('tanh',)"
    )
    rejected(ValueError, message.replace("('elu',)", "(('elu', 1.0),)"), from_onnx, model)


def test_default_numbers() -> None:
    for name, ours in (("Elu", 1.0), ("LeakyRelu", 0.01), ("HardSigmoid", 0.2)):
        node = from_onnx(changed("RNN", activations=[name]))
        assert node.layer.nonlinearity[1] == ours
    node = from_onnx(changed("LSTM", activations=["sigmoid", "TANH", "Tanh"]))
    assert repr(node.layer) == f"LSTM({I}, {H})"


def test_a_written_layer_read_again() -> None:
    options: dict[str, Any] = {"clip": 0.5, "activations": ("relu", ("elu", 0.5), "identity")}
    layer = layer_of("lstm", **options)
    again = from_onnx(to_onnx(layer)).layer
    assert repr(again) == repr(layer)
    same_layer(again, layer)
