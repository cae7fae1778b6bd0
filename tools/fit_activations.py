"""Fit the constants of the vector activations and print them as the header holds them.

Usage::

    python tools/fit_activations.py            # the constants, with the error of each fit
    python tools/fit_activations.py --check    # fail unless csrc/cpu/kernels/activations.h has them

``sigmoid``, ``tanh`` and ``exp`` share one series: e^r = 1 + r + r^2 (c_0 + c_1 r + ...) on
|r| <= ln(2)/2. What is fitted is q(r) = (e^r - 1) / r = 1 + c_0 r + c_1 r^2 + ..., whose relative
error is that of e^r - 1, which ``tanh`` needs near 0. ``softplus`` has a second one, of
q(r) = atanh(sqrt(r)) / sqrt(r) = 1 + c_0 r + ...: log(1 + t) = 2 s q(s^2), s = t / (2 + t), for
0 <= t <= 1. Remez's exchange algorithm makes the largest relative error as small as it can be, in
40 digits; the constant term is held at 1, so that the functions are exact for tiny arguments.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpmath import (
    atanh,
    ceil,
    cos,
    expm1,
    floor,
    frexp,
    ldexp,
    log,
    lu_solve,
    matrix,
    mp,
    mpf,
    nint,
    pi,
    sign,
    sqrt,
)

mp.dps = 40

HEADER = Path(__file__).resolve().parents[1] / "csrc" / "cpu" / "kernels" / "activations.h"
LN2 = log(2)
# r leaves |r| <= ln(2)/2 by the rounding of x * log2(e).
RADIUS = LN2 / 2 * (1 + ldexp(1, -12))


@dataclass(frozen=True)
class Format:
    """A binary floating-point format and the degree of its polynomial.

    Attributes
    ----------
    name : str
        The C++ type.
    suffix : str
        The suffix of its literals.
    precision : int
        Bits of the significand, the implicit one included.
    bias : int
        The exponent's bias, which is also the largest exponent.
    degree, log_degree : int
        Degrees of the two q.
    """

    name: str
    suffix: str
    precision: int
    bias: int
    degree: int
    log_degree: int

    def round(self, value: mpf) -> mpf:
        """Round to the nearest number of the format."""
        exponent = frexp(value)[1]
        return ldexp(nint(ldexp(value, self.precision - exponent)), exponent - self.precision)

    def round_up(self, value: mpf) -> mpf:
        """Return the smallest number of the format that is not less."""
        exponent = frexp(value)[1]
        return ldexp(ceil(ldexp(value, self.precision - exponent)), exponent - self.precision)

    def literal(self, value: mpf) -> str:
        """Write a number of the format as a hexadecimal literal."""
        return re.sub(r"\.?0*p", "p", float(value).hex()) + self.suffix


FORMATS = (Format("float", "f", 24, 127, 5, 4), Format("double", "", 53, 1023, 10, 10))


@dataclass(frozen=True)
class Series:
    """A function that is 1 at r = 0, where it is to be fitted.

    Attributes
    ----------
    function : callable
        What is fitted, at any r but 0.
    lowest, highest : mpf
        The interval.
    meaning : str
        What the relative error of the function is the relative error of.
    """

    function: Callable[[mpf], mpf]
    lowest: mpf
    highest: mpf
    meaning: str

    def target(self, r: mpf) -> mpf:
        """Return the exact value."""
        return self.function(r) if r else mpf(1)

    def relative_error(self, coefficients: list[mpf], r: mpf) -> mpf:
        """Return the relative error of the polynomial whose coefficients stand lowest first."""
        total = mpf(0)
        for coefficient in reversed(coefficients):
            total = total * r + coefficient
        return total / self.target(r) - 1

    def at(self, place: mpf) -> mpf:
        """Return the point of the interval at a place from -1 to 1."""
        return (self.lowest + self.highest) / 2 + (self.highest - self.lowest) / 2 * place

    def extrema(self, coefficients: list[mpf], count: int) -> list[mpf]:
        """Return the ``count`` points of alternating sign where the relative error is largest.

        The error has the sign of r times that of the error of (q - 1) / r, and the latter
        alternates.
        """
        samples = 40 * count
        grid = [self.at(cos(pi * (samples - i) / samples)) for i in range(samples + 1)]
        grid = [r for r in grid if abs(r) > self.highest / samples**2]  # at r = 0 the error is 0
        errors = [self.relative_error(coefficients, r) * sign(r) for r in grid]
        peaks: list[int] = []
        for i, error in enumerate(errors):
            if peaks and sign(errors[peaks[-1]]) == sign(error):
                if abs(error) > abs(errors[peaks[-1]]):
                    peaks[-1] = i
            else:
                peaks.append(i)
        while len(peaks) > count:
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        return [grid[i] for i in peaks]

    def remez(self, degree: int) -> list[mpf]:
        """Fit with the constant term 1; return the coefficients, lowest first.

        Raises
        ------
        RuntimeError
            If the extrema do not level to 1 %.
        """
        size = degree + 1
        # Chebyshev's points, shifted off r = 0, where there is no error to level.
        places = [cos(pi * (2 * (size - i) - mpf("0.9")) / (2 * size)) for i in range(size)]
        points = [self.at(place) for place in places]
        for _ in range(20):
            system, right = matrix(size, size), matrix(size, 1)
            for row, r in enumerate(points):
                for k in range(1, size):
                    system[row, k - 1] = r**k / self.target(r)
                system[row, degree] = (-1) ** row * sign(r)
                right[row] = 1 - 1 / self.target(r)
            solution = lu_solve(system, right)
            coefficients = [mpf(1)] + [solution[i] for i in range(degree)]
            points = self.extrema(coefficients, size)
            errors = [abs(self.relative_error(coefficients, r)) for r in points]
            if len(points) == size and max(errors) < mpf("1.01") * min(errors):
                return coefficients
        raise RuntimeError(f"no convergence at degree {degree}")


SERIES = {
    "series": Series(lambda r: expm1(r) / r, -RADIUS, RADIUS, "e^r - 1"),
    "log_series": Series(lambda r: atanh(sqrt(r)) / sqrt(r), mpf(0), mpf(1) / 9, "log(1 + t)"),
}


def constants(fmt: Format) -> dict[str, mpf | list[mpf]]:
    """Compute the constants of one format, by their names in the header."""
    # So short that n * ln2_hi is exact: n has as many bits as the exponent, and one for underflow.
    short = fmt.precision - fmt.bias.bit_length() - 1
    ln2_hi = ldexp(floor(ldexp(LN2, short)), -short)
    return {
        "log2e": fmt.round(1 / LN2),
        "ln2": fmt.round(LN2),
        "ln2_hi": ln2_hi,
        "ln2_lo": fmt.round(LN2 - ln2_hi),
        # Added to a number it rounds it, and leaves it in the low bits with the exponent's bias.
        "shifter": ldexp(mpf("1.5"), fmt.precision - 1) + fmt.bias,
        # Below the first e^x is less than any normal number; at the others sigmoid and tanh
        # round to 1.
        "exp_zero": fmt.round_up(LN2 * (1 - fmt.bias)),
        "sigmoid_one": ceil(LN2 * (fmt.precision + 1)),
        "tanh_one": fmt.round_up(LN2 * (fmt.precision + 2) / 2),
        # And from here on e^x is infinite.
        "exp_infinite": ceil(LN2 * (fmt.bias + 1)),
        "series": [fmt.round(c) for c in SERIES["series"].remez(fmt.degree)[1:]],
        "log_series": [fmt.round(c) for c in SERIES["log_series"].remez(fmt.log_degree)[1:]],
    }


def without_spaces(text: str) -> str:
    """Leave out all white space, which clang-format may move."""
    return "".join(text.split())


def main() -> int:
    """Print the constants, or compare them with the header."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the header instead")
    check = parser.parse_args().check
    text = without_spaces(HEADER.read_text(encoding="utf-8")) if check else ""
    missing = []
    for fmt in FORMATS:
        for name, value in constants(fmt).items():
            if isinstance(value, list):
                series = SERIES[name]
                grid = [series.at(mpf(i) / 500) for i in range(-500, 501)]
                worst = max(abs(series.relative_error([mpf(1), *value], r)) for r in grid)
                note = f"  // relative error of {series.meaning}: 2^{float(log(worst, 2)):.2f}"
                numbers = ", ".join(fmt.literal(c) for c in value)
                line = f"static constexpr {fmt.name} {name}[] = {{{numbers}}};"
            else:
                note = ""
                line = f"static constexpr {fmt.name} {name} = {fmt.literal(value)};"
            if check and without_spaces(line) not in text:
                missing.append(line)
            elif not check:
                print(line + note)
    if missing:
        print(f"{HEADER} lacks:", *missing, sep="\n", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
