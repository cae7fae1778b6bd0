"""Attention of a decoder's steps over a memory, such as an encoder's outputs.

Letters: T steps of queries, S steps of the memory, B sequences, Q, M, A, O sizes of a query, of a
step of the memory, of what they are compared in, and of the output; N heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core, options
from fusedrnn.interop import warn_of_lost_gradients
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array, Dtype
from fusedrnn.nn.linear import Linear
from fusedrnn.nn.module import Module, ModuleTape

Score = Literal["dot", "scaled_dot", "additive"]
Lengths = NDArray[np.int64]
SCORES: tuple[Score, ...] = get_args(Score)


@dataclass(frozen=True, eq=False)
class Memory:
    """What a module attends to, with what it computes of it once for all queries.

    `prepare` makes it. It belongs to the module, and to its parameters as they were.
    """

    module: AttentionBase
    memory: Array = field(repr=False)  # [S, B, M]
    values: Array | None = field(repr=False)  # where they are not the memory itself
    lengths: Lengths = field(repr=False)  # [B]
    projected: Projected = field(repr=False)
    given: tuple[Any, ...] = field(repr=False)  # memory and values, as they came


@dataclass(eq=False)
class Projected:
    """Keys and values as the compiled module takes them, each head apart, and their tapes."""

    keys: Array  # [S, B, N, D]
    keys_t: Array  # [B, N, D, S]
    values: Array  # [S, B, N, E]
    tapes: tuple[ModuleTape, ...] = ()

    @cached_property
    def values_t(self) -> Array:
        """[B, N, E, S], for backward."""
        return _core.nn_transposed(self.values)


@dataclass(frozen=True, eq=False)
class MemoryGradient:
    """What steps of a decoder add to the gradients of a memory; those of all are added up by ``+``.

    Of keys and values as they were projected: the projections are gone back through once, by
    `backward_memory`.
    """

    keys: Array = field(repr=False)  # [S, B, N, D]
    values: Array = field(repr=False)  # [S, B, N, E]

    def __add__(self, other: object) -> MemoryGradient:
        if not isinstance(other, MemoryGradient):
            return NotImplemented
        return MemoryGradient(self.keys + other.keys, self.values + other.values)


class AttentionBase(Module, ABC):
    """What `Attention` and `MultiHeadAttention` share."""

    query_size: int
    memory_size: int
    output_size: int
    dtype: str

    def prepare(self, memory: Any, lengths: Any = None, *, values: Any = None) -> Memory:
        """Compute what does not depend on queries, once for all steps of a decoder.

        Parameters
        ----------
        memory : array [S, B, M]
        lengths : integers [B], optional
            Steps of each memory, 1 to S: a memory of no step has nothing to attend to.
        values : array [S, B, M], optional
            What the weights mix, where it is not the memory.

        Returns
        -------
        Memory
            For `step`, and for other calls in the place of `memory`. It refers to the arrays.

        Raises
        ------
        ValueError, TypeError
            A wrong shape, range or dtype.
        """
        source = _core.as_array("memory", memory, (None, None, self.memory_size), self.dtype)
        steps, batch, _ = source.shape
        if not steps:
            raise ValueError(f"memory: expected at least one step, got shape {source.shape}")
        ends = np.full(batch, steps) if lengths is None else lengths
        ends = arrays.lengths("lengths", ends, batch, steps, least=1)
        mixed = None if values is None else arrays.like("values", values, source.shape, self.dtype)
        projected = self._project(source, source if mixed is None else mixed, ends)
        return Memory(self, source, mixed, ends, projected, (memory, values))

    def __call__(
        self,
        query: Any,
        memory: Any,
        lengths: Any = None,
        *,
        values: Any = None,
        return_weights: bool = False,
    ) -> Any:
        """Return what queries find in a memory.

        Parameters
        ----------
        query : array [T, B, Q]
        memory : array [S, B, M], or Memory
            Of a `Memory` lengths and values are those it was prepared with.
        lengths, values
            As of `prepare`.
        return_weights : bool
            Whether the weights are returned as well.

        Returns
        -------
        y : array [T, B, O]
            Each step the same bits as of a call of its own, or of `step`.
        weights : array [T, B, S], of several heads [T, B, N, S]
            With ``return_weights=True``; 0 beyond the lengths.

        Raises
        ------
        ValueError, TypeError
            A wrong shape, range or dtype, or a `Memory` of another module.
        """
        wanted = options.flag("return_weights", return_weights)
        y, tape = self.forward(query, memory, lengths, values=values)
        warn_of_lost_gradients(query, *tape.saved["prepared"].given)
        return (y, tape.saved["weights"]) if wanted else y

    def forward(
        self, query: Any, memory: Any, lengths: Any = None, *, values: Any = None
    ) -> tuple[Array, ModuleTape]:
        """Return y [T, B, O] as a plain call, and what `backward` needs.

        The weights are ``tape.saved["weights"]``.
        """
        prepared = self._prepared(memory, lengths, values)
        batch = len(prepared.lengths)
        source = _core.as_array("query", query, (None, batch, self.query_size), self.dtype)
        return self._attend(source, prepared, False)

    def step(self, query: Any, memory: Any, *, return_weights: bool = False) -> Any:
        """Return y [B, O] of one step's query [B, Q]: the same bits as that step of a longer call.

        Parameters
        ----------
        query : array [B, Q]
        memory : Memory
            From `prepare`; or an array [S, B, M], all of whose steps count.
        return_weights : bool
            Whether the weights [B, S], of several heads [B, N, S], are returned as well.
        """
        wanted = options.flag("return_weights", return_weights)
        y, tape = self.forward_step(query, memory)
        warn_of_lost_gradients(query, *tape.saved["prepared"].given)
        return (y, tape.saved["weights"][0]) if wanted else y

    def forward_step(self, query: Any, memory: Any) -> tuple[Array, ModuleTape]:
        """Return y [B, O] as `step`, and what `backward` needs, or rather `backward_step`.

        The gradients of the memory are to be added up over the steps of a decoder.
        """
        prepared = self._prepared(memory, None, None)
        batch = len(prepared.lengths)
        source = _core.as_array("query", query, (batch, self.query_size), self.dtype)
        y, tape = self._attend(source[None], prepared, True)
        return y[0], tape

    def backward(self, tape: ModuleTape, dy: Any, dweights: Any = None) -> dict[str, Array]:
        """Return the gradients of ``sum(dy * y) + sum(dweights * weights)``.

        Parameters
        ----------
        tape : ModuleTape
            From `forward` or `forward_step` of this module.
        dy : array [T, B, O], or of `forward_step` [B, O]
        dweights : array as the weights, optional
            Upstream gradient of the weights, for losses that look at them; of `forward_step`
            without the axis T. Zero where absent.

        Returns
        -------
        dict
            "query" and "memory", "values" where they were given apart, and a gradient for each name
            in `parameters()`.
        """
        grads, of_memory = self.backward_step(tape, dy, dweights)
        grads |= self.backward_memory(self.read_tape(tape)["prepared"], of_memory)
        names = ["query", "memory", "values", *self._named()]
        return {name: grads[name] for name in names if name in grads}

    def backward_step(
        self, tape: ModuleTape, dy: Any, dweights: Any = None
    ) -> tuple[dict[str, Array], MemoryGradient]:
        """Return what goes back before the memory's projections, for decoders that go by steps.

        Takes what `backward` takes::

            total = None
            for t in reversed(range(steps)):
                grads, part = attention.backward_step(tapes[t], dy_t)
                total = part if total is None else total + part
            grads = attention.backward_memory(prepared, total)

        Returns
        -------
        grads : dict
            "query", and the parameters that the memory does not go through: to be added up.
        of_memory : MemoryGradient
        """
        saved = self.read_tape(tape)
        query, weights, single = saved["query"], saved["weights"], saved["single"]
        shape = *query.shape[:2], self.output_size
        dy_ = arrays.like("dy", dy, shape[1:] if single else shape, self.dtype)
        if dweights is not None:
            wanted = weights.shape[1:] if single else weights.shape
            dweights = arrays.like("dweights", dweights, wanted, self.dtype)
            dweights = arrays.dense(dweights).reshape(weights.shape)
        grads, of_memory = self._gradients(saved, arrays.dense(dy_).reshape(shape), dweights)
        return grads | {"query": grads["query"][0]} if single else grads, of_memory

    def backward_memory(self, memory: Memory, total: MemoryGradient) -> dict[str, Array]:
        """Return the gradients that `backward_step` left: "memory" ("values"), and parameters."""
        if not isinstance(memory, Memory):
            raise TypeError(f"memory: expected a Memory, got {type(memory).__name__}")
        if not isinstance(total, MemoryGradient):
            raise TypeError(f"total: expected a MemoryGradient, got {type(total).__name__}")
        prepared = self._prepared(memory, None, None)
        of = prepared.projected
        arrays.like("total.keys", total.keys, of.keys.shape, self.dtype)
        arrays.like("total.values", total.values, of.values.shape, self.dtype)
        dmemory, dvalues, named = self._through_projections(of, total)
        if prepared.values is None:
            return {"memory": dmemory + dvalues, **named}
        return {"memory": dmemory, "values": dvalues, **named}

    def _prepared(self, memory: Any, lengths: Any, values: Any) -> Memory:
        if not isinstance(memory, Memory):
            return self.prepare(memory, lengths, values=values)
        if memory.module is not self:
            raise ValueError(
                f"memory: expected one of this module, {self!r}, got one of {memory.module!r}"
            )
        for name, value in (("lengths", lengths), ("values", values)):
            if value is not None:
                raise ValueError(f"{name}: expected None, as the Memory has its own")
        return memory

    def _attend(self, query: Array, memory: Memory, single: bool) -> tuple[Array, ModuleTape]:
        y, weights, own = self._scores(query, memory)
        stamped = {"memory": memory.memory, "values": memory.values}
        return y, self.make_tape(
            query=query, prepared=memory, weights=weights, single=single, own=own, **stamped
        )

    @abstractmethod
    def _project(self, memory: Array, values: Array, lengths: Lengths) -> Projected: ...

    @abstractmethod
    def _scores(self, query: Array, memory: Memory) -> tuple[Array, Array, Any]:
        """y, weights, and what else `_gradients` needs."""

    @abstractmethod
    def _gradients(
        self, saved: Mapping[str, Any], dy: Array, dweights: Array | None
    ) -> tuple[dict[str, Array], MemoryGradient]: ...

    @abstractmethod
    def _through_projections(
        self, of: Projected, total: MemoryGradient
    ) -> tuple[Array, Array, dict[str, Array]]:
        """The gradients of memory and values, and of parameters by name."""


class Attention(AttentionBase):
    """Attention with a single set of weights: ``y_t = sum_s a_ts values_s``, a = softmax of scores.

    Parameters
    ----------
    query_size, memory_size : int
        Q and M.
    score : {"scaled_dot", "dot", "additive"}
        How a query and a step of the memory are compared: their dot product divided by sqrt(M)
        (Vaswani et al. 2017), the dot product itself (Luong et al. 2015), both with Q = M; or
        ``v . tanh(W_q query + W_m memory + b)`` (Bahdanau et al. 2015).
    attention_size : int, optional
        A of the additive score; M where absent.
    dtype : "float32" or "float64"
    seed : int, optional
        Seeds the parameters of the additive score; the others have none.

    Attributes
    ----------
    query, memory : Linear
        Of the additive score: W_q without a bias, W_m with b.
    v : array [A]
        Of the additive score.
    """

    v: Array

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        *,
        score: Score = "scaled_dot",
        attention_size: int | None = None,
        dtype: Dtype = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.query_size = options.size("query_size", query_size)
        self.memory_size = options.size("memory_size", memory_size)
        self.output_size = self.memory_size
        self.score = options.choice("score", score, SCORES)
        self.dtype = arrays.dtype(dtype)
        self._scale = self.memory_size**-0.5 if score == "scaled_dot" else 1.0
        self._v: Array | None = None
        if score != "additive":
            if query_size != memory_size:
                raise ValueError(
                    f"query_size: expected memory_size = {memory_size} for score={score!r}, "
                    f"got {query_size}"
                )
            if attention_size is not None:
                raise ValueError(
                    f"attention_size: expected None for score={score!r}, got {attention_size}"
                )
            return
        size = self.memory_size if attention_size is None else attention_size
        self.attention_size = options.size("attention_size", size)
        seeds = _seeds(seed, 3)
        self.query = Linear(query_size, size, bias=False, dtype=dtype, seed=seeds[0])
        self.memory = Linear(memory_size, size, dtype=dtype, seed=seeds[1])
        bound = size**-0.5
        random = np.random.default_rng(seeds[2])
        self._v = random.uniform(-bound, bound, size).astype(self.dtype)
        self.add_parameter("v", self._v)

    def __repr__(self) -> str:
        extra = "" if self.dtype == "float32" else f", dtype={self.dtype!r}"
        return f"Attention({self.query_size}, {self.memory_size}, score={self.score!r}{extra})"

    def _project(self, memory: Array, values: Array, lengths: Lengths) -> Projected:
        mixed = _one_head(values)
        if self.score != "additive":
            keys = _one_head(memory)
            return Projected(keys, _core.nn_transposed(keys), mixed)
        projected, tape = self.memory.forward(_shown(memory, lengths))
        keys = _one_head(projected)
        return Projected(keys, _core.nn_transposed(keys), mixed, (tape,))

    def _scores(self, query: Array, memory: Memory) -> tuple[Array, Array, Any]:
        tape = None
        if self.score == "additive":
            query, tape = self.query.forward(query)
        queries, of = _one_head(query), memory.projected
        y, weights = _core.nn_attention(
            queries, of.keys_t, of.values, memory.lengths, self._scale, self._v
        )
        return y[:, :, 0], weights[:, :, 0], (queries, tape)

    def _gradients(
        self, saved: Mapping[str, Any], dy: Array, dweights: Array | None
    ) -> tuple[dict[str, Array], MemoryGradient]:
        memory: Memory = saved["prepared"]
        of, (queries, tape) = memory.projected, saved["own"]
        dquery, dkeys, dvalues, dv = _core.nn_attention_backward(
            queries,
            of.keys,
            of.values_t,
            memory.lengths,
            self._scale,
            self._v,
            _one_head(saved["weights"]),
            _one_head(dy),
            None if dweights is None else _one_head(dweights),
        )
        of_memory = MemoryGradient(dkeys, dvalues)
        if tape is None:
            return {"query": dquery[:, :, 0]}, of_memory
        of_query = self.query.backward(tape, dquery[:, :, 0])
        named = self.named_gradients(query=of_query)
        return {"query": of_query["x"], "v": dv, **named}, of_memory

    def _through_projections(
        self, of: Projected, total: MemoryGradient
    ) -> tuple[Array, Array, dict[str, Array]]:
        dkeys, dvalues = total.keys[:, :, 0], total.values[:, :, 0]
        if not of.tapes:
            return dkeys, dvalues, {}
        grads = self.memory.backward(of.tapes[0], dkeys)
        return grads["x"], dvalues, self.named_gradients(memory=grads)


class MultiHeadAttention(AttentionBase):
    """Attention with N sets of weights side by side (Vaswani et al. 2017).

    Queries, memory and values are projected for each head, compared by the scaled dot product, and
    the heads' results side by side are projected once more.

    Parameters
    ----------
    query_size, memory_size : int
        Q and M.
    num_heads : int
    head_size : int, optional
        Of queries, keys and values of a head; Q // N where absent.
    output_size : int, optional
        O; Q where absent.
    bias : bool
        Of the four projections.
    dtype : "float32" or "float64"
    seed : int, optional

    Attributes
    ----------
    query, key, value, out : Linear
    """

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        num_heads: int,
        *,
        head_size: int | None = None,
        output_size: int | None = None,
        bias: bool = True,
        dtype: Dtype = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.query_size = options.size("query_size", query_size)
        self.memory_size = options.size("memory_size", memory_size)
        self.num_heads = options.size("num_heads", num_heads)
        if head_size is None:
            options.divisor("num_heads", num_heads, "query_size", self.query_size)
            head_size = self.query_size // self.num_heads
        self.head_size = options.size("head_size", head_size)
        self._scale = self.head_size**-0.5
        self.output_size = options.size(
            "output_size", query_size if output_size is None else output_size
        )
        self.dtype = arrays.dtype(dtype)
        width = self.num_heads * self.head_size
        seeds = _seeds(seed, 4)
        shared: dict[str, Any] = {"bias": bias, "dtype": dtype}
        self.query = Linear(query_size, width, seed=seeds[0], **shared)
        self.key = Linear(memory_size, width, seed=seeds[1], **shared)
        self.value = Linear(memory_size, width, seed=seeds[2], **shared)
        self.out = Linear(width, self.output_size, seed=seeds[3], **shared)

    def __repr__(self) -> str:
        extra = "" if self.dtype == "float32" else f", dtype={self.dtype!r}"
        return (
            f"MultiHeadAttention({self.query_size}, {self.memory_size}, {self.num_heads}, "
            f"head_size={self.head_size}{extra})"
        )

    def _project(self, memory: Array, values: Array, lengths: Lengths) -> Projected:
        keys, key_tape = self.key.forward(_shown(memory, lengths))
        mixed, value_tape = self.value.forward(_shown(values, lengths))
        of_heads = self._heads(keys)
        return Projected(
            of_heads, _core.nn_transposed(of_heads), self._heads(mixed), (key_tape, value_tape)
        )

    def _scores(self, query: Array, memory: Memory) -> tuple[Array, Array, Any]:
        projected, tape = self.query.forward(query)
        queries, of = self._heads(projected), memory.projected
        y, weights = _core.nn_attention(
            queries, of.keys_t, of.values, memory.lengths, self._scale, None
        )
        result, out_tape = self.out.forward(self._joined(y))
        return result, weights, (queries, tape, out_tape)

    def _gradients(
        self, saved: Mapping[str, Any], dy: Array, dweights: Array | None
    ) -> tuple[dict[str, Array], MemoryGradient]:
        memory: Memory = saved["prepared"]
        of, (queries, tape, out_tape) = memory.projected, saved["own"]
        out = self.out.backward(out_tape, dy)
        dqueries, dkeys, dvalues, _ = _core.nn_attention_backward(
            queries,
            of.keys,
            of.values_t,
            memory.lengths,
            self._scale,
            None,
            saved["weights"],
            self._heads(out["x"]),
            dweights,
        )
        query = self.query.backward(tape, self._joined(dqueries))
        named = self.named_gradients(query=query, out=out)
        return {"query": query["x"], **named}, MemoryGradient(dkeys, dvalues)

    def _through_projections(
        self, of: Projected, total: MemoryGradient
    ) -> tuple[Array, Array, dict[str, Array]]:
        key = self.key.backward(of.tapes[0], self._joined(total.keys))
        value = self.value.backward(of.tapes[1], self._joined(total.values))
        return key["x"], value["x"], self.named_gradients(key=key, value=value)

    def _heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], self.num_heads, self.head_size)

    def _joined(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], self.num_heads * self.head_size)


def _one_head(array: Array) -> Array:
    return arrays.dense(array)[:, :, None]


def _shown(memory: Array, lengths: Lengths) -> Array:
    """With zeros beyond the lengths: what is there may be NaN, and would be multiplied by 0."""
    valid = np.arange(len(memory))[:, None] < lengths
    return memory if valid.all() else np.where(valid[..., None], memory, memory.dtype.type(0))


def _seeds(seed: int | None, count: int) -> list[int | None]:
    """A seed for each part, or none."""
    if options.seed(seed) is None:
        return [None] * count
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(count, np.uint64)]
