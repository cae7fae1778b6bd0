"""Which numbers masks of many steps and of weights are, bit by bit: those of their counters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from reference.dropout import kept
from support import LAYERS, Arguments

pytestmark = pytest.mark.usefixtures("keeps_threads")


def hits(layer: Any, rate: float, row: int, shape: tuple[int, int, int]) -> Any:
    """Which elements of a row of masks the next call of a layer draws."""
    seed, calls = layer.dropout_state
    return ~kept(rate, (seed + calls) % 2**64, row, shape)


def by_units(cell: str, size: int, **options: Any) -> Any:
    """A layer of units that do not see each other: x goes to each candidate, h to nothing."""
    layer = LAYERS[cell](size, size, seed=1, dtype="float32", **options)
    suffixes = ("", "_reverse") if layer.bidirectional else ("",)
    for suffix in suffixes:
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            layer.parameters()[f"{name}_l0{suffix}"][...] = 0
        layer.parameters()[f"weight_ih_l0{suffix}"][-size:] = np.eye(size)
        if cell == "gru":
            layer.parameters()[f"bias_ih_l0{suffix}"][size : 2 * size] = -1e4  # z = 0
    return layer


@pytest.mark.parametrize("memory", ["default", "lean"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("hard", [False, True], ids=["", "lengths-resets"])
@pytest.mark.parametrize(("batch", "size"), [(1, 64), (1, 70), (3, 5), (2, 130), (17, 9)])
@pytest.mark.parametrize("kind", ["zoneout", "candidate"])
def test_steps_draw_by_their_counters(
    kind: str, batch: int, size: int, hard: bool, threads: int, memory: str
) -> None:
    """Forward and backward, both directions, of numbers of steps that no round number divides."""
    fr.set_num_threads(threads)
    steps, rate, rng = 41, 0.4, np.random.default_rng(0)
    if kind == "zoneout":
        layer = by_units("rnn", size, bidirectional=True, memory=memory, zoneout=rate)
    else:
        options = {"recurrent_dropout": rate, "recurrent_dropout_mode": "candidate"}
        layer = by_units("gru", size, bidirectional=True, memory=memory, **options)
    mask = 2 if kind == "zoneout" else 6
    drawn = [hits(layer, rate, mask << 24 | run, (steps, batch, size)) for run in (0, 1)]
    x = (rng.random((steps, batch, size)) + 0.5).astype(np.float32)
    masks: Arguments = {}
    lengths = np.full(batch, steps)
    if hard:
        lengths = steps - 3 * np.arange(batch)[::-1] % steps
        masks = {"lengths": lengths, "resets": rng.random((steps, batch)) < 0.2}
    valid = (np.arange(steps)[:, None] < lengths)[..., None]
    y, _, tape = layer.forward(x, **masks)
    for run, hit in enumerate(drawn):
        ours = y[..., run * size : (run + 1) * size]
        if kind == "candidate":
            assert np.array_equal((ours == 0) & valid, hit & valid)
        else:
            assert np.array_equal(ours, stayed(x, hit, masks, lengths, run == 1))
        dy = np.zeros_like(y)
        dy[..., run * size : (run + 1) * size] = 1
        dx = layer.backward(tape, dy)["x"]
        assert np.array_equal((dx == 0) & valid, hit & valid)


def stayed(x: Any, hit: Any, masks: Arguments, lengths: Any, reverse: bool) -> Any:
    """What zoneout leaves of an RNN's tanh(x), whose bits those of a plain layer are."""
    steps, batch, size = x.shape
    computed = by_units("rnn", size)(x)[0]
    cuts = masks.get("resets", np.zeros((steps, batch), bool))
    if reverse:  # a reset stands before its step
        cuts = np.roll(cuts, -1, axis=0)
    y, h = np.zeros_like(x), np.zeros_like(x[0])
    for t in range(steps)[::-1] if reverse else range(steps):
        lives = (t < lengths)[:, None]
        before = np.where(cuts[t][:, None], np.float32(0), h)
        h = np.where(lives, np.where(hit[t], before, computed[t]), h)
        y[t] = np.where(lives, h, 0)
    return y


@pytest.mark.parametrize(("input_size", "size"), [(3, 7), (3, 64), (2, 130)])
@pytest.mark.parametrize("threads", [1, 2])
def test_weights_draw_by_their_counters(input_size: int, size: int, threads: int) -> None:
    """The gradient of a weight is zero where it was dropped; rows beyond the last vectors, too."""
    fr.set_num_threads(threads)
    layer = LAYERS["lstm"](input_size, size, seed=0, weight_dropout=0.3, dtype="float32")
    dropped = hits(layer, 0.3, 1 << 24, (1, 4 * size, size))[0]
    x = np.random.default_rng(0).standard_normal((4, 2, input_size)).astype(np.float32)
    y, _, tape = layer.forward(x)
    gradient = layer.backward(tape, np.ones_like(y))["weight_hh_l0"]
    assert np.array_equal(gradient == 0, dropped)
