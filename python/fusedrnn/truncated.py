"""Truncated backpropagation through time, as a loop over chunks that the user drives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np

from fusedrnn import options
from fusedrnn.interop import A
from fusedrnn.layers.base import Layer
from fusedrnn.layers.dropout import Drop
from fusedrnn.layers.tape import LayerTape

# Of y of a chunk and its first and last step: the loss and its gradient with respect to y.
Loss = Callable[[Any, int, int], tuple[Any, Any]]


@dataclass(eq=False)
class Chunk(Generic[A]):
    """Steps start to stop of a sequence, and what their loss needs to go back.

    Attributes
    ----------
    start : int
        The first step.
    stop : int
        The one behind the last.
    y : array [stop - start, B, H], or [B, stop - start, H] with ``batch_first=True``
        The layer's output of these steps.
    state : array [L, B, H], or a tuple of them
        The state after them, in the layer's form.
    loss : optional
        What the loss that `tbptt` was given returned; None where there was none.
    grads : dict, optional
        What `backward` returned for it.
    """

    start: int
    stop: int
    y: A
    state: Any
    loss: Any = None
    grads: dict[str, A] | None = None
    _layer: Layer = field(repr=False, kw_only=True)
    _tapes: list[LayerTape[A]] = field(repr=False, kw_only=True)  # in the order of time
    _from_begin: bool = field(repr=False, kw_only=True)  # whether the window begins at step 0

    def backward(self, dy: Any = None, dstate: Any = None) -> dict[str, A]:
        """Return the gradients of ``sum(dy * y) + sum(dstate * state)`` through the last k2 steps.

        Parameters
        ----------
        dy : array like `y`, optional
            Upstream gradient of `y`; zero where absent.
        dstate : optional
            Upstream gradient of `state`, in its form; zero where absent.

        Returns
        -------
        dict
            One gradient for each of the layer's parameters, and that of this chunk's `x` under "x".
            That of the state before step 0 is there, under "h0" (and "c0", ...), where the k2 steps
            begin there: any other state counts as a constant.

        Raises
        ------
        ValueError, TypeError
            As `Layer.backward`.
        """
        *before, last = self._tapes
        states = [f"{letter}0" for letter in self._layer._states]
        grads = self._layer.backward(last, dy, dstate)
        for tape in reversed(before):
            carried = tuple(grads[name] for name in states)
            earlier = self._layer.backward(tape, None, carried if len(carried) > 1 else carried[0])
            for name in earlier.keys() - {"x", *states}:
                grads[name] = grads[name] + earlier[name]  # type: ignore[operator]
            grads |= {name: earlier[name] for name in states}
        if self._from_begin:
            return grads
        return {name: value for name, value in grads.items() if name not in states}


def tbptt(
    layer: Layer,
    x: A,
    loss: Loss | None = None,
    k1: int = 0,
    k2: int = 0,
    *,
    state: Any = None,
    lengths: Any = None,
    resets: Any = None,
    mask: Any = None,
    reset_state: Any = None,
) -> Iterator[Chunk[A]]:
    """Walk over a sequence in chunks of k1 steps, each with gradients through its last k2 steps.

    The state goes on from chunk to chunk, its gradient only within the last k2 steps. Memory is
    that of k2 steps, whatever T. Change the parameters between two chunks as you like: the steps of
    a window are computed with the parameters of that time, from the state that an earlier chunk
    left. With ``k1 = k2 = T`` there is one chunk, and it is full backpropagation, to the bit. A
    layer with `dropout` or other noise that is `training` draws what one `forward` over the whole
    sequence would, so in a step that is computed again the same masks::

        for chunk in fusedrnn.tbptt(layer, x, k1=20, k2=40):
            dy = gradient_of_my_loss(chunk.y, targets[chunk.start : chunk.stop])
            update(layer.parameters(), chunk.backward(dy))

    Parameters
    ----------
    layer : Layer
        Of one direction: a reverse one would begin at the end of the sequence.
    x : array [T, B, I], or [B, T, I] of a layer with ``batch_first=True``; or [T, I]
    loss : callable, optional
        Called with `y` of each chunk, its first step and the step behind its last; returns the loss
        and its gradient with respect to `y`. The chunk's `loss` and `grads` are set then.
    k1, k2 : int
        Steps of a chunk, at least 1, and steps that its gradient goes back, at least k1; 0 is k1.
    state, lengths, resets, mask, reset_state
        As in a call of the layer; `lengths` on the CPU.

    Yields
    ------
    Chunk

    Raises
    ------
    ValueError, TypeError
        As a call of the layer; and for k1 and k2, and a bidirectional layer.

    References
    ----------
    R. J. Williams, J. Peng, "An efficient gradient-based algorithm for on-line training of
    recurrent network trajectories", Neural Computation 2 (1990): BPTT(h; h'), h = k2, h' = k1.

    Examples
    --------
    >>> gru = fr.GRU(3, 4, seed=0)
    >>> sgd = fr.SGD(gru.parameters(), lr=0.1)
    >>> x = np.ones((10, 2, 3), np.float32)
    >>> for chunk in fr.tbptt(gru, x, k1=4):
    ...     print(chunk.start, chunk.stop)
    ...     sgd.step(chunk.backward(dy=2 * chunk.y))  # of the loss (y ** 2).sum()
    0 4
    4 8
    8 10
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"layer: expected a layer, got {type(layer).__name__}")
    layer._check_one_direction("tbptt")
    if loss is not None and not callable(loss):
        raise TypeError(f"loss: expected a function, got {type(loss).__name__}")
    k1 = options.positive("k1", k1)
    k2 = options.count("k2", k2) or k1
    if k2 < k1:
        raise ValueError(f"k2: expected at least k1 = {k1}, got {k2}")
    sequence = _Sequence(layer, x, lengths, {"resets": resets, "mask": mask}, reset_state)
    if not sequence.steps:  # no chunk would see what is wrong with the arguments
        sequence.run(0, 0, state, None, save=False)
    return _chunks(sequence, loss, k1, k2, state)


