"""Handlers of XLA's foreign function interface: their ABI, hostile calls, exports, devices."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import fusedrnn.jax as fj
from fusedrnn.jax.network import Plan
from jax_support import close, random

ROOT = Path(__file__).parent.parent
T, B, I, H = 4, 2, 3, 5  # noqa: E741
PLAN = Plan(("lstm", I, H, 0, 1, 1, (), (), 1))
THERE = "1" + "1100" + "00" + "00" + "0000"


def arrays() -> list[Any]:
    return [
        random(1, T, B, I, dtype="float32"),
        random(2, 4 * H, I, dtype="float32"),
        random(3, 4 * H, H, dtype="float32"),
    ]


def test_structures_are_those_of_jaxlibs_header() -> None:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    assert compiler, "a C++ compiler, which building this package needs too"
    command = [*compiler.split(), "-std=c++20", "-fsyntax-only", f"-I{ROOT / 'csrc'}"]
    source = ROOT / "tests" / "xla_ffi" / "abi_test.cpp"
    subprocess.run([*command, f"-I{jax.ffi.include_dir()}", str(source)], check=True)


def raw(given_arrays: list[Any], *sizes: tuple[int, ...], **changed: Any) -> Any:
    """A call of the handler without anything in between."""
    shapes = sizes or ((T, B, H), (1, B, H), (1, B, H))
    kinds = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    given = PLAN.attributes("float32", False) | {"arguments": THERE, "results": "11100"} | changed
    given = {name: value for name, value in given.items() if value is not None}
    return jax.block_until_ready(
        jax.ffi.ffi_call("fusedrnn_forward", kinds)(*given_arrays, **given)
    )


RECORD = np.dtype(
    [
        ("cell", "S32"),
        *((name, "i4") for name in ("reverse", "reads", "writes", "num_constants")),
        *((name, "i8") for name in ("read_offset", "write_offset", "input_size", "hidden_size")),
        *((name, "i8") for name in ("projection_size", "heads")),
        *(("noise", "f8", 5), ("constants", "f8", 16)),
    ]
)


def runs(**changed: Any) -> Any:
    record = np.frombuffer(PLAN.records, RECORD).copy()
    for name, value in changed.items():
        record[name] = value
    return np.frombuffer(record.tobytes(), np.int64)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"runs": runs(cell=b"elman")}, "'elman'"),
        ({"runs": runs(cell=b"x" * 32)}, "cell: expected a name of at most 31 letters"),
        ({"runs": runs(cell=b"gr\xfc")}, "cell: expected a name of at most 31 letters"),
        ({"runs": None}, "attribute runs: expected one, got none"),
        ({"runs": "lstm"}, "attribute runs: expected int64 numbers, got another"),
        ({"runs": np.array([], np.int64)}, "num_runs"),
        ({"runs": runs()[:-1]}, "runs: expected records of 264 bytes each, got 256"),
        ({"runs": runs(reads=1)}, "reads: expected a row"),
        ({"runs": runs(hidden_size=H + 1)}, "w_ih: expected shape"),
        ({"runs": runs(hidden_size=2**62)}, "too large"),
        ({"runs": runs().view(np.float64)}, "attribute runs: expected int64 numbers"),
        ({"runs": runs(num_constants=1)}, "num_constants: expected 0 (lstm has no constants)"),
        ({"runs": runs(num_constants=17)}, "num_constants: expected 0 to 16, got 17"),
        ({"runs": runs(noise=[0, 2, 0, 0, 0])}, "zoneout_h: expected at least 0 and at most 1"),
        ({"options": np.array([2**40, 0, 0, 0], np.int64)}, "attribute options: out of range"),
        ({"options": np.array([0], np.int64)}, "attribute options: expected 4 numbers"),
        ({"options": np.array([9, 0, 0, 0], np.int64)}, "compute"),
        ({"options": np.array([0, 0, 9, 0], np.int64)}, "padding"),
        ({"arguments": np.array([1])}, "attribute arguments: expected a string, got another"),
        ({"dropout": np.float32(0.5)}, "attribute dropout: expected a float64"),
        ({"arguments": "111"}, "attribute arguments: expected a character for each array"),
        ({"arguments": "1" * len(THERE)}, "arguments: expected a buffer"),
        ({"arguments": THERE + "0"}, "arguments: expected as many arrays as the network takes"),
        ({"arguments": "1" + "1000" + "00" * 2 + "0000"}, "arguments: expected as many arrays"),
        ({"results": "11000"}, "results: expected as many arrays as the network takes"),
        ({"results": "01100"}, "states: expected arrays of 1 runs, got (4, 2, 5)"),
    ],
)
def test_hostile_attributes_are_errors(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT") as caught:
        raw(arrays(), **changed)
    assert message in str(caught.value)


def test_hostile_buffers_are_errors() -> None:
    x, w_ih, w_hh = arrays()
    for wrong, message in (
        (
            [x.astype("int32"), w_ih, w_hh],
            "x: expected dtype float32, float64, bfloat16 or float16, got int32",
        ),
        (
            [x, w_ih.astype("float16"), w_hh],
            "w_ih: expected dtype float32 (the dtype of x), got float16",
        ),
        ([x[0], w_ih, w_hh], "x: expected"),
        ([x, w_ih[:, 1:], w_hh], "w_ih: expected shape"),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError) as caught:
            raw(wrong)
        assert message in str(caught.value)
    for shapes, message in (
        ([(T, B, H + 1), (1, B, H), (1, B, H)], "y: expected shape"),
        ([(T, B, H), (2, B, H), (1, B, H)], "states: expected arrays of 1 runs"),
        ([(T, B, H), (1, B, H), (1, B + 1, H)], "c_n: expected shape"),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError) as caught:
            raw(arrays(), *shapes)
        assert message in str(caught.value)
    close(raw(arrays())[0], fj.lstm(*arrays())[0], 0)


def test_a_reserve_of_another_call_is_an_error() -> None:
    lengths = np.array([T, 1])

    def loss(x: Any, lengths: Any) -> Any:
        return fj.lstm(x, *arrays()[1:], lengths=lengths)[0].sum()

    with pytest.raises(jax.errors.JaxRuntimeError, match="lengths: expected values from 0 to T"):
        jax.block_until_ready(jax.grad(loss)(arrays()[0], lengths + 1))
    assert np.isfinite(jax.grad(loss)(arrays()[0], lengths)).all()
    given = [*arrays(), np.zeros(4096, np.uint8), random(4, T, B, H, dtype="float32")]
    call = jax.ffi.ffi_call("fusedrnn_backward", [jax.ShapeDtypeStruct((T, B, I), np.float32)])
    which = {"arguments": THERE + "11000", "results": "100000000"}
    with pytest.raises(jax.errors.JaxRuntimeError, match="reserve: expected"):
        jax.block_until_ready(call(*given, **PLAN.attributes("float32", False), **which))


ELSEWHERE = """
import sys, pickle, jax, fusedrnn.jax
from jax_support import close
program, given, expected = pickle.load(open(sys.argv[1], "rb"))
close(jax.export.deserialize(program).call(*given), expected, float(sys.argv[2]))
"""


def in_another_process(code: str, *arguments: str, **environment: str) -> None:
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    command = [sys.executable, "-c", code, *arguments]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path} | environment)


def test_exported_programs_hold_the_network(tmp_path: Path) -> None:
    layer = fj.LSTM(I, H, 2, bidirectional=True, cell_clip=0.5)
    params = layer.init(jax.random.key(0))
    x = random(1, T, B, I, dtype="float32")
    step = jax.jit(jax.value_and_grad(lambda params, x: layer.apply(params, x)[0].sum()))
    allowed = [
        jax.export.DisabledSafetyCheck.custom_call(f"fusedrnn_{name}")
        for name in ("forward", "backward")
    ]
    written = jax.export.export(step, disabled_checks=allowed)(params, x).serialize()
    known = jax.tree.map(np.asarray, (params, x)), jax.tree.map(np.asarray, step(params, x))
    (tmp_path / "program").write_bytes(pickle.dumps((bytes(written), *known)))
    in_another_process(ELSEWHERE, str(tmp_path / "program"), "0")
    # The room for what forward leaves is that of any instruction set.
    in_another_process(ELSEWHERE, str(tmp_path / "program"), "1e-5", FUSEDRNN_ISA="scalar")
    # Of inference the sizes may be open.
    sizes = jax.ShapeDtypeStruct(jax.export.symbolic_shape("T, B, 3"), np.float32)
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    infer = jax.jit(lambda params, x: layer.apply(params, x)[0])
    exported = jax.export.export(infer, disabled_checks=allowed)(shapes, sizes)
    close(exported.call(params, x), infer(params, x), 0)


DEVICES = """
import jax, numpy as np
from concurrent.futures import ThreadPoolExecutor
from jax.sharding import PartitionSpec as P
import fusedrnn.jax as fj
from jax_support import close, random
assert jax.device_count() == 2
jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
layer = fj.LSTM(5, 7, 2, bidirectional=True)
params = layer.init(jax.random.key(0))
x = random(1, 6, 8, 5, dtype="float32")
mesh = jax.make_mesh((2,), ("b",), axis_types=(jax.sharding.AxisType.Auto,))
def loss(params, x):
    y, (h, c) = layer.apply(params, x)
    return (y**2).sum() + (c**3).sum()
