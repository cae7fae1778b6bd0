"""bfloat16 and float16: every cell and gradient, what is rounded and what is not, and bits."""

from __future__ import annotations

from typing import Any

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

import fusedrnn as fr
import oracle
import reference
from half_support import (
    PRECISIONS,
    Precision,
    check_rounded,
    half_problem,
    halves,
    in_double,
    precisions,
)
from support import (
    HARD,
    LAYERS,
    Arguments,
    backward,
    check,
    directions,
    forward,
    infer,
    outputs,
    same_bits,
    sequence_of,
    stack_of,
    variants,
    with_zero_biases,
)

# The reference's own rounding


def test_rounding_is_that_of_the_types() -> None:
    upper = np.arange(2**16, dtype=np.uint32) << 16
    lower = np.random.default_rng(0).integers(0, 2**16, upper.size, np.uint32)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    with np.errstate(all="ignore"):
        for array in (
            (upper | lower).view(np.float32),
            upper.view(np.float32),
            (upper | 0x8000).view(np.float32),  # ties of bfloat16
            halves.astype(np.float32) * np.float32(1 + 2**-11),  # of float16
        ):
            for dtype in (ml_dtypes.bfloat16, np.float16, np.float32):
                got = reference.rounded(array, np.dtype(dtype).name)
                np.testing.assert_array_equal(got, array.astype(dtype).astype(np.float64))


@halves
def test_rounding_makes_a_difference(dtype: str) -> None:
    """A reference that rounds nowhere would pass for one that agrees with everything."""
    problem, upstream = half_problem("lstm", PRECISIONS[dtype])
    precision = PRECISIONS[dtype]
    exact = reference.gradients("lstm", **problem, **upstream)
    for name, value in reference.gradients(
        "lstm", **problem, **upstream, rounding=precision.rounding
    ).items():
        error = reference.relative_error(value, exact[name])
        assert precision.unit / 16 < error < 8 * precision.unit, name


# Outputs and gradients


@variants
@precisions
@directions
def test_oracle(cell: str, options: Arguments, precision: Precision, reverse: bool) -> None:
    """The exact results of the rounded inputs, to a few roundings."""
    options = {**options, "reverse": reverse}
    problem, upstream = half_problem(cell, precision, **HARD, seed=1)
    got, tape = forward(cell, **problem, **options, **precision.options)
    grads = backward(cell, tape, **upstream)
    exactly = {name: oracle_input(value) for name, value in problem.items()}
    above = {name: oracle_input(value) for name, value in upstream.items()}
    expected = oracle.forward(cell, **exactly, **options)
    check(in_double(got), in_double(expected), precision.unit)
    expected = oracle.gradients(cell, **exactly, **above, **options)
    check(in_double(grads), in_double(expected), 4 * precision.unit)


def oracle_input(value: Any) -> Any:
    return value if value.dtype.kind in "ib" else value.astype(np.float64)


@variants
@precisions
@directions
@pytest.mark.parametrize("hard", [{}, HARD], ids=["", "lengths-resets"])
def test_reference(
    cell: str, options: Arguments, precision: Precision, reverse: bool, hard: Arguments
) -> None:
    problem, upstream = half_problem(cell, precision, steps=8, batch=5, **hard, seed=2)
    check_rounded(cell, problem, upstream, precision, reverse=reverse, **options)


@variants
@precisions
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("initial", [False, True], ids=["", "initial"])
def test_optional_inputs(
    cell: str, options: Arguments, precision: Precision, bias: bool, initial: bool
) -> None:
    problem, upstream = half_problem(cell, precision, bias=bias, initial=initial, seed=3)
    check_rounded(cell, problem, upstream, precision, **options)


# Odd and even, for products that take numbers in pairs; around every width of a vector; batches
# around the blocks of 16 and 32 rows that matrix units take.
@variants
@precisions
@pytest.mark.parametrize(
    ("hidden_size", "batch", "input_size", "steps"),
    [
        (1, 1, 1, 3),
        (2, 13, 5, 6),
        (7, 2, 33, 6),
        (16, 5, 16, 6),
        (31, 3, 2, 5),
        (33, 8, 66, 1),
        (32, 16, 33, 3),
        (48, 17, 64, 3),
        (65, 33, 20, 2),
        (20, 75, 40, 4),
        (150, 2, 20, 3),
        (117, 4, 35, 3),
    ],
)
def test_sizes(
    cell: str,
    options: Arguments,
    precision: Precision,
    hidden_size: int,
    batch: int,
    input_size: int,
    steps: int,
) -> None:
    sizes = {"hidden_size": hidden_size, "batch": batch, "input_size": input_size, "steps": steps}
    for reverse in (False, True):
        problem, upstream = half_problem(cell, precision, **sizes, **HARD, seed=4)
        check_rounded(cell, problem, upstream, precision, together=True, reverse=reverse, **options)


