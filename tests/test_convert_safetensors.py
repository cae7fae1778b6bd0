"""Arrays in files of safetensors, which the library itself reads and writes."""

from __future__ import annotations

import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from convert_support import layer_of, rejected, same_layer
from fusedrnn.convert import from_torch, load_safetensors, save_safetensors
from support import same_bits

ml_dtypes = pytest.importorskip("ml_dtypes")
library = pytest.importorskip("safetensors.numpy")

DTYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "complex64"]
DTYPES += ["uint8", "uint16", "uint32", "uint64", "bool", "bfloat16"]


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made = {name: rng.integers(0, 2, (3, 4)).astype(name) for name in DTYPES}
    return made | {"scalar": np.array(2.5), "empty": np.zeros((0, 3), np.float32)}


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_safetensors(arrays(), path)
    same_bits(load_safetensors(path), arrays())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    given = {name: value for name, value in arrays().items() if name != "bfloat16"}
    save_safetensors(given, str(path), {"made by": "a test"})
    same_bits(library.load_file(path), given)
    library.save_file(arrays(), path)
    same_bits(load_safetensors(os.fsencode(path).decode()), arrays())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("cell", ["gru", "lstm", "indrnn"])
def test_a_layer_among_other_arrays(cell: str, dtype: str, tmp_path: Path) -> None:
    layer = layer_of(cell, num_layers=2, bidirectional=True, dtype=dtype)
    path = tmp_path / "weights.safetensors"
    state = {f"rnn.{name}": value for name, value in layer.state_dict().items()}
    save_safetensors(state | {"head": np.zeros((2, 2))}, path)
    same_layer(from_torch(load_safetensors(path), "rnn"), layer)


def test_arrays_of_other_libraries(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.safetensors"
    given = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(2, dtype=torch.bfloat16)}
    given["c"] = torch.nn.Parameter(torch.ones(3))
    save_safetensors(given, path)
    loaded = load_safetensors(path)
    np.testing.assert_array_equal(loaded["a"], given["a"].numpy())
    assert loaded["b"].dtype == ml_dtypes.bfloat16
    assert loaded["c"].tolist() == [1, 1, 1]


def test_an_old_file_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "weights.safetensors", tmp_path / "link"
    save_safetensors({"a": np.zeros(2)}, path)
    path.chmod(0o640)
    link.symlink_to(path)
    save_safetensors({"a": np.ones(2)}, link)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = path.read_bytes()

    def fails(_descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="disk is full"):
        save_safetensors({"a": np.zeros(9)}, path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", path.name]


# Errors


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "header too small"),
        (b"\xff" * 64, "header too large"),
        (struct.pack("<Q", 100) + b"{}", "header length"),
        (file_of(b"\xff\xfe"), "header"),
        (file_of(b"[1]"), "header"),
        (file_of({"a": tensor()}, b"1234"), "incomplete"),
        (file_of({"a": tensor()}, b"1" * 9), "incomplete"),
        (file_of({"a": tensor(shape=(3,))}, b"1" * 8), "shape|info"),
        (file_of({"a": tensor(offsets=(8, 0))}, b"1" * 8), "offset"),
        (file_of({"a": tensor(shape=(2**40, 2**40))}, b"1" * 8), "overflow"),
        (file_of({"a": tensor(shape=(-1,))}, b"1" * 8), "header"),
        (file_of({"a": tensor("F99")}, b"1" * 8), "header"),
        (file_of({"a": tensor(), "b": tensor()}, b"1" * 8), "offset"),
    ],
)
def test_a_hostile_file(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)
    message = rf"^path: expected a safetensors file at .*, got none \((?i:.*({reason}))"
    with pytest.raises(ValueError, match=message):
        load_safetensors(path)


def test_what_cannot_be_read_or_written(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(file_of({"a": tensor("F8_E4M3", (8,))}, b"1" * 8))
    with pytest.raises(ValueError, match=r"^a: expected a dtype among F16, .*, BF16, got F8_E4M3$"):
        load_safetensors(path)
    with pytest.raises(FileNotFoundError):
        load_safetensors(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        load_safetensors(tmp_path)
    rejected(TypeError, "path: expected a path, got int", load_safetensors, 3)
    zeros = np.zeros(2)
    for given, target, metadata, error, message in [
        (3, path, None, TypeError, "arrays: expected a mapping, got int"),
        ({3: zeros}, path, None, TypeError, "arrays: expected names that are str, got 3"),
        ({"a": zeros}, path, {3: "b"}, TypeError, "metadata: expected names that are str, got 3"),
        ({"a": zeros}, path, {"b": 3}, TypeError, "metadata['b']: expected a str, got int"),
        (
            {"a": [1.0]},
            path,
            None,
            TypeError,
            "a: expected an array (NumPy, or an object with __dlpack__), got list",
        ),
        (
            {"a": zeros.astype(complex)},
            path,
            None,
            TypeError,
            "a: expected a dtype that safetensors has, got complex128",
        ),
        ({"a": zeros}, 3, None, TypeError, "path: expected a path, got int"),
        (
            {"a": zeros},
            tmp_path,
            None,
            ValueError,
            f"path: expected a file or nothing at {tmp_path}, got something else",
        ),
    ]:
        rejected(error, message, save_safetensors, given, target, metadata)
    with pytest.raises(FileNotFoundError):
        save_safetensors({"a": zeros}, tmp_path / "nothing" / "weights")
    assert isinstance(from_torch(layer_of("lstm").state_dict()), fr.LSTM)