def total(params, x):
    return jax.lax.psum(loss(params, x), "b")
specs = dict(mesh=mesh, in_specs=(P(), P(None, "b")))
whole = jax.jit(jax.shard_map(total, **specs, out_specs=P()))
expected = jax.value_and_grad(loss)(params, x)
close(jax.value_and_grad(whole)(params, x), expected, 2e-6)
inside = jax.jit(jax.shard_map(jax.value_and_grad(total), **specs, out_specs=P()))
for result in ThreadPoolExecutor(4).map(lambda _: inside(params, x), range(20)):
    close(result, expected, 2e-6)
apply = jax.shard_map(lambda p, x: layer.apply(p, x)[0], **specs, out_specs=P(None, "b"))
close(jax.jit(apply)(params, x), layer.apply(params, x)[0], 1e-6)
slope = lambda p, x: jax.jvp(lambda p: loss(p, x), (p,), (p,))[1]
sharded = jax.shard_map(lambda p, x: jax.lax.psum(slope(p, x), "b"), **specs, out_specs=P())
close(jax.jit(sharded)(params, x), slope(params, x), 2e-6)
each = jax.pmap(lambda x: layer.apply(params, x)[0])(np.stack([x, -x]))
close(each[1], layer.apply(params, -x)[0], 1e-6)

