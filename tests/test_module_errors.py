"""Mistakes at the door of the compiled module: outputs to write to, threads, the environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import fusedrnn as fr
from error_support import B, H, I, T, problem
from fusedrnn import _core
from fusedrnn.runs import Run, to_records

OUTPUTS = {"y": (T, B, H), "h_n": (B, H), "c_n": (B, H)}
IN_OUT = {"y": "out[0]", "h_n": "out[1][0]", "c_n": "out[1][1]"}  # as messages name them


def out_of(**given: Any) -> tuple[Any, tuple[Any, Any]]:
    """`out` of an LSTM, with new arrays for those that are not given."""
    arrays = {name: given.get(name, nans(*shape)) for name, shape in OUTPUTS.items()}
    return arrays["y"], (arrays["h_n"], arrays["c_n"])


def lstm_into(**changed: Any) -> Any:
    out = out_of(**{name: changed.pop(name) for name in OUTPUTS if name in changed})
    return fr.lstm_forward(**problem("lstm") | changed, out=out)


def nans(*shape: int) -> Any:
    return np.full(shape, np.nan, "float32")


@pytest.mark.parametrize(("name", "shape"), OUTPUTS.items())
def test_outputs_to_write_to(name: str, shape: tuple[int, ...]) -> None:
    read_only = nans(*shape)
    read_only.flags.writeable = False
    columns = nans(*shape, 2)[..., 0]
    for bad, error, message in [
        ([0.0], TypeError, "expected an array (NumPy, or an object with __dlpack__), got list"),
        (read_only, ValueError, "expected an array to write to, got a read-only one"),
        (nans(*shape, 1), ValueError, f"expected shape {shape}, got {(*shape, 1)}"),
        (
            nans(*shape).astype("float64"),
            TypeError,
            "expected dtype float32 (the dtype of x), got float64; use .astype('float32')",
        ),
        (columns, ValueError, "expected a last axis of stride 1, got stride 2"),
        (
            np.lib.stride_tricks.as_strided(nans(H), shape, (0,) * (len(shape) - 1) + (4,)),
            ValueError,
            "expected rows that do not overlap, got strides that make them overlap",
        ),
    ]:
        with pytest.raises(error, match=f"^{re.escape(f'{IN_OUT[name]}: {message}')}"):
            lstm_into(**{name: bad})


def test_cells_to_write_to() -> None:
    out = *out_of(), nans(T, B, H + 1)
    message = f"out[2]: expected shape {T, B, H}, got {T, B, H + 1}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        fr.lstm(**problem("lstm"), return_cells=True, out=out)


def test_outputs_of_other_libraries() -> None:
    arrays = {name: torch.full(shape, np.nan) for name, shape in OUTPUTS.items()}
    y, (h_n, c_n), _ = lstm_into(**arrays)
    assert y is arrays["y"]
    assert h_n is arrays["h_n"]
    assert c_n is arrays["c_n"]
    expected, _, _ = lstm_into()
    assert np.array_equal(y.numpy(), expected)


def test_gradients_of_other_libraries() -> None:
    *_, tape = lstm_into()
    expected = fr.lstm_backward(tape, np.ones((T, B, H), "float32"))
    for name in ("dx", "dw_ih", "db_hh", "dc0"):
        value = getattr(expected, name)
        given = torch.full(value.shape, np.nan)
        got = fr.lstm_backward(tape, np.ones((T, B, H), "float32"), out={name: given})
        assert getattr(got, name) is given
        assert np.array_equal(given.numpy(), value)


def test_outputs_that_lie_backwards() -> None:
    expected, _, _ = lstm_into()
    y, _, _ = lstm_into(y=nans(T, B, H)[::-1])
    assert np.array_equal(y, expected)
    y, _, _ = lstm_into(y=nans(T, B, H)[::-1, ::-1])
    assert np.array_equal(y, expected)
    # Of the same memory as x, or of that behind it.
    memory = nans(2 * T, B, max(I, H))
    memory[:T, :, :I] = problem("lstm")["x"]
    x = memory[:T, :, :I]
    y, _, _ = lstm_into(x=x, y=memory[: T - 1 : -1, :, :H])
    assert np.array_equal(y, expected)
    for last in (0, T - 1):
        y = memory[last : last + T][::-1, :, :H]
        with pytest.raises(
            ValueError, match=r"^out\[0\]: expected memory apart from x, got overlapping"
        ):
            lstm_into(x=x, y=y)


def test_forms_of_out() -> None:
    y, (h_n, c_n) = out_of()
    for function in (fr.lstm, fr.lstm_forward):
        with pytest.raises(
            TypeError, match=r"^out: expected a pair \(y, \(h_n, c_n\)\), got ndarray$"
        ):
            function(**problem("lstm"), out=y)
        with pytest.raises(
            ValueError, match=r"^out\[1\]: expected a pair \(h_n, c_n\), got 1 values$"
        ):
            function(**problem("lstm"), out=(y, (h_n,)))
    for function in (fr.gru, fr.gru_forward, fr.rnn, fr.rnn_forward):
        with pytest.raises(ValueError, match=r"^out: expected a pair \(y, h_n\), got 3 values$"):
            function(**problem(function.__name__[:3]), out=(y, h_n, c_n))
    *_, tape = lstm_into()
    with pytest.raises(TypeError, match=r"^out: expected a mapping, got list$"):
        fr.lstm_backward(tape, out=[])
    with pytest.raises(ValueError, match=r"^out: expected names among 'dx', .*, got 'dz'$"):
        fr.lstm_backward(tape, out={"dz": y})


def test_outputs_that_share_memory() -> None:
    both = nans(B, H + 1)
    with pytest.raises(
        ValueError,
        match=r"^out\[1\]\[1\]: expected memory apart from out\[1\]\[0\], got overlapping",
    ):
        lstm_into(h_n=both[:, :H], c_n=both[:, 1:])
    x = problem("lstm")["x"]
    wide = nans(T, B, H)
    with pytest.raises(
        ValueError, match=r"^out\[0\]: expected memory apart from x, got overlapping"
    ):
        lstm_into(x=wide[..., :I], y=wide)
    # Halves of one array share none.
    halves, states = nans(T, B, I + H), nans(B, 2 * H)
    halves[..., :I] = x
    y, (h_n, c_n), _ = lstm_into(
        x=halves[..., :I], y=halves[..., I:], h_n=states[:, :H], c_n=states[:, H:]
    )
    expected, expected_state, _ = lstm_into()
    for got, value in zip((y, h_n, c_n), (expected, *expected_state), strict=True):
        assert np.array_equal(got, value)
    assert np.array_equal(halves[..., :I], x)


@pytest.mark.parametrize(
    ("output", "read"),
    [
        (output, read)
        for output in OUTPUTS
        for read in ("x", "w_ih", "w_hh", "b_ih", "b_hh", "h0", "c0")
        if (output, read) not in (("h_n", "h0"), ("c_n", "c0"))
    ],
)
def test_no_output_lies_over_what_is_read(output: str, read: str) -> None:
    """Wherever it lies: later rows of w_hh, say, are packed when y has been begun."""
    shape = OUTPUTS[output]
    array = problem("lstm")[read]
    size = max(array.size, int(np.prod(shape))) + 7
    for begin in (0, 3, array.size - 1):
        memory = nans(size + array.size)
        source = memory[: array.size].reshape(array.shape)
        source[...] = array
        target = memory[begin : begin + int(np.prod(shape))].reshape(shape)
        message = f"{IN_OUT[output]}: expected memory apart from {read}, got"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            lstm_into(**{read: source, output: target})
        assert np.array_equal(source, array)


def test_y_that_begins_before_x_and_runs_into_it() -> None:
    memory = nans(T, B, 16)
    with pytest.raises(
        ValueError, match=r"^out\[0\]: expected memory apart from x, got overlapping"
    ):
        lstm_into(x=memory[..., 3 : 3 + I], y=memory[..., :H])


def test_states_may_be_updated_in_place() -> None:
    arguments = problem("lstm")
    expected, expected_state = fr.lstm(**arguments)
    y = nans(T, B, H)
    h, c = arguments["h0"], arguments["c0"]
    fr.lstm(**arguments, out=(y, (h, c)))
    assert np.array_equal(y, expected)
    assert np.array_equal(h, expected_state[0])
    assert np.array_equal(c, expected_state[1])
    # Not shifted, and not another one's.
    memory = nans(B + 1, H)
    memory[:B] = 0
    with pytest.raises(
        ValueError, match=r"^out\[1\]\[0\]: expected memory apart from h0, got overlapping"
    ):
        lstm_into(h0=memory[:B], h_n=memory[1:])
    with pytest.raises(
        ValueError, match=r"^out\[1\]\[1\]: expected memory apart from h0, got overlapping"
    ):
        lstm_into(h0=memory[:B], c_n=memory[:B])


def test_gradients_that_share_memory() -> None:
    *_, tape = lstm_into()
    dy = np.zeros((T, B, H), "float32")
    dy_wide = np.zeros((T, B, H + I), "float32")
    x = problem("lstm")["x"]
    *_, tape_of_x = fr.lstm_forward(**problem("lstm") | {"x": x})
    with pytest.raises(
        ValueError, match=r"^out\['dx'\]: expected memory apart from x, got overlapping"
    ):
        fr.lstm_backward(tape_of_x, out={"dx": x})
    with pytest.raises(
        ValueError, match=r"^out\['dx'\]: expected memory apart from dy, got overlapping"
    ):
        fr.lstm_backward(tape, dy_wide[..., :H], out={"dx": dy_wide[..., H - 1 : H - 1 + I]})
    both = nans(4 * H, H)
    with pytest.raises(
        ValueError, match=r"^out\['dw_hh'\]: expected memory apart from out\['dw_ih'\], got"
    ):
        fr.lstm_backward(tape, dy, out={"dw_ih": both[:, :I], "dw_hh": both})
    long = np.zeros((300, B, I), "float32")
    _, _, tape_of_long = fr.lstm_forward(
        **problem("lstm") | {"x": long, "lengths": None, "resets": None}
    )
    with pytest.raises(
        ValueError, match=r"^out\['dw_ih'\]: expected memory apart from x, got overlapping"
    ):
        fr.lstm_backward(
            tape_of_long, out={"dw_ih": long.reshape(-1)[: 4 * H * I].reshape(4 * H, I)}
        )


def test_cells_without_a_cell_state() -> None:
    for cell in ("gru", "rnn"):
        with pytest.raises(TypeError, match="c0"):
            getattr(fr, cell)(**problem(cell), c0=None)


def test_nothing_is_written_on_failure() -> None:
    y, h_n, c_n = nans(T, B, H), nans(B, H), nans(B, H)
    for changed in (
        {"lengths": [1, 99]},
        {"resets": np.zeros((1, 1), bool)},
        {"c0": nans(B, H + 1)},
        {"h_n": nans(B, H + 1)},
        {"c_n": nans(1)},
    ):
        with pytest.raises(ValueError, match="expected"):
            lstm_into(**{"y": y, "h_n": h_n, "c_n": c_n} | changed)
    *_, tape = lstm_into()
    dx, dh0 = nans(T, B, I), nans(B, H)
    for upstream in ({"dy": nans(1)}, {"dc_n": nans(1)}):
        with pytest.raises(ValueError, match="expected"):
            fr.lstm_backward(tape, **upstream, out={"dx": dx, "dh0": dh0})
    with pytest.raises(ValueError, match="expected"):
        fr.lstm_backward(tape, out={"dx": dx, "dh0": dh0, "dc0": nans(1)})
    for output in (y, h_n, c_n, dx, dh0):
        assert np.isnan(output).all()


def test_a_reserve_of_something_else() -> None:
    """Plain bytes come back as a tape; whatever is not what forward left is refused."""
    network = _core.Network(Run("lstm", False, 0, 1, 0, 0, I, H, 0, 1).record(), "float32")
    arguments = problem("lstm")
    weights = tuple(arguments[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh"))
    x, lengths, resets = arguments["x"], arguments["lengths"], arguments["resets"]
    given = (lengths, None, resets, False, None)
    y, _, _, tape = network.forward(x, weights, None, given, True)
    assert tape is not None
    reserve = tape.reserve
    assert reserve is not None
    assert reserve.nbytes == network.reserve_bytes(T, B)
    dy = np.ones_like(y)
    expected = tape.backward(dy, None, None, True)

    def again(
        reserve: Any,
        x: Any = x,
        masks: Any = given,
        network: Any = network,
    ) -> Any:
        return _core.Tape(network, x, weights, masks, reserve).backward(
            dy[: len(x)], None, None, True
        )

    copied = np.frombuffer(bytearray(reserve.tobytes()), np.uint8)
    dx, parameters, *_ = again(copied)
    assert np.array_equal(dx, expected[0])
    for got, value in zip(parameters, expected[1], strict=True):
        assert np.array_equal(got, value)

    other = r"^reserve: expected what a forward call of this network with these sizes left"
    reverse = _core.Network(Run("lstm", True, 0, 1, 0, 0, I, H, 0, 1).record(), "float32")
    mixed = _core.Network(
        Run("lstm", False, 0, 1, 0, 0, I, H, 0, 1).record(), "float32", "bfloat16"
    )
    for bad in (np.zeros_like(reserve), reserve ^ 255):
        with pytest.raises(ValueError, match=other):
            again(bad)
    with pytest.raises(ValueError, match=other):
        again(reserve, network=reverse)
    with pytest.raises(ValueError, match=r"^reserve: expected"):
        again(reserve, network=mixed)
    with pytest.raises(ValueError, match=rf"^reserve: expected {reserve.nbytes} bytes, .* got 3$"):
        again(reserve[:3])
    with pytest.raises(ValueError, match=r"^reserve: expected \d+ bytes"):
        again(reserve, x[:-1], (lengths.clip(max=T - 1), None, resets[:-1], False, None))
    with pytest.raises(
        ValueError, match=r"^lengths, mask, resets: expected those of the forward call, got"
    ):
        again(reserve, masks=None)
    shifted = np.empty(reserve.nbytes + 17, np.uint8)
    begin = -shifted.ctypes.data % 16 + 1
    shifted[begin : begin + reserve.nbytes] = reserve
    with pytest.raises(ValueError, match=r"^reserve: expected memory aligned to 16 bytes"):
        again(shifted[begin : begin + reserve.nbytes])
    with pytest.raises(TypeError, match=r"^reserve: expected a dense vector of uint8"):
        again(reserve.astype(np.int16))


def test_a_reserve_of_the_callers() -> None:
    network = _core.Network(Run("lstm", False, 0, 1, 0, 0, I, H, 0, 1).record(), "float32")
    arguments = problem("lstm")
    weights = tuple(arguments[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh"))
    x, size = arguments["x"], network.reserve_bytes(T, B)
    y, _, _, tape = network.forward(x, weights, save=True)
    assert tape is not None
    expected, *_ = tape.backward(np.ones_like(y), None, None, True)
    reserve = np.zeros(size, np.uint8)
    again, _, _, tape = network.forward(x, weights, save=True, reserve=reserve)
    assert tape is not None
    assert tape.reserve is reserve
    assert reserve.any()
    assert np.array_equal(again, y)
    assert np.array_equal(tape.backward(np.ones_like(y), None, None, True)[0], expected)
    fixed = np.zeros(size, np.uint8)
    fixed.setflags(write=False)
    for wrong, error, text in (
        (np.zeros(size - 1, np.uint8), ValueError, rf"expected {size} bytes"),
        (np.zeros(2 * size, np.uint8)[::2], TypeError, "expected a dense vector of uint8"),
        (np.zeros((1, size), np.uint8), TypeError, "expected a dense vector of uint8"),
        (np.zeros(size, bool), TypeError, "expected a dense vector of uint8"),
        (fixed, ValueError, "expected an array to write to, got a read-only one"),
    ):
        with pytest.raises(error, match=f"^reserve: {text}"):
            network.forward(x, weights, save=True, reserve=wrong)
    with pytest.raises(ValueError, match=r"^reserve: expected None with save=False"):
        network.forward(x, weights, reserve=reserve)


def test_a_reserve_that_was_computed_in_another_type() -> None:
    """At these sizes AVX2 and the scalar kernels leave as many bytes for both."""
    run = Run("lstm", False, 0, 1, 0, 0, 4, 32, 0, 1).record()
    networks = [_core.Network(run, "float32", compute) for compute in (None, "bfloat16")]
    x = np.zeros((3, 2, 4), "float32")
    weights = (np.zeros((128, 4), "float32"), np.zeros((128, 32), "float32"), None, None)
    for network, other in (networks, networks[::-1]):
        *_, tape = network.forward(x, weights, None, None, True)
        assert tape is not None
        again = _core.Tape(other, x, weights, None, tape.reserve)
        with pytest.raises(ValueError, match=r"^reserve: expected"):
            again.backward(None, None, None, True)


def test_networks_that_are_none() -> None:
    def run(cell: str = "gru", heads: int = 1, **changed: int) -> Any:
        fields = {"reads": 0, "writes": 1, "at": 0, "to": 0, "inputs": I, "units": H} | changed
        return Run(cell, False, *fields.values(), 0, heads)

    for runs, message in [
        ([], "num_runs: expected 1 to 1048576, got 0"),
        ([run("qrnn")], "cell: expected one of rnn_tanh, .*, lstm, .*, got 'qrnn'"),
        ([run(reads=1)], r"runs\[0\].reads: expected a row that was written before, 0, got 1"),
        ([run(writes=0)], r"runs\[0\].writes: expected a row above .*, got 0"),
        ([run(writes=2)], r"runs\[0\].writes: expected a row above .*, got 2"),
        ([run(reads=2**32)], r"runs: expected what a record can hold, got Run\(.*"),
        ([run(units=2**64)], r"runs: expected what a record can hold, got Run\(.*"),
        ([run(inputs=0)], r"runs\[0\].input_size: expected at least 1, got 0"),
        ([run(heads=3, units=4)], r"runs\[0\].heads: expected a divisor of hidden_size = 4, got 3"),
        (
            [run("indrnn_relu", 2)],
            r"runs\[0\].heads: expected 0 or 1 \(indrnn_relu has no matrix w_hh\), .* 2",
        ),
        ([run(units=-1)], r"runs\[0\].hidden_size: expected at least 1, got -1"),
        ([run(at=-1)], r"runs\[0\].read_offset: expected at least 0, got -1"),
        ([run(to=2)], "write_offset: expected every column of row 1 written by one run, .* got 2"),
        ([run(), run()], "write_offset: expected every column of row 1 .* got 0"),
        (
            [run(), run(reads=1, writes=2, inputs=H + 1)],
            rf"runs\[1\].input_size: expected columns of row 1, which ends at {H}, got {H + 1}",
        ),
        (
            [run(), run(reads=1, writes=2, inputs=H), run(to=H)],
            r"runs\[2\].writes: expected a row above the one that it reads, 2 or 3, got 1",
        ),
        ([run(units=2**60)], "w_ih: I = 4, H = 1152921504606846976 are too large"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}$"):
            _core.Network(to_records(runs), "float32")
    with pytest.raises(ValueError, match=r"^runs: expected records of 264 bytes each, got 263$"):
        _core.Network(run().record()[:-1], "float32")


def test_numbers_of_devices() -> None:
    with pytest.raises(ValueError, match=f"^device: expected a device's number, got {2**32}$"):
        _core.LentArray((2,), "float32", 2**32, 1)


@pytest.mark.parametrize("n", [0, -1, 2**20, 2**31, 2**40, -(2**31)])
def test_numbers_of_threads(n: int) -> None:
    before = fr.get_num_threads()
    with pytest.raises(ValueError, match=f"^n: expected a number of threads.*, got {n}$"):
        fr.set_num_threads(n)
    assert fr.get_num_threads() == before


@pytest.mark.parametrize("n", [True, 1.0, "2", None])
def test_numbers_of_threads_are_ints(n: Any) -> None:
    with pytest.raises(TypeError, match=f"^n: expected an int, got {type(n).__name__}$"):
        fr.set_num_threads(n)


def run_with(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("isa", ["avx1024", "AVX2 ", "auto"])
def test_an_instruction_set_that_does_not_exist(isa: str) -> None:
    failed = run_with("import fusedrnn", FUSEDRNN_ISA=isa)
    assert failed.returncode != 0
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: FUSEDRNN_ISA: expected one of scalar, neon, avx2, avx512, avx512_bf16"
    )
    assert last.endswith(f"got '{isa}'")


def test_a_number_of_threads_in_the_environment_that_is_none() -> None:
    code = "import fusedrnn; fusedrnn.get_num_threads()"
    failed = run_with(code, FUSEDRNN_NUM_THREADS="many")
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: FUSEDRNN_NUM_THREADS: expected a number of threads")
    assert last.endswith("got 'many'")