def _chunks(
    sequence: _Sequence, loss: Loss | None, k1: int, k2: int, state: Any
) -> Iterator[Chunk[Any]]:
    layer = sequence.layer
    drop = layer._next_drop()
    states = {0: state}  # by step, at the beginning of chunks that a window may still reach
    for start in range(0, sequence.steps, k1):
        stop = min(start + k1, sequence.steps)
        begin = max(0, stop - k2)
        entering = states[start]
        tapes = []
        if begin < start:
            known = begin // k1 * k1
            entering = states[known]
            if known < begin:
                _, entering, _ = sequence.run(known, begin, entering, drop, save=False)
            _, entering, tape = sequence.run(begin, start, entering, drop)
            tapes.append(tape)
        y, leaving, tape = sequence.run(start, stop, entering, drop)
        tapes.append(tape)
        chunk = Chunk(start, stop, y, leaving, _layer=layer, _tapes=tapes, _from_begin=begin == 0)
        if loss is not None:
            chunk.loss, dy = options.values("loss", ("loss", "dy"), loss(y, start, stop))
            chunk.grads = chunk.backward(dy)
        yield chunk
        states[stop] = leaving
        next_begin = max(0, min(stop + k1, sequence.steps) - k2)
        states = {step: s for step, s in states.items() if step >= next_begin // k1 * k1}


class _Sequence:
    """A sequence that can be cut along time."""

    def __init__(
        self, layer: Layer, x: Any, lengths: Any, masks: dict[str, Any], reset_state: Any
    ) -> None:
        shape = getattr(x, "shape", None)
        if shape is None or len(shape) not in (2, 3):
            got = type(x).__name__ if shape is None else f"shape {tuple(shape)}"
            raise (TypeError if shape is None else ValueError)(
                f"x: expected a 3-dimensional array [T, B, I], or [T, I], got {got}"
            )
        self.layer, self.x, self.reset_state = layer, x, reset_state
        axes = tuple(map(int, shape[:-1]))
        self.axis = 1 if layer.batch_first and len(axes) == 2 else 0
        self.steps = axes[self.axis]
        batches = axes[: self.axis] + axes[self.axis + 1 :]
        self.lengths = None if lengths is None else self._checked(lengths, batches)
        self.masks = {
            name: mask if hasattr(mask, "shape") else np.asarray(mask)
            for name, mask in masks.items()
            if mask is not None
        }
        for name, mask in self.masks.items():
            if tuple(mask.shape) != axes:
                raise ValueError(f"{name}: expected shape {axes}, got {tuple(mask.shape)}")

    def _checked(self, lengths: Any, batches: tuple[int, ...]) -> np.ndarray[Any, Any]:
        given = options.integers("lengths", lengths)
        values = np.asarray(given, np.int64 if isinstance(given, list) else None)
        if values.dtype.kind not in "iu":
            raise TypeError(f"lengths: expected an integer dtype, got {values.dtype}")
        if values.shape != batches:
            raise ValueError(f"lengths: expected shape {batches}, got {values.shape}")
        for b, length in enumerate(values.reshape(-1).tolist()):
            if not 0 <= length <= self.steps:
                wanted = f"values from 0 to T = {self.steps}"
                raise ValueError(f"lengths: expected {wanted}, got {length} at index {b}")
        return values.astype(np.int64)

    def run(
        self, begin: int, end: int, state: Any, drop: Drop | None, *, save: bool = True
    ) -> tuple[Any, Any, LayerTape[Any]]:
        """``y, state, tape`` of these steps; `drop` is that of a call over the whole sequence."""
        here = {name: self._cut(mask, begin, end) for name, mask in self.masks.items()}
        lengths = None if self.lengths is None else np.clip(self.lengths - begin, 0, end - begin)
        masks = (lengths, here.get("mask"), here.get("resets"), "zero", self.reset_state)
        x = self._cut(self.x, begin, end)
        if drop is not None:
            rate, seed, first = drop
            drop = rate, seed, first + begin
        y, leaving, _, tape = self.layer._forward(
            x, state, masks, False, None, None, save=save, drop=drop
        )
        return y, leaving, tape

    def _cut(self, array: Any, begin: int, end: int) -> Any:
        return array[:, begin:end] if self.axis == 1 else array[begin:end]
