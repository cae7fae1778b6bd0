"""The oracle's differentiation: each primitive, and the graph walk that joins them."""

import math
import operator

import pytest

from oracle.autodiff import Var, backpropagate, dot, relu, sigmoid, tanh, value_of

POINTS = (-3.0, -0.7, 0.4, 2.5)


def derivatives(f, *values):
    variables = [Var(v) for v in values]
    grad = backpropagate([(f(*variables), 1.0)])
    return [grad.get(v, 0.0) for v in variables]


def central(f, *values, step=1e-4):
    """Five-point differences, whose error is of order step**4."""

    def along(k, shift):
        return value_of(f(*(v + shift * (j == k) for j, v in enumerate(values))))

    return [
        (8 * (along(k, step) - along(k, -step)) - (along(k, 2 * step) - along(k, -2 * step)))
        / (12 * step)
        for k in range(len(values))
    ]


@pytest.mark.parametrize("f", [sigmoid, tanh, relu, operator.neg], ids=lambda f: f.__name__)
@pytest.mark.parametrize("a", POINTS)
def test_functions_of_one_number(f, a):
    assert derivatives(f, a) == pytest.approx(central(f, a), rel=1e-10, abs=1e-11)


@pytest.mark.parametrize("f", [operator.add, operator.sub, operator.mul])
@pytest.mark.parametrize("a", POINTS)
@pytest.mark.parametrize("b", POINTS)
def test_functions_of_two_numbers(f, a, b):
    assert derivatives(f, a, b) == pytest.approx(central(f, a, b), rel=1e-10, abs=1e-11)
    # A plain number on either side is a constant.
    assert derivatives(lambda v: f(v, b), a) == derivatives(f, a, b)[:1]
    assert derivatives(lambda v: f(a, v), b) == derivatives(f, a, b)[1:]


def test_values_are_those_of_the_arithmetic():
    a, b = Var(3.0), Var(-2.0)
    assert [v.value for v in (a + b, a - b, a * b, -a)] == [1.0, 5.0, -6.0, -3.0]
    assert [v.value for v in (1 - a, 2 * a, 4 + a, a - 1)] == [-2.0, 6.0, 7.0, 2.0]
    assert sigmoid(0.0) == 0.5
    assert tanh(Var(0.3)).value == math.tanh(0.3)
    assert (relu(-1.0), relu(2.0)) == (0.0, 2.0)


def test_dot_differentiates_both_sides():
    assert dot([1.0, 2.0], [3.0, 4.0]) == 11.0
    p, q = [Var(1.0), Var(2.0)], [Var(3.0), 4.0]
    out = dot(p, q)
    grad = backpropagate([(out, 1.0)])
    assert out.value == 11.0
    assert [grad[v] for v in (*p, q[0])] == [3.0, 4.0, 1.0]
    with pytest.raises(ValueError, match="zip"):
        dot([1.0], [1.0, 2.0])


def test_every_use_of_a_value_counts():
    a = Var(3.0)
    square = a * a
    out = square * square + a  # a**4 + a
    assert backpropagate([(out, 2.0)])[a] == 2 * (4 * 27 + 1)
    # Several outputs, one of them an inner node of the other, and one constant.
    assert backpropagate([(out, 1.0), (square, 10.0), (7.0, math.nan)])[a] == 109 + 60


def test_differentiating_twice_gives_the_same():
    a = Var(0.5)
    out = tanh(a) * a
    assert backpropagate([(out, 1.0)]) == backpropagate([(out, 1.0)])


def test_a_long_chain_needs_no_recursion():
    a = Var(1.0)
    out = a
    for _ in range(20_000):
        out = out + 1.0
    assert (out.value, backpropagate([(out, 1.0)])[a]) == (20_001.0, 1.0)


@pytest.mark.parametrize("a", [-1e6, -800.0, -40.0, 40.0, 800.0, 1e6])
def test_saturation_neither_overflows_nor_cancels(a):
    assert sigmoid(a) == pytest.approx(math.exp(min(a, 0.0)), rel=1e-15, abs=0.0)
    (slope,) = derivatives(sigmoid, a)
    assert slope == pytest.approx(math.exp(-abs(a)), rel=1e-15, abs=0.0)
    (slope,) = derivatives(tanh, a)
    assert slope == pytest.approx(4 * math.exp(-2 * abs(a)), rel=1e-15, abs=0.0)


def test_relu_has_no_slope_at_zero_and_keeps_nan():
    assert derivatives(relu, 0.0) == [0.0]
    assert math.isnan(relu(math.nan))
