"""The engine's own sigmoid and tanh: the bounds that docs/activations.md states.

An error is given in ulp: units in the last place of the exact result. float32 is held against
float64, float64 against mpmath. The instruction set is the one in use: `FUSEDRNN_ISA` chooses.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr

Array = NDArray[Any]

ROOT = Path(__file__).resolve().parents[1]
# The largest errors that docs/activations.md states.
BOUND_ULP = {"sigmoid": 2.0, "tanh": 2.0}
FLOAT64: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
EXACT: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
}

# More than two vectors of every instruction set, of every type, and no whole number of them.
UNITS = 35
BATCH = 1 << 14

functions = pytest.mark.parametrize("name", list(BOUND_ULP))
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def of_units(name: str, b_ih: Array, x: Array) -> Array:
    """Return act(x[b] + b_ih[u]) for every sequence b and unit u: an RNN's first step.

    What is added to a sum is -0.0, which leaves every number as it is, -0.0 too.
    """
    units = b_ih.size
    w_hh = np.full((units, units), -0.0, x.dtype)
    b_hh = np.full(units, -0.0, x.dtype)
    w_ih = np.ones((units, 1), x.dtype)
    return fr.rnn(x[None, :, None], w_ih, w_hh, b_ih, b_hh, nonlinearity=name)[0][0]


def activation(name: str, x: Array) -> Array:
    """Return act(x), which must be the same in every lane."""
    y = np.empty_like(x)
    b_ih = np.full(UNITS, -0.0, x.dtype)
    bits = np.dtype(f"i{x.itemsize}")
    for first in range(0, x.size, BATCH):
        block = of_units(name, b_ih, x[first : first + BATCH])
        lanes = block.view(bits)
        assert np.all(lanes == lanes[:, :1])
        y[first : first + BATCH] = block[:, 0]
    return y


def around(points: list[float], dtype: type, count: int) -> Array:
    """All numbers of `dtype` that are at most `count` steps from one of the points."""
    integer = np.int32 if dtype is np.float32 else np.int64
    bits = np.array(points, dtype).view(integer)[:, None] + np.arange(-count, count + 1)
    return bits.astype(integer).view(dtype).ravel()


def critical_points(dtype: type) -> list[float]:
    """Where the result saturates and where the reduction takes its steps, and powers of two."""
    info = np.finfo(dtype)
    bits = info.nmant + 1
    ln2 = np.log(2.0)
    saturation = [
        float(np.log(info.max)),
        float(np.log(info.smallest_normal)),
        (bits + 1) * ln2,
        (bits + 2) * ln2 / 2,
    ]
    steps = [(n + 0.5) * ln2 * scale for n in (0, 1, 2, 7, bits, 120) for scale in (0.5, 1.0)]
    powers = [2.0**-k for k in (0, 1, 2, 4, 12, bits // 2, bits)]
    points = saturation + steps + powers
    return points + [-x for x in points]


def assert_within_bound(name: str, x: Array, y: Array, exact: Array, rest: Array | float) -> None:
    """Compare with the exact result `exact + rest`, wherever it is a normal number."""
    info = np.finfo(x.dtype)
    with np.errstate(over="ignore"):
        rounded = exact.astype(x.dtype)
    normal = np.isfinite(rounded) & (np.abs(exact) >= info.smallest_normal)
    exponent = np.frexp(np.where(normal, exact, 1.0))[1]
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs((y.astype(np.float64) - exact) - rest)
    error = np.where(normal, np.ldexp(error, info.nmant + 1 - exponent), 0.0)
    worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    assert error[worst] <= BOUND_ULP[name], f"{name}({x[worst]!r}) = {y[worst]!r}"
    np.testing.assert_array_equal(y[np.isinf(rounded)], rounded[np.isinf(rounded)])
    tiny = np.abs(exact) < info.smallest_normal  # may be flushed to zero
    assert np.all(np.abs(y[tiny]) <= info.smallest_normal)


@functions
def test_float32_over_its_whole_range(name: str) -> None:
    step, block = 257, 1 << 28
    for first in range(0, 1 << 32, block):
        offset = -first % step
        x = np.arange(first + offset, first + block, step, np.uint32).view(np.float32)
        x = x[np.isfinite(x)]
        with np.errstate(over="ignore"):
            exact = FLOAT64[name](x.astype(np.float64))
        assert_within_bound(name, x, activation(name, x), exact, 0.0)


@functions
def test_float32_near_critical_points(name: str) -> None:
    x = around(critical_points(np.float32), np.float32, 2000)
    with np.errstate(over="ignore"):
        exact = FLOAT64[name](x.astype(np.float64))
    assert_within_bound(name, x, activation(name, x), exact, 0.0)


@functions
def test_float64_against_mpmath(name: str) -> None:
    random = np.random.default_rng(7)
    wide = 20.0 if name == "tanh" else 708.0
    scale = random.choice([wide, 40.0, 8.0, 2.0, 0.7, 1e-3, 1e-12], 18_000)
    x = np.concatenate(
        [
            scale * random.uniform(-1, 1, scale.size),
            around(critical_points(np.float64), np.float64, 20),
        ]
    )
    with mpmath.workprec(120):
        results = [EXACT[name](mpmath.mpf(float(v))) for v in x]
        exact = np.array([float(r) for r in results])
        rest = np.array(
            [float(r - h) if np.isfinite(h) else 0.0 for r, h in zip(results, exact, strict=True)]
        )
    assert_within_bound(name, x, activation(name, x), exact, rest)


@dtypes
def test_special_values(dtype: type) -> None:
    x = np.array([np.inf, -np.inf, 0.0, -0.0, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
    expected = {
        "sigmoid": [1.0, 0.0, 0.5, 0.5, 1.0, 0.0],
        "tanh": [1.0, -1.0, 0.0, -0.0, 1.0, -1.0],
    }
    for name, values in expected.items():
        y = activation(name, x)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, np.array(values, dtype), err_msg=name)
        np.testing.assert_array_equal(np.signbit(y), np.signbit(values), err_msg=name)


@functions
@dtypes
def test_nan_in_any_lane_stays_in_its_lane(name: str, dtype: type) -> None:
    nothing = np.array([-0.0], dtype)
    for lane in range(33):
        x = np.linspace(-3, 3, 33).astype(dtype)
        x[lane] = -np.nan if lane % 2 else np.nan
        y = of_units(name, x, nothing)[0]
        assert np.isnan(y[lane])
        assert np.count_nonzero(np.isnan(y)) == 1


@dtypes
def test_subnormal_arguments(dtype: type) -> None:
    info = np.finfo(dtype)
    x = np.array(
        [info.smallest_subnormal, -info.smallest_subnormal, info.smallest_normal / 2], dtype
    )
    np.testing.assert_array_equal(activation("sigmoid", x), np.full(3, 0.5, dtype))
    assert np.all(np.abs(activation("tanh", x)) <= np.abs(x))


@dtypes
def test_tiny_arguments_are_exact(dtype: type) -> None:
    info = np.finfo(dtype)
    x = np.array([info.smallest_normal, 3 * info.smallest_normal, 1e-20, -1e-30], dtype)
    np.testing.assert_array_equal(activation("tanh", x), x)


@dtypes
def test_saturation(dtype: type) -> None:
    """The limits are reached, never passed, and never left again."""
    info = np.finfo(dtype)
    far = np.geomspace(1, float(info.max) / 2, 4001).astype(dtype)
    bits = info.nmant + 1
    one_from = (bits + 1) * np.log(2.0)

    sigmoid = activation("sigmoid", far)
    assert sigmoid.max() == 1
    assert np.all(sigmoid[far >= one_from] == 1)
    low = activation("sigmoid", -far)
    assert np.all((low >= 0) & (low < 0.5))
    assert np.all(low[far > -np.log(float(info.smallest_normal)) + 1] == 0)

    tanh = activation("tanh", far)
    assert tanh.max() == 1
    assert np.all(tanh[far >= (bits + 2) * np.log(2.0) / 2 * 1.001] == 1)
    np.testing.assert_array_equal(activation("tanh", -far), -tanh)


@functions
def test_float32_never_decreases(name: str) -> None:
    x = np.sort(np.arange(0, 1 << 32, 1021, dtype=np.uint32).view(np.float32))
    x = x[np.isfinite(x)]
    y = activation(name, x).astype(np.float64)
    # The order of two neighbours may differ by the errors of both.
    slack = 2 * BOUND_ULP[name] * np.finfo(np.float32).eps
    assert np.all(y[1:] >= y[:-1] - slack * np.minimum(np.abs(y[:-1]), 3e38))


@functions
@dtypes
def test_every_count_gives_the_same_bits(name: str, dtype: type) -> None:
    """Tails are not a case of their own: an element's result depends on that element alone."""
    nothing = np.array([-0.0], dtype)
    values = np.linspace(-4, 4, 40).astype(dtype)
    expected = activation(name, values)
    for count in range(1, 41):
        y = of_units(name, values[:count], nothing)[0]
        np.testing.assert_array_equal(y, expected[:count])


def test_constants_come_from_the_fit() -> None:
    """Every constant of the header is what the tool computes."""
    command = [sys.executable, str(ROOT / "tools" / "fit_activations.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
