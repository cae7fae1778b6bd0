"""Mistakes in the use of frozen layers: each message names the argument, and nothing is written."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from support import LAYERS

cells = pytest.mark.parametrize("cell", list(LAYERS))
I, H, L, B = 3, 4, 2, 2  # noqa: E741
X = np.ones((B, I), "float32")


def state_of(cell: str, fill: float = 0, **changed: Any) -> Any:
    """A state; `changed`: another array as its h or c."""
    h = changed.get("h", np.full((L, B, H), fill, "float32"))
    c = changed.get("c", np.full((L, B, H), fill, "float32"))
    return (h, c) if cell == "lstm" else h


def names(cell: str, base: str) -> dict[str, str]:
    """The parts of a state under the names of messages."""
    return {"h": f"{base}[0]", "c": f"{base}[1]"} if cell == "lstm" else {"h": base}


def rejected(
    frozen: Any,
    error: type[Exception],
    message: str,
    x: Any = X,
    state: Any = None,
    out: Any = None,
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        frozen.step(x, state, out=out)


def test_weight_dtypes() -> None:
    for bad in ("float32", "float16", "int4", ""):
        near = r"; did you mean 'bfloat16'\?" if bad == "float16" else ""
        message = f"^weight_dtype: expected 'bfloat16' or 'int8', got {bad!r}{near}$"
        with pytest.raises(ValueError, match=message):
            fr.GRU(3, 4).freeze(bad)
    for wrong in (8, np.int8, True):
        with pytest.raises(TypeError, match=r"^weight_dtype: expected a str, got "):
            fr.GRU(3, 4).freeze(wrong)  # type: ignore[arg-type]
    for name in ("bfloat16", "int8"):
        message = rf"^weight_dtype: expected None for GRU\(3, 4, dtype='float64'\), got '{name}'$"
        with pytest.raises(ValueError, match=message):
            fr.GRU(3, 4, dtype="float64").freeze(name)


@cells
def test_return_cells_is_a_bool(cell: str) -> None:
    frozen: Any = LAYERS[cell](3, 4).freeze()
    for steps in (1, 2):  # a single one has a way of its own
        for bad in (0, None, ""):
            with pytest.raises(TypeError, match=r"^return_cells: expected a bool, got "):
                frozen(np.zeros((steps, 2, 3), "float32"), return_cells=bad)


@cells
def test_a_bidirectional_layer_has_no_steps(cell: str) -> None:
    layer = LAYERS[cell](3, 4, bidirectional=True)
    message = f"step: expected a layer of one direction, got {layer!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        layer.step(X)
    rejected(layer.freeze(), ValueError, message)


@cells
def test_x(cell: str) -> None:
    frozen = LAYERS[cell](I, H, L).freeze()
    rejected(frozen, ValueError, "x_t: expected shape (*, 3), got (2, 4)", np.ones((2, 4), "f4"))
    rejected(frozen, ValueError, "x_t: expected shape (3,), got (2,)", X[0, :2])
    rejected(frozen, ValueError, "x_t: expected shape (*, 3), got (1, 2, 3)", X[None])
    rejected(
        frozen,
        TypeError,
        "x_t: expected dtype float32, got float64; use .astype('float32')",
        X.astype("f8"),
    )
    rejected(frozen, TypeError, "x_t: expected dtype float32, got int32", X.astype("i4"))
    message = "x_t: expected an array in the machine's byte order, got dtype >f4"
    rejected(frozen, TypeError, message, X.astype(">f4"))
    with pytest.raises(TypeError, match=r"^x_t: expected an array without a mask"):
        frozen.step(np.ma.masked_array(X))
    for bad in (None, 1.0, [[1.0] * 3] * 2, "x"):
        with pytest.raises((TypeError, ValueError), match=r"^x_t: expected an array"):
            frozen.step(bad)
    # The same words as the layer's.
    with pytest.raises(ValueError, match=r"^x: expected shape \(\*, \*, 3\), got \(3,\)$"):
        frozen(X[0])


@cells
def test_states(cell: str) -> None:
    frozen = LAYERS[cell](I, H, L).freeze()
    for part, name in names(cell, "state").items():
        for shape in ((L, B, H + 1), (L, B + 1, H), (L + 1, B, H), (B, H), (1, L, B, H)):
            state = state_of(cell, **{part: np.zeros(shape, "float32")})
            shown = ", ".join(map(str, shape))
            message = f"{name}: expected shape (2, 2, 4), got ({shown})"
            rejected(frozen, ValueError, message, state=state)
        state = state_of(cell, **{part: np.zeros((L, B, H))})
        rejected(
            frozen,
            TypeError,
            f"{name}: expected dtype float32, got float64; use .astype('float32')",
            state=state,
        )
    h = np.zeros((L, B, H), "float32")
    if cell == "lstm":
        rejected(frozen, TypeError, "state: expected a pair (h, c), got ndarray", state=h)
        rejected(frozen, ValueError, "state: expected a pair (h, c), got 3 values", state=(h, h, h))
    else:
        with pytest.raises(TypeError, match=r"^state: expected an array.*, got .*tuple"):
            frozen.step(X, (h, h))


@cells
def test_out_is_a_pair(cell: str) -> None:
    frozen = LAYERS[cell](I, H, L).freeze()
    y, state = np.zeros((B, H), "float32"), state_of(cell)
    rejected(frozen, TypeError, "out: expected a pair (y_t, state), got ndarray", out=y)
    rejected(frozen, ValueError, "out: expected a pair (y_t, state), got 1 values", out=(y,))
    rejected(frozen, ValueError, "out: expected a pair (y_t, state), got 3 values", out=(y,) * 3)
    rejected(frozen, ValueError, "out[0]: expected an array, got none", out=(None, state))
    if cell == "lstm":
        h, c = state
        rejected(frozen, TypeError, "out[1]: expected a pair (h, c), got ndarray", out=(y, h))
        rejected(frozen, TypeError, "out[1]: expected a pair (h, c), got NoneType", out=(y, None))
        rejected(frozen, ValueError, "out[1][0]: expected an array, got none", out=(y, (None, c)))
        rejected(frozen, ValueError, "out[1][1]: expected an array, got none", out=(y, (h, None)))
    else:
        rejected(frozen, ValueError, "out[1]: expected an array, got none", out=(y, None))
    with pytest.raises(TypeError, match="positional argument"):
        frozen.step(X, None, (y, state))


@cells
def test_shapes_dtypes_and_layouts_of_out(cell: str) -> None:
    frozen = LAYERS[cell](I, H, L).freeze()
    good = np.full((B, H), 7, "float32")

    def read_only(array: Any) -> Any:
        array.flags.writeable = False
        return array

    def cases(shape: tuple[int, ...]) -> Any:
        shown = ", ".join(map(str, shape))
        other = (*shape[:-1], shape[-1] + 1)
        yield ValueError, f"expected shape ({shown}), got ({shown[:-1]}5)", np.ones(other, "f4")
        yield (
            TypeError,
            "expected dtype float32, got float64; use .astype('float32')",
            np.ones(shape),
        )
        yield (
            ValueError,
            "expected an array to write to, got a read-only one",
            read_only(np.ones(shape, "f4")),
        )
        gaps = np.ones((*shape, 2), "f4")[..., 0]
        yield ValueError, "expected a last axis of stride 1, got stride 2", gaps
        raw = np.ones(4 * int(np.prod(shape)) + 1, "u1")[1:].view("f4").reshape(shape)
        message = "expected memory aligned to 4 bytes, got a misaligned address"
        yield ValueError, message, raw
        strides = (0,) * (len(shape) - 1) + (4,)
        one_row = np.lib.stride_tricks.as_strided(np.ones(8, "f4"), shape, strides)
        message = "expected rows that do not overlap, got strides that make them overlap"
        yield ValueError, message, one_row

    for error, message, y in cases((B, H)):
        rejected(frozen, error, f"out[0]: {message}", out=(y, state_of(cell)))
    for part, name in names(cell, "out[1]").items():
        for error, message, array in cases((L, B, H)):
            state = state_of(cell, 7, **{part: array})
            rejected(frozen, error, f"{name}: {message}", out=(good, state))
            assert (good == 7).all()  # nothing has been written
            if cell == "lstm":
                assert (state[part == "h"] == 7).all()


@cells
def test_overlaps_of_out(cell: str) -> None:
    frozen = LAYERS[cell](I, H, L).freeze()
    memory = np.zeros(64, "float32")
    y, h = memory[: B * H].reshape(B, H), memory[8 : 8 + L * B * H].reshape(L, B, H)
    near = memory[7 : 7 + L * B * H].reshape(L, B, H)
    apart = state_of(cell, h=h)
    assert frozen.step(X, out=(y, apart))[0] is y
    first = names(cell, "out[1]")["h"]
    message = f"{first}: expected memory apart from out[0], got overlapping memory"
    rejected(frozen, ValueError, message, out=(y, state_of(cell, h=near)))
    rejected(frozen, ValueError, message, out=(h[-1], state_of(cell, h=h)))
    if cell == "lstm":
        message = "out[1][1]: expected memory apart from out[1][0], got overlapping memory"
        rejected(frozen, ValueError, message, out=(y, (h, h)))