@variants
@precisions
def test_every_small_batch(cell: str, options: Arguments, precision: Precision) -> None:
    for batch in range(1, 14):
        problem, upstream = half_problem(
            cell, precision, steps=3, batch=batch, input_size=9, hidden_size=19, seed=batch
        )
        check_rounded(cell, problem, upstream, precision, together=True, **options)


@variants
@precisions
def test_long(cell: str, options: Arguments, precision: Precision) -> None:
    problem, upstream = half_problem(
        cell, precision, steps=150, batch=3, input_size=8, hidden_size=24, **HARD, seed=5
    )
    check_rounded(cell, problem, upstream, precision, **options)


@variants
@precisions
def test_empty(cell: str, options: Arguments, precision: Precision) -> None:
    for shape in ({"steps": 0}, {"batch": 0}, {"steps": 0, "batch": 0}):
        problem, upstream = half_problem(cell, precision, **shape, **HARD)
        check_rounded(cell, problem, upstream, precision, **options)
    problem, upstream = half_problem(cell, precision, steps=0)
    got, tape = forward(cell, **problem, **options, **precision.options)
    grads = backward(cell, tape, **upstream)
    for state in ("h", "c")[: len(got) - 1]:
        same_bits({"": got[f"{state}_n"]}, {"": problem[f"{state}0"]})
        same_bits({"": grads[f"d{state}0"]}, {"": upstream[f"d{state}_n"]})


@variants
@precisions
@hypothesis.settings(max_examples=25)
@hypothesis.given(
    reverse=st.booleans(),
    shape=st.fixed_dictionaries(
        {
            "steps": st.integers(0, 20),
            "batch": st.integers(0, 20),
            "input_size": st.integers(1, 70),
            "hidden_size": st.integers(1, 70),
            "bias": st.booleans(),
            "initial": st.booleans(),
            "lengths": st.booleans(),
            "resets": st.booleans(),
            "seed": st.integers(0, 1000),
        }
    ),
)
def test_random_configurations(
    cell: str, options: Arguments, precision: Precision, reverse: bool, shape: Arguments
) -> None:
    problem, upstream = half_problem(cell, precision, **shape)
    # With enough examples there is one whose early steps round the other way.
    wider = precision._replace(bound=2 * precision.bound)
    check_rounded(cell, problem, upstream, wider, together=True, reverse=reverse, **options)


# What is not rounded


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_products_are_summed_in_float32(dtype: str, bits: int) -> None:
    """In the type itself a sum of ones would stand still at 2^bits."""
    count = 2 ** (bits + 3)
    x, w_hh = np.ones((1, 1, count), dtype), np.zeros((1, 1), dtype)
    y, _, tape = fr.rnn_forward(x, np.ones((1, count), dtype), w_hh, nonlinearity="identity")
    assert float(y.item()) == count
    x = np.ones((count, 1, 1), dtype)
    _, _, tape = fr.rnn_forward(x, np.ones((1, 1), dtype), w_hh, nonlinearity="identity")
    grads = fr.rnn_backward(tape, np.ones((count, 1, 1), dtype))
    assert float(grads.dw_ih.item()) == count
    assert float(grads.db_hh.item()) == count


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_the_cell_state_is_carried_in_float32(dtype: str, bits: int) -> None:
    """c grows by 2^-(bits+2) a step; in the type itself it would stand still at 1/4."""
    steps = 2 ** (bits + 1)
    x = np.full((steps, 1, 1), 2.0 ** -(bits + 2), dtype)
    open_gates = np.array([40, 40, 0, 40], dtype)
    w_ih, w_hh = np.array([[0], [0], [1], [0]], dtype), np.zeros((4, 1), dtype)
    _, (_, c_n) = fr.lstm(x, w_ih, w_hh, open_gates)
    assert float(c_n.item()) == 0.5