# A mesh of the usual kind, whose axes are seen in the types of arrays: no shard_map is needed.
mesh = jax.make_mesh((2,), ("b",))
parts, steps = (jax.device_put(x, jax.NamedSharding(mesh, P(*s))) for s in ((None, "b"), ("b",)))
step = jax.jit(jax.value_and_grad(loss, (0, 1)))
lengths = np.array([6, 1, 0, 3, 6, 2, 5, 4])
noisy = fj.GRU(5, 7, 2, dropout=0.5, weight_dropout=0.5)
weights = noisy.init(jax.random.key(1))
bent = lambda x: jax.jvp(jax.grad(lambda x: loss(params, x)), (x,), (x,))[1]
with jax.set_mesh(mesh):
    y, (h, c) = layer.apply(params, parts)
    assert jax.typeof(y).sharding.spec == jax.typeof(h).sharding.spec == P(None, "b", None)
    program = step.lower(params, parts).compile().as_text()
    assert "all-gather" not in program and "all-reduce" in program
    found = [step(params, parts), jax.jit(bent)(parts), layer.apply(params, steps)[0]]
    found += [layer.apply(params, parts, lengths=lengths)[0]]
    found += [noisy.apply(weights, parts, key=jax.random.key(2))[0]]
expected = [step(params, x), jax.jit(bent)(x), layer.apply(params, x)[0]]
expected += [layer.apply(params, x, lengths=lengths)[0]]
expected += [noisy.apply(weights, x, key=jax.random.key(2))[0]]
for f, e in zip(found, expected, strict=True):
    close(jax.device_get(f), jax.device_get(e), 3e-6)
close(jax.device_get(layer.apply(params, parts)[0]), layer.apply(params, x)[0], 1e-6)
"""


def test_a_batch_over_devices() -> None:
    in_another_process(DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=2")


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("sys.modules['jax'] = None", "fusedrnn.jax needs JAX: pip install 'fusedrnn[jax]'"),
        (
            "import jax; jax.__version_info__, jax.__version__ = (0, 9, 2), '0.9.2'",
            "fusedrnn.jax needs JAX 0.10 or newer, got 0.9.2",
        ),
    ],
)
def test_what_is_imported_without_jax(before: str, message: str) -> None:
    code = f"import sys, fusedrnn; {before}; import fusedrnn.jax"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(f"ImportError: {message}")
