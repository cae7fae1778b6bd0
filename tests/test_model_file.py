"""Model files: what `frozen.save` writes, `load_frozen` reads, and neither believes."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import _core
from fusedrnn.runs import Run, to_records

I, H, L, T, B = 5, 19, 2, 4, 3  # noqa: E741

LAYERS: list[tuple[Any, dict[str, Any]]] = [
    (fr.RNN, {}),
    (fr.RNN, {"nonlinearity": "relu", "bias": False, "bidirectional": True}),
    (fr.RNN, {"nonlinearity": ("leaky_relu", 0.1), "clip": 2.0}),
    (fr.GRU, {"batch_first": True}),
    (fr.GRU, {"reset_after": False, "zoneout": 0.25}),
    (fr.GRU, {"reset_after": False, "clip": 1.5, "bidirectional": True}),
    (fr.GRU, {"layer_norm": True}),
    (fr.LSTM, {"recurrent_dropout": 0.5, "weight_dropout": 0.25, "zoneout": (0.1, 0.3)}),
    (fr.LSTM, {"peephole": True, "bidirectional": True, "batch_first": True}),
    (fr.LSTM, {"coupled": True}),
    (fr.LSTM, {"coupled": True, "peephole": True}),
    (fr.LSTM, {"proj_size": 7, "bidirectional": True}),
    (fr.LSTM, {"proj_size": 7, "peephole": True, "cell_clip": 0.5, "cell_clip_nan": "limit"}),
    (fr.LSTM, {"coupled": True, "activations": ["hard_sigmoid", "softsign", "relu"]}),
    (fr.LSTM, {"layer_norm": True}),
    (fr.IndRNN, {}),
    (fr.MinGRU, {}),
    (fr.MinLSTM, {"bidirectional": True}),
    (fr.SLSTM, {}),
    (fr.WorldModelGRU, {}),
]
TYPES = [
    ("float32", None),
    ("float64", None),
    ("bfloat16", None),
    ("float16", None),
    ("float32", "bfloat16"),
    ("float32", "int8"),
]


def frozen_layer(kind: int, dtype: str = "float32", weight_dtype: Any = None) -> Any:
    layer_type, options = LAYERS[kind]
    return layer_type(I, H, L, dtype=dtype, seed=kind, **options).freeze(weight_dtype)


def flat(results: Any) -> list[Any]:
    return [
        part for item in results for part in (flat(item) if isinstance(item, tuple) else [item])
    ]


def assert_same_bits(got: Any, expected: Any) -> None:
    for one, other in zip(flat(got), flat(expected), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()


def sequence(layer: Any) -> Any:
    shape = (B, T, I) if layer.batch_first else (T, B, I)
    x = np.random.default_rng(0).standard_normal(shape, dtype="float32")
    import ml_dtypes  # noqa: PLC0415

    return x.astype(ml_dtypes.bfloat16 if layer.dtype == "bfloat16" else layer.dtype)


@pytest.mark.parametrize(("dtype", "weight_dtype"), TYPES)
@pytest.mark.parametrize("kind", range(len(LAYERS)))
def test_a_loaded_network_has_the_bits_of_the_saved_one(
    kind: int, dtype: str, weight_dtype: Any, tmp_path: Path
) -> None:
    saved = frozen_layer(kind, dtype, weight_dtype)
    saved.save(tmp_path / "model")
    loaded = fr.load_frozen(tmp_path / "model")
    x = sequence(saved)
    lengths = [T, 0, T - 1]
    assert_same_bits(loaded(x, lengths=lengths), saved(x, lengths=lengths))
    if isinstance(saved(x)[1], tuple):
        assert_same_bits(loaded(x, return_cells=True), saved(x, return_cells=True))
    if not saved.bidirectional:
        x_t = x[:, 0] if saved.batch_first else x[0]
        _, state = saved.step(x_t)
        assert_same_bits(loaded.step(x_t, state), saved.step(x_t, state))
        resets = np.array([True, False, True])
        assert_same_bits(
            loaded.step(x_t, state, resets=resets), saved.step(x_t, state, resets=resets)
        )
    attributes = "input_size hidden_size num_layers batch_first bidirectional dtype weight_dtype"
    for name in attributes.split():
        assert getattr(loaded, name) == getattr(saved, name)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


@pytest.mark.parametrize(("dtype", "weight_dtype"), TYPES)
@pytest.mark.parametrize(("hidden_size", "heads"), [(128, 2), (36, 3), (36, 6)])
def test_heads(dtype: str, weight_dtype: Any, hidden_size: int, heads: int, tmp_path: Path) -> None:
    layer = fr.GRU(I, hidden_size, L, heads=heads, reset_after=False, dtype=dtype, seed=0)
    saved = layer.freeze(weight_dtype)
    saved.save(tmp_path / "model")
    loaded = fr.load_frozen(tmp_path / "model")
    assert loaded._layer.heads == heads
    assert_same_bits(loaded(sequence(saved)), saved(sequence(saved)))
    if (dtype, weight_dtype) == ("float32", None):
        shapes = [w.shape for w in layer.parameters().values()]
        arrays = arrays_of((tmp_path / "model").read_bytes(), shapes, 0, runs=L)
        for got, expected in zip(arrays, layer.parameters().values(), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_a_file_does_not_depend_on_the_instruction_set(tmp_path: Path) -> None:
    script = (
        "import sys, fusedrnn as fr\n"
        "for kept in (None, 'bfloat16', 'int8'):\n"
        "    layer = fr.GRU(37, 45, 2, seed=0, reset_after=False, bidirectional=True)\n"
        "    layer.freeze(kept).save(f'{sys.argv[1]}-{kept}')\n"
        "fr.LSTM(37, 45, seed=0, dtype='float16').freeze().save(f'{sys.argv[1]}-float16')"
    )
    for isa in ("scalar", fr.info()["isas_available"][-1]):
        environment = os.environ | {"FUSEDRNN_ISA": isa}
        command = [sys.executable, "-c", script, tmp_path / isa]
        subprocess.run(command, env=environment, check=True)
    files = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("scalar"))
    assert len(files) == 4
    for name in files:
        other = name.replace("scalar", fr.info()["isas_available"][-1])
        assert (tmp_path / name).read_bytes() == (tmp_path / other).read_bytes()
    # One that a slower set saved.
    assert fr.load_frozen(tmp_path / "scalar-int8").weight_dtype == "int8"


def read_by_the_manual(data: bytes) -> dict[str, Any]:
    """What docs/model_file.md says of a file of float32 and one layer."""
    magic, version, checksum, size = struct.unpack_from("<8sIIQ", data)
    assert (magic, version, size) == (b"fusedrnn", 1, len(data))
    assert checksum == zlib.crc32(data[16:])
    code, bits, lanes, compute, runs, flags = struct.unpack_from("<BBHiiI", data, 24)
    assert (code, bits, lanes, runs) == (2, 32, 1, 1)
    assert not any(data[40:64])
    record = data[64:328]
    name = record[:32].rstrip(b"\0").decode()
    integers = struct.unpack_from("<4i6q", record, 32)
    numbers = struct.unpack_from("<5d16d", record, 96)
    return {
        "cell": name,
        "compute": compute,
        "flags": flags,
        "runs": integers,
        "numbers": numbers,
    }


def arrays_of(data: bytes, shapes: list[tuple[int, ...]], compute: int, runs: int = 1) -> list[Any]:
    position, arrays = 64 + runs * 264, []

    def take(dtype: str, shape: tuple[int, ...]) -> Any:
        nonlocal position
        start = -(-position // 64) * 64
        assert not any(data[position:start])
        array = np.frombuffer(data, dtype, int(np.prod(shape)), start).reshape(shape)
        position = start + array.nbytes
        return array

    for shape in shapes:
        kept = {0: "<f4", 1: "<u2", 2: "i1"}[compute] if len(shape) == 2 else "<f4"
        arrays.append(take(kept, shape))
        if kept == "i1":
            arrays[-1] = arrays[-1] * take("<f4", shape[:1])[:, None]
        elif kept == "<u2":
            arrays[-1] = (arrays[-1].astype("<u4") << 16).view("<f4")
    assert position == len(data)
    return arrays


@pytest.mark.parametrize(("compute", "weight_dtype"), list(enumerate([None, "bfloat16", "int8"])))
def test_the_file_is_what_the_manual_says(compute: int, weight_dtype: Any, tmp_path: Path) -> None:
    layer = fr.LSTM(I, H, proj_size=7, peephole=True, cell_clip=0.5, zoneout=0.25, seed=0)
    layer.freeze(weight_dtype).save(tmp_path / "model")
    data = (tmp_path / "model").read_bytes()
    known = read_by_the_manual(data)
    assert known["cell"] == "lstm_projection_general"
    assert (known["compute"], known["flags"]) == (compute, 0)
    assert known["runs"] == (0, 0, 1, 12, 0, 0, I, H, 7, 1)
    usual = (np.inf, 0.5, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0)
    assert known["numbers"][:5] == (0, 0.25, 0.25, 0, 0)
    assert known["numbers"][5] == usual[0]
    assert known["numbers"][6:8] == usual[1:3]
    assert not any(known["numbers"][17:])
    weights = list(layer.parameters().values())
    arrays = arrays_of(data, [w.shape for w in weights], compute)
    for name, got, expected in zip(layer.parameters(), arrays, weights, strict=True):
        if got.ndim == 1 or compute == 0:
            np.testing.assert_array_equal(got, expected, err_msg=name)
        else:  # half a step of either kind of rounding
            bound = np.abs(expected).max(axis=1, keepdims=True) / (200 if compute == 1 else 250)
            assert np.all(np.abs(got - expected) <= bound), name


def test_rows_of_eight_bits_at_the_ends_of_their_range(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layer = fr.RNN(37, 64, seed=0, nonlinearity="identity")
    w = layer.parameters()["weight_ih_l0"]
    w[:] = rng.standard_normal(w.shape) * 10.0 ** rng.uniform(-35, 36, (64, 1))
    w[0], w[1, 3], w[2, 5] = 0, np.nan, np.inf
    w[3], w[4], w[5] = 1e-37, 127 * 2.0**-126, np.finfo("float32").max
    w[6, :5] = w[6, 0] * np.float32(0.998)  # five of 127
    saved = layer.freeze("int8")
    saved.save(tmp_path / "model")
    loaded = fr.load_frozen(tmp_path / "model")
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()
    x = rng.standard_normal((T, B, 37), dtype="float32")
    assert_same_bits(loaded(x), saved(x))
    assert np.isnan(saved(x)[0]).any()


def test_a_network_that_is_no_stack_is_not_for_layers(tmp_path: Path) -> None:
    one = Run("gru", False, 0, 1, 0, 0, I, H, 0, 1)
    other = Run("lstm", False, 1, 2, 0, 0, H, 3, 0, 1)
    network = _core.Network(to_records([one, other]), "float32")
    weights = tuple(np.zeros(shape, "float32") for _, _, shape, _ in network.parameters)
    path = tmp_path / "model"
    _core.Frozen(network, weights).save(os.fsencode(path))
    message = rf"^{path}: expected layers of one cell and size, .* another network of 2 runs$"
    with pytest.raises(ValueError, match=message):
        fr.load_frozen(path)


# --- what is no model file ---


def small_file(tmp_path: Path, weight_dtype: Any = None) -> bytes:
    fr.LSTM(3, 4, 2, seed=0, clip=2.0, zoneout=0.25).freeze(weight_dtype).save(tmp_path / "small")
    return (tmp_path / "small").read_bytes()


def load_bytes(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    return fr.load_frozen(path)


def sealed(data: bytes | bytearray) -> bytes:
    """With the size and the checksum that belong to it."""
    data = bytes(data[:16]) + struct.pack("<Q", len(data)) + bytes(data[24:])
    return data[:12] + struct.pack("<I", zlib.crc32(data[16:])) + data[16:]


def changed(data: bytes, at: int, form: str, *values: Any) -> bytes:
    copy = bytearray(data)
    struct.pack_into("<" + form, copy, at, *values)
    return bytes(copy)


def test_every_length_but_the_right_one_is_refused(tmp_path: Path) -> None:
    data, path = small_file(tmp_path), tmp_path / "model"
    for length in [*range(100), *range(100, len(data), 37), len(data) - 1]:
        with pytest.raises(ValueError, match=r"model file|as the file says of itself"):
            load_bytes(path, data[:length])
        if length >= 64:  # with a length that agrees
            told = "size: expected 328 bytes or more, for one run"
            if length >= 328:
                told = "num_runs: expected 1 to 1, as many as fit"
            if length >= 592:  # both runs are there
                told = r"size: expected \d+ bytes for its network"
            with pytest.raises(ValueError, match=told):
                load_bytes(path, sealed(data[:length]))
    with pytest.raises(ValueError, match="as the file says of itself"):
        load_bytes(path, data + b"\0")
    with pytest.raises(ValueError, match="bytes for its network"):
        load_bytes(path, sealed(data + b"\0"))


RECORD = 64
WRONG = [
    (0, "8s", [b"FUSEDRNN"], "expected a model file of fusedrnn, got other bytes"),
    (8, "I", [2], "expected a model file of version 1, got version 2"),
    (24, "B", [0], "dtype: expected one of"),
    (26, "H", [0], "dtype: expected one of"),
    (28, "i", [3], "compute: expected what frozen weights have, got 3"),
    (28, "i", [-1], "compute: expected a fusedrnn_compute, got -1"),
    (32, "i", [0], "num_runs: expected 1 to"),
    (32, "i", [-5], "num_runs: expected 1 to"),
    (32, "i", [1 << 20], "num_runs: expected 1 to"),
    (36, "I", [2], "expected zeros where version 1 says nothing"),
    (63, "B", [1], "expected zeros where version 1 says nothing"),
    (RECORD, "32s", [b"l" * 32], "cell: expected a name of at most 31 letters, got other bytes"),
    (RECORD, "32s", [b"gr\xfc"], "cell: expected a name of at most 31 letters, got other bytes"),
    (RECORD, "32s", [b"nothing"], "cell: expected one of rnn_tanh"),
    (RECORD + 36, "i", [-1], "reads: expected a row that was written before"),
    (RECORD + 40, "i", [1 << 30], "writes: expected a row above"),
    (RECORD + 44, "i", [-1], "num_constants: expected 0 to 16, got -1"),
    (RECORD + 44, "i", [1 << 30], "num_constants: expected 0 to 16"),
    (RECORD + 44, "i", [2], "num_constants: expected 12"),
    (RECORD + 48, "q", [-1], "read_offset: expected at least 0"),
    (RECORD + 64, "q", [-3], "input_size: expected at least 1"),
    (RECORD + 64, "q", [1 << 62], "are too large"),
    (RECORD + 72, "q", [1 << 31], "are too large|columns of row|bytes for its network"),
    (RECORD + 72, "q", [0], "hidden_size: expected at least 1"),
    (RECORD + 80, "q", [1], "projection_size: expected 0"),
    (RECORD + 88, "q", [3], "heads: expected a divisor of hidden_size = "),
    (RECORD + 88, "q", [-1], "heads: expected a divisor of hidden_size = "),
    (RECORD + 96, "d", [np.nan], "weight_dropout: expected at least 0 and below 1, got nan"),
    (RECORD + 104, "d", [1.5], "zoneout_h: expected at least 0 and at most 1"),
    (RECORD + 136, "d", [np.nan], r"constants\[0\]: expected at least 1e-09"),
    (RECORD + 160, "d", [99.0], r"constants\[3\]: expected a fusedrnn_activation"),
]


@pytest.mark.parametrize(("at", "form", "values", "message"), WRONG)
def test_what_a_field_says_is_checked(
    at: int, form: str, values: list[Any], message: str, tmp_path: Path
) -> None:
    data = sealed(changed(small_file(tmp_path), at, form, *values))
    with pytest.raises(ValueError, match=message) as caught:
        load_bytes(tmp_path / "model", data)
    assert str(caught.value).startswith(str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("weights", "scale", "message"),
    [
        ([127, 0, 0], np.nan, "expected zeros, for its scale is nan"),
        ([127, 0, 0], 0.0, "expected zeros, for its scale is 0"),
        ([127, 0, 0], -1.0, "expected a scale, got -1"),
        ([127, 0, 0], np.inf, "expected a scale, got inf"),
        ([127, 0, 0], 1e-40, "expected a scale, got 9.9"),
        ([127, 0, 0], float.fromhex("0x1.02048p0"), "expected a scale"),  # no number's 127th part
        ([126, 0, 0], 1.0, "expected 127 as the largest, got 126"),
        ([127, -128, 0], 1.0, "expected 127 as the largest, got 128"),
    ],
)
def test_what_a_row_of_eight_bits_says_is_checked(
    weights: list[int], scale: float, message: str, tmp_path: Path
) -> None:
    data = small_file(tmp_path, "int8")
    first = 640  # behind two records: w_ih of the first layer, [16,3], and its scales
    data = changed(changed(data, first, "3b", *weights), first + 64, "f", scale)
    with pytest.raises(ValueError, match=rf"runs\[0\]\.w_ih, row 0: {message}"):
        load_bytes(tmp_path / "model", sealed(data))


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    data, path = small_file(tmp_path, "bfloat16"), tmp_path / "model"
    rng = np.random.default_rng(0)
    for bit in [*range(64 * 8), *rng.integers(64 * 8, len(data) * 8, 500)]:
        copy = bytearray(data)
        copy[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=str(path)):
            load_bytes(path, bytes(copy))


@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
def test_thousands_of_changed_files_are_errors_or_networks(
    weight_dtype: Any, tmp_path: Path
) -> None:
    """Sealed anew, so that the checks behind the checksum are reached."""
    data, path = small_file(tmp_path, weight_dtype), tmp_path / "model"
    rng = np.random.default_rng(0)
    edges = [0, 1, -1, 2, 127, 255, 1 << 15, (1 << 31) - 1, -(1 << 31), 1 << 32, 1 << 62]
    refused = 0
    for _ in range(1200):
        copy = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            # Mostly what is said of the arrays, and less what they hold.
            end = len(copy) - 8 if rng.random() < 0.2 else 64 + 2 * 256
            at = int(rng.integers(24, end))
            match rng.integers(4):
                case 0:
                    copy[at] ^= 1 << int(rng.integers(8))
                case 1:
                    struct.pack_into("<q", copy, at // 8 * 8, edges[rng.integers(len(edges))])
                case 2:
                    value = edges[rng.integers(len(edges))] & 0xFFFFFFFF
                    struct.pack_into("<I", copy, at // 4 * 4, value)
                case 3:
                    cut = int(rng.integers(1, 65))
                    copy = copy[:at] + copy[at + cut :] + bytes(rng.integers(0, 256, cut % 3))
        if len(copy) < 64:
            continue
        try:
            loaded = load_bytes(path, sealed(copy))
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            refused += 1
        else:
            x = np.ones((2, 1, loaded.input_size), dtype="float32")
            if loaded.dtype == "float32" and not loaded.batch_first:
                loaded(x)
    assert 600 < refused < 1200


# --- paths ---


def test_only_files_are_read_and_written(tmp_path: Path) -> None:
    frozen = frozen_layer(0)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    wrong: dict[Any, str] = {tmp_path: "a folder", tmp_path / "fifo": "a FIFO"}
    wrong |= {"/dev/null": "a device"}
    for path, kind in wrong.items():
        with pytest.raises(ValueError, match=f"^{path}: expected a file, got {kind}$"):
            fr.load_frozen(path)
    wrong |= {tmp_path / "socket": "a socket", tmp_path / "dangling": "a symbolic link to nothing"}
    for path, kind in wrong.items():
        with pytest.raises(ValueError, match=f"^{path}: expected a file or nothing, got {kind}$"):
            frozen.save(path)
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "none")):
        fr.load_frozen(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        frozen.save(tmp_path / "none" / "model")
    with pytest.raises(NotADirectoryError):
        frozen.save(tmp_path / "fifo" / "model")
    with pytest.raises(TypeError, match="path: expected a path, got int"):
        frozen.save(3)
    odd = tmp_path / os.fsdecode(b"\xff")
    odd.write_bytes(b"")
    with pytest.raises(ValueError, match=f"^{odd}: expected a model file"):
        fr.load_frozen(odd)
    with pytest.raises(ValueError, match="with a null character"):
        fr.load_frozen("a\0b")


def test_a_file_is_replaced_where_it_is(tmp_path: Path) -> None:
    target, link = tmp_path / "model", tmp_path / "link"
    target.write_bytes(b"before")
    target.chmod(0o640)
    link.symlink_to(target)
    with target.open("rb") as held:
        frozen_layer(0).save(str(link))
        assert held.read() == b"before"  # whoever has it open keeps it
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert fr.load_frozen(link).input_size == I
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "model"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_bytes(b"before")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    script = (
        "import sys, fusedrnn as fr\n"
        "try: fr.GRU(30, 30).freeze().save(sys.argv[1])\n"
        "except OSError as error: print(error.filename)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, target],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout == f"{target}\n"
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_steps_of_a_loaded_network_are_the_fast_ones(tmp_path: Path) -> None:
    frozen_layer(7).save(tmp_path / "model")
    loaded = fr.load_frozen(tmp_path / "model")
    assert loaded._fast_step(np.zeros((B, I), "float32"), None, None) is not None
    assert repr(loaded) == "lstm(5, 19, num_layers=2).freeze()"
    with pytest.raises(ValueError, match=r"state"):
        loaded(np.zeros((T, B, I), "float32"), state=(np.zeros((1, B, H), "float32"),) * 2)
