"""A reserve that is an array of the caller's, as fusedrnn.torch keeps it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_libraries import StreamLibrary

from fusedrnn import _core
from fusedrnn.runs import Run, to_records

T, B, I, H = 7, 3, 4, 5  # noqa: E741


@pytest.fixture
def network() -> Any:
    runs = [Run("gru", d == 1, 0, 1, 0, d * H, I, H, 0, 1) for d in (0, 1)]
    return _core.Network(to_records(runs), "float32", None, True)


def test_a_reserve_of_the_callers(library: Any, network: Any) -> None:
    if not isinstance(library, StreamLibrary):
        return  # its arrays cannot be written to
    rng = np.random.default_rng(0)

    def array(*shape: int) -> Any:
        return library.array(rng.standard_normal(shape).astype(np.float32))

    x, dy = array(T, B, I), array(T, B, 2 * H)
    weights = tuple(array(*shape) for _, _, shape, _ in network.parameters)
    masks = (library.array(np.array([7, 4, 0])), None, None, False, None)
    y, _, _, tape = network.forward(x, weights, None, masks, True)
    expected = [library.values(part) for part in tape.backward(dy, None, None, True)[1]]

    size = network.reserve_bytes(T, B, 0)
    reserve = library.array(np.zeros(size, np.uint8))
    again, _, _, _ = network.forward(x, weights, None, masks, True, reserve=reserve)
    assert np.array_equal(library.values(again), library.values(y))
    assert library.values(reserve).any()
    moved = library.array(library.values(reserve))
    for kept in (reserve, moved):
        tape = _core.Tape(network, x, weights, masks, kept)
        found = [library.values(part) for part in tape.backward(dy, None, None, True)[1]]
        assert all(map(np.array_equal, found, expected))

    with pytest.raises(ValueError, match=rf"^reserve: expected {size} bytes"):
        network.forward(x, weights, None, masks, True, reserve=library.array(np.zeros(8, "u1")))
    with pytest.raises(TypeError, match=r"^reserve: expected an array where x lies, got one else"):
        network.forward(x, weights, None, masks, True, reserve=np.zeros(size, np.uint8))