def test_gradients_of_float16_gates_may_be_smaller_than_float16_is() -> None:
    """2^-26 between an upstream gradient of 2^-24 and a dx of 2^-16."""
    one, zero = np.ones((1, 1, 1), "float16"), np.zeros((1, 1), "float16")
    w_ih = np.full((1, 1), 2.0**10, "float16")
    x = one * 0
    *_, tape = fr.rnn_forward(x, w_ih, zero, nonlinearity="sigmoid")
    grads = fr.rnn_backward(tape, np.full((1, 1, 1), 2.0**-24, "float16"))
    assert float(grads.dx.item()) == 2.0**-16


@halves
def test_every_number_passes_through(dtype: str) -> None:
    """Through x, h0 and the states; float16's subnormal numbers are none in float32."""
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    with np.errstate(all="ignore"):
        single = np.abs(every.astype(np.float32))
    kept = every[(single == 0) | (single >= 2.0**-126)]
    kept = kept[np.isfinite(kept.astype(np.float32))]
    one, zero = np.ones((1, 1), dtype), np.zeros((1, 1), dtype)
    x = kept.reshape(1, -1, 1)
    y, h_n, tape = fr.rnn_forward(x, one, zero, nonlinearity="identity")
    assert np.array_equal(y, x)
    assert np.array_equal(fr.rnn_backward(tape, x).dx, x)
    _, h_n = fr.rnn(x * 0, one, one, h0=x[0], nonlinearity="identity")
    assert np.array_equal(h_n, x[0])


def test_float16_ends_in_infinities() -> None:
    x = np.array([60000, -60000, 32768, 32752], "float16").reshape(1, 4, 1)
    two, zero = np.full((1, 1), 2, "float16"), np.zeros((1, 1), "float16")
    y, _ = fr.rnn(x, two, zero, nonlinearity="identity")
    assert y.ravel().tolist() == [np.inf, -np.inf, np.inf, 65504]


@variants
@precisions
def test_what_is_no_number_spoils_its_own_sequence(
    cell: str, options: Arguments, precision: Precision
) -> None:
    problem, upstream = half_problem(cell, precision, batch=3, hidden_size=17, seed=12)
    options = {**options, **precision.options}
    clean, tape = forward(cell, **problem, **options)
    clean_dx = backward(cell, tape, **upstream)["dx"]
    for value in (np.nan, np.inf, -np.inf):
        spoilt = problem | {"x": problem["x"].copy()}
        spoilt["x"][1, 1] = value
        got, tape = forward(cell, **spoilt, **options)
        dx = backward(cell, tape, **upstream)["dx"]
        others = [0, 2]
        same_bits({"y": got["y"][:, others]}, {"y": clean["y"][:, others]})
        same_bits({"dx": dx[:, others]}, {"dx": clean_dx[:, others]})
        if np.isnan(value) and options.get("nonlinearity") != "relu":
            assert np.isnan(got["y"][1, 1].astype(np.float32)).all()


# Promises


@variants
@precisions
def test_what_a_call_leaves_in_memory_does_not_reach_the_next(
    cell: str, options: Arguments, precision: Precision
) -> None:
    for shape in ({"batch": 5, "hidden_size": 17}, {"batch": 20, "hidden_size": 3}):
        problem, upstream = half_problem(cell, precision, steps=3, input_size=5, **shape, seed=13)
        results = []
        for spoilt in (False, True, False):
            call = {
                name: np.full_like(value, np.nan) if spoilt else value
                for name, value in problem.items()
            }
            got, tape = forward(cell, **call, **options, **precision.options)
            results.append(got | backward(cell, tape, **upstream))
            del tape
        same_bits(results[2], results[0])


@variants
@precisions
def test_any_number_of_threads_gives_the_same_bits(
    cell: str, options: Arguments, precision: Precision
) -> None:
    before = fr.get_num_threads()
    for shape in (
        {"steps": 9, "batch": 7, "input_size": 37, "hidden_size": 67},
        # Cut into shares of fewer sequences than a matrix unit takes.
        {"steps": 30, "batch": 5, "input_size": 40, "hidden_size": 67},
        {"steps": 6, "batch": 40, "input_size": 20, "hidden_size": 40},
        {"steps": 1, "batch": 1, "input_size": 64, "hidden_size": 130},
    ):
        problem, upstream = half_problem(cell, precision, **shape, **HARD, seed=6)
        results = []
        try:
            for threads in (1, 2, 3, 3):
                fr.set_num_threads(threads)
                got, tape = forward(cell, **problem, **options, **precision.options)
                results.append(got | backward(cell, tape, **upstream))
        finally:
            fr.set_num_threads(before)
        for other in results[1:]:
            same_bits(other, results[0])


