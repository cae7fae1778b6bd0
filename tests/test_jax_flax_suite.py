"""Flax's own tests of its RNN, with ours in its place. Their text comes from Flax's package.

Those of nnx run as they are, `nnx.RNN` being ours. Those of linen, which compare numbers, run with
a linen module of this file in the place of `linen.RNN`: it hands the parameters to ours. Cells, and
`Bidirectional` around two RNNs, stay Flax's.
"""

from __future__ import annotations

import functools
import unittest
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax
import pytest
from flax import linen, nnx

import flax_sources
from fusedrnn.jax import flax_cells
from fusedrnn.jax.nnx import RNN
from jax_support import jax_of_tests

NNX, LINEN = "tests/nnx/nn/recurrent_test.py", "tests/linen/linen_recurrent_test.py"
OURS = {
    NNX: [
        "TestRNN.test_rnn_equivalence_with_flax_linen",
        "TestRNN.test_rnn_reverse",
        "TestRNN.test_rnn_time_major",
        "TestRNN.test_rnn_with_different_dtypes",
        "TestRNN.test_rnn_with_gru_cell",
        "TestRNN.test_rnn_with_keep_order",
        "TestRNN.test_rnn_with_lstm_cell",
        "TestRNN.test_rnn_with_seq_lengths",
        "TestRNN.test_rnn_with_unroll",
        "TestRNN.test_rnn_with_variable_batch_size",
    ],
    LINEN: [
        "BidirectionalTest.test_bidirectional",
        "BidirectionalTest.test_custom_merge_fn",
        "BidirectionalTest.test_return_carry",
        "BidirectionalTest.test_shared_cell",
        "RNNTest.test_basic_seq_lengths",
        "RNNTest.test_numerical_equivalence",
        "RNNTest.test_numerical_equivalence_single_batch",
        "RNNTest.test_reverse",
        "RNNTest.test_reverse_but_keep_order",
        "RNNTest.test_rnn_basic_forward",
        "RNNTest.test_rnn_multiple_batch_dims",
        "RNNTest.test_rnn_time_major",
        "RNNTest.test_rnn_unroll",
    ],
}
# What fails with ours, and with which words.
DIFFERENT = {
    NNX: {
        # A cell that someone wrote: flax.nnx.RNN runs any.
        "TestRNN.test_rnn_with_custom_cell": "cell: expected a layer .*, got CustomRNNCell",
        # A cell with noise of its own, drawn by Flax's streams in every step; ours is an option of
        # a layer.
        "TestRNN.test_recurrent_dropout": "unexpected keyword argument 'broadcast_rngs'",
    },
    LINEN: {
        # An image at every step.
        "RNNTest.test_rnn_with_spatial_dimensions": "cell: .*, got ConvLSTMCell",
        # It wants outputs behind the end of a sequence to go on over the padding; ours are zero
        # there, as everywhere in fusedrnn. Carries are compared in test_jax_nnx.
        "RNNTest.test_numerical_equivalence_with_mask": "Not equal to tolerance",
    },
}
# They have no RNN in them: cells alone, scans of Flax's and JAX's, and the function that reverses.
OF_FLAX_ALONE = {
    NNX: "TestLSTMCell.",
    LINEN: ("RNNTest.test_flip_sequence", "RNNTest.test_numerical_equivalence_single_batch_"),
}


class LinenRNN(linen.RNN):  # type: ignore[misc]
    """`linen.RNN` whose numbers are those of our `RNN` over nnx's cell with the same parameters."""

    def __call__(self, inputs: Any, *, init_key: Any = None, **options: Any) -> Any:
        if self.is_initializing():
            super().__call__(inputs, init_key=init_key, **options)
        if not isinstance(self.cell, linen.LSTMCell):
            return RNN(self.cell)  # which says that it runs no such thing
        cell = nnx.LSTMCell(inputs.shape[-1], self.cell.features, rngs=nnx.Rngs(0))
        params = {"if_" if k == "if" else k: v for k, v in self.cell.variables["params"].items()}
        nnx.update(cell, params)
        own = ("time_major", "return_carry", "reverse", "keep_order", "unroll")
        return RNN(cell, **{name: getattr(self, name) for name in own})(inputs, **options)


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A list that grows with every call of the engine."""
    made: list[Any] = []

    def run(*arguments: Any) -> Any:
        made.append(arguments)
        return flax_cells_run(*arguments)

    flax_cells_run = flax_cells.run
    monkeypatch.setattr(flax_cells, "run", run)
    with jax_of_tests(x64=False):
        yield made


@functools.cache
def flaxs(path: str) -> ModuleType:
    return flax_sources.test_module(path)


def failures(path: str, name: str) -> list[str]:
    kind, method = name.split(".")
    result = unittest.TestResult()
    with pytest.MonkeyPatch.context() as patch:
        # One of the two: a test of nnx compares ours with linen's own.
        patch.setattr(*((nnx, "RNN", RNN) if path == NNX else (linen, "RNN", LinenRNN)))
        getattr(flaxs(path), kind)(method).run(result)
    assert result.testsRun == 1
    assert not result.skipped
    return [text for _, text in (*result.errors, *result.failures)]


def cases(lists: dict[str, Any]) -> list[Any]:
    return [pytest.param(path, name, id=name) for path in lists for name in lists[path]]


@pytest.mark.parametrize(("path", "name"), cases(OURS))
def test_flaxs_tests_pass(path: str, name: str, calls: list[Any]) -> None:
    assert failures(path, name) == []
    assert calls


@pytest.mark.parametrize(("path", "name"), cases(DIFFERENT))
def test_what_is_different_is_known(path: str, name: str, calls: list[Any]) -> None:
    (text,) = failures(path, name)
    with pytest.raises(AssertionError, match=DIFFERENT[path][name]):
        raise AssertionError(text)


@pytest.mark.parametrize("path", list(OURS))
def test_every_test_of_flax_is_in_a_list(path: str) -> None:
    loader = unittest.TestLoader()
    kinds = [kind for kind in vars(flaxs(path)).values() if isinstance(kind, type)]
    found = {
        f"{kind.__name__}.{method}"
        for kind in kinds
        if issubclass(kind, unittest.TestCase)
        for method in loader.getTestCaseNames(kind)
    }
    ours = {*OURS[path], *DIFFERENT[path]}
    assert ours <= found
    assert [name for name in sorted(found - ours) if not name.startswith(OF_FLAX_ALONE[path])] == []
    assert jax.default_backend() == "cpu"