@variants
@precisions
@directions
def test_a_sequence_alone_or_in_a_batch(
    cell: str, options: Arguments, precision: Precision, reverse: bool
) -> None:
    """Bit for bit: by tiles of registers, of a matrix unit, or one of each.

    A call of one step and up to three sequences is too small for a matrix unit, those of 40 and
    70 sequences take several of its blocks, whose last ones overlap those before.
    """
    options = {**options, **precision.options, "reverse": reverse}
    for steps, batch, hidden_size in (
        (1, 5, 40),
        (5, 3, 150),
        (3, 20, 33),
        (2, 40, 67),
        (3, 70, 20),
    ):
        shape = {"steps": steps, "batch": batch, "input_size": 21, "hidden_size": hidden_size}
        problem, upstream = half_problem(cell, precision, **shape, **HARD, seed=9)
        got, tape = forward(cell, **problem, **options)
        grads = backward(cell, tape, **upstream)
        for b in {0, 1, batch // 2, batch - 1}:
            one = {name: sequence_of(name, value, b) for name, value in problem.items()}
            above = {name: sequence_of(name, value, b) for name, value in upstream.items()}
            alone, tape = forward(cell, **one, **options)
            same_bits(alone, {name: sequence_of(name, value, b) for name, value in got.items()})
            alone_grads = backward(cell, tape, **above)
            for name in {"dx", "dh0", "dc0"} & grads.keys():
                same_bits({name: alone_grads[name]}, {name: sequence_of(name, grads[name], b)})


@variants
@precisions
@directions
def test_a_tape_changes_no_bit_and_may_be_used_twice(
    cell: str, options: Arguments, precision: Precision, reverse: bool
) -> None:
    options = {**options, **precision.options, "reverse": reverse}
    problem, upstream = half_problem(cell, precision, batch=6, hidden_size=21, **HARD, seed=7)
    expected = infer(cell, **problem, **options)
    got, tape = forward(cell, **problem, **options)
    same_bits(got, expected)
    grads = backward(cell, tape, **upstream)
    for value in got.values():
        value[...] = np.nan
    same_bits(backward(cell, tape, **upstream), grads)


@variants
@precisions
@directions
def test_padding_is_never_read(
    cell: str, options: Arguments, precision: Precision, reverse: bool
) -> None:
    options = {**options, **precision.options, "reverse": reverse}
    problem, upstream = half_problem(cell, precision, batch=7, hidden_size=17, **HARD, seed=8)
    clean, tape = forward(cell, **problem, **options)
    clean_grads = backward(cell, tape, **upstream)
    padding = np.arange(len(problem["x"]))[:, None] >= problem["lengths"]
    assert padding.any()
    for poison in (np.nan, np.inf):
        problem["x"][padding] = poison
        upstream["dy"][padding] = poison
        got, tape = forward(cell, **problem, **options)
        same_bits(got, clean)
        assert not got["y"][padding].astype(np.float32).any()
        grads = backward(cell, tape, **upstream)
        same_bits(grads, clean_grads)
        assert not grads["dx"][padding].astype(np.float32).any()


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "gru_reset_before", "lstm"])
@precisions
def test_every_element_is_written_where_it_should_be(cell: str, precision: Precision) -> None:
    """Into halves of wider arrays, whose other halves stay as they are."""
    kind = cell.partition("_")[0]
    problem, upstream = half_problem(kind, precision, batch=5, hidden_size=9, **HARD, seed=9)
    options: Arguments = precision.options | (
        {"reset_after": False} if cell.endswith("before") else {}
    )
    expected, tape = forward(kind, **problem, **options)
    expected_grads = backward(kind, tape, **upstream)

    def wide(array: Any) -> Any:
        return np.full((*array.shape[:-1], 2 * array.shape[-1] + 1), np.nan, precision.dtype)

    def left(array: Any) -> Any:
        return array[..., : array.shape[-1] // 2]

    def check_halves(wider: Any, results: Any) -> None:
        for name, value in results.items():
            assert left(wider[name]).tobytes() == np.asarray(value).tobytes(), name
            assert np.isnan(wider[name][..., value.shape[-1] :].astype(np.float32)).all()

    wider = {name: wide(value) for name, value in expected.items()}
    y, *states = map(left, wider.values())
    infer(kind, **problem, **options, out=(y, tuple(states) if kind == "lstm" else states[0]))
    check_halves(wider, expected)
    wider = {name: wide(value) for name, value in expected_grads.items()}
    backward(kind, tape, **upstream, out={name: left(value) for name, value in wider.items()})
    check_halves(wider, expected_grads)


# Layers


@pytest.mark.parametrize("cell", LAYERS)
@precisions
@pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch-first"])
def test_layers(cell: str, precision: Precision, batch_first: bool) -> None:
    """Two layers in both directions, against the reference's."""
    problem, upstream = stack_of(
        cell, precision.dtype, steps=6, batch=4, input_size=5, hidden_size=9, **HARD, seed=10
    )
    rounding = {"rounding": precision.rounding}
    expected = reference.stack(cell, **problem, **rounding)
    expected_grads = reference.stack_gradients(cell, **problem, **upstream, **rounding)
    parameters = problem.pop("parameters")
    layer = LAYERS[cell](
        5,
        9,
        2,
        bidirectional=True,
        batch_first=batch_first,
        dtype=precision.dtype,
        **precision.options,
    )
    layer.load_state_dict(parameters)
    same_bits(layer.parameters(), parameters)

    def swapped(array: Any) -> Any:
        return np.ascontiguousarray(array.swapaxes(0, 1)) if batch_first else array

    def states(arguments: Arguments, *names: str) -> Any:
        pair = [arguments[name] for name in names if name in arguments]
        return pair[0] if len(pair) == 1 else pair

    resets = swapped(problem["resets"])
    x, state = swapped(problem["x"]), states(problem, "h0", "c0")
    y, state_n, tape = layer.forward(x, state, problem["lengths"], resets)
    same_bits(outputs(*layer(x, state, problem["lengths"], resets)), outputs(y, state_n))
    grads = layer.backward(tape, swapped(upstream["dy"]), states(upstream, "dh_n", "dc_n"))
    for value in (y, *grads.values()):
        assert value.dtype.name == precision.dtype
    grads["x"] = swapped(grads["x"])
    check(outputs(swapped(y), state_n), expected, precision.bound)
    # The second direction is added to the first's dx, which has been rounded by then.
    check(grads, expected_grads, 2 * precision.unit)


@pytest.mark.parametrize("cell", LAYERS)
@precisions
def test_step_by_step(cell: str, precision: Precision) -> None:
    """Each step is a call, at whose end c is rounded."""
    layer = LAYERS[cell](5, 18, 2, dtype=precision.dtype, **precision.options, seed=0)
    x = np.random.default_rng(0).standard_normal((6, 3, 5)).astype(precision.dtype)
    y, last = layer(x)
    state, steps = None, []
    for x_t in x:
        y_t, state = layer.step(x_t, state)
        steps.append(y_t)
    check(outputs(np.stack(steps), state), outputs(y, last), 2 * precision.unit)


@halves
def test_initial_parameters_are_those_of_float32_rounded(dtype: str) -> None:
    single, half = (fr.LSTM(7, 30, 2, dtype=d, seed=3).parameters() for d in ("float32", dtype))
    same_bits(half, {name: value.astype(dtype) for name, value in single.items()})


@variants
def test_the_wrong_rounding_would_be_seen(cell: str, options: Arguments) -> None:
    """The bound tells float16 from bfloat16, and rounding from none."""
    precision = PRECISIONS["bfloat16"]
    problem, upstream = half_problem(cell, precision, steps=8, batch=5, hidden_size=9, seed=11)
    _, tape = forward(cell, **problem, **options)
    grads = backward(cell, tape, **upstream)
    for rounding in (reference.EXACT, reference.STORED_IN["float16"]):
        expected = reference.gradients(
            cell, **with_zero_biases(problem), **upstream, **options, rounding=rounding
        )
        with pytest.raises(AssertionError, match="relative error"):
            check(grads, expected, precision.bound)
