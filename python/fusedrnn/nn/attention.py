"""Attention of a decoder's steps over a memory, such as an encoder's outputs.

Letters: T steps of queries, S steps of the memory, B sequences, Q, M, A, O sizes of a query, of a
step of the memory, of what they are compared in, and of the output; N heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core, options
from fusedrnn.nn import arrays, kernels
from fusedrnn.nn.arrays import Array, Dtype
from fusedrnn.nn.linear import Linear
from fusedrnn.nn.module import Module, ModuleTape

Score = Literal["dot", "scaled_dot", "additive"]
SCORES: tuple[Score, ...] = get_args(Score)


@dataclass(frozen=True, eq=False)
class Memory:
    """What a module attends to, with what it computes of it once for all queries.

    `prepare` makes it. It belongs to the module, and to its parameters as they were.
    """

    module: AttentionBase
    memory: Array = field(repr=False)  # [S, B, M]
    values: Array | None = field(repr=False)  # where they are not the memory itself
    lengths: NDArray[np.int64] = field(repr=False)  # [B]
    projected: Mapping[str, Any] = field(repr=False)  # keys, values and the tapes of both


class AttentionBase(Module):
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
        projected = self._project(source, source if mixed is None else mixed)
        return Memory(self, source, mixed, ends, projected)

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
        return (y, tape.saved["weights"][0]) if wanted else y

    def forward_step(self, query: Any, memory: Any) -> tuple[Array, ModuleTape]:
        """Return y [B, O] as `step`, and what `backward` needs.

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
        saved = self.read_tape(tape)
        query, weights, single = saved["query"], saved["weights"], saved["single"]
        shape = *query.shape[:2], self.output_size
        dy_ = arrays.like("dy", dy, shape[1:] if single else shape, self.dtype)
        if dweights is not None:
            wanted = weights.shape[1:] if single else weights.shape
            dweights = arrays.like("dweights", dweights, wanted, self.dtype)
            dweights = np.ascontiguousarray(dweights).reshape(weights.shape)
        return self._gradients(saved, np.ascontiguousarray(dy_).reshape(shape), dweights)

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

    def _project(self, memory: Array, values: Array) -> dict[str, Any]:
        raise NotImplementedError

    def _scores(self, query: Array, memory: Memory) -> tuple[Array, Array, Any]:
        """y, weights, and what else `_gradients` needs."""
        raise NotImplementedError

    def _gradients(
        self, saved: Mapping[str, Any], dy: Array, dweights: Array | None
    ) -> dict[str, Array]:
        raise NotImplementedError


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
        self.query_size = options.positive("query_size", query_size)
        self.memory_size = options.positive("memory_size", memory_size)
        self.output_size = self.memory_size
        self.score = options.choice("score", score, SCORES)
        self.dtype = arrays.dtype(dtype)
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
            self._scale = self.memory_size**-0.5 if score == "scaled_dot" else 1.0
            return
        size = self.memory_size if attention_size is None else attention_size
        self.attention_size = options.positive("attention_size", size)
        seeds = _seeds(seed, 3)
        self.query = Linear(query_size, size, bias=False, dtype=dtype, seed=seeds[0])
        self.memory = Linear(memory_size, size, dtype=dtype, seed=seeds[1])
        bound = size**-0.5
        random = np.random.default_rng(seeds[2])
        self.add_parameter("v", random.uniform(-bound, bound, size).astype(self.dtype))

    def __repr__(self) -> str:
        extra = "" if self.dtype == "float32" else f", dtype={self.dtype!r}"
        return f"Attention({self.query_size}, {self.memory_size}, score={self.score!r}{extra})"

    def _project(self, memory: Array, values: Array) -> dict[str, Any]:
        if self.score != "additive":
            return {"keys": _dense(memory), "values": _dense(values)}
        keys, tape = self.memory.forward(memory)
        return {"keys": keys, "values": _dense(values), "tape": tape}

    def _scores(self, query: Array, memory: Memory) -> tuple[Array, Array, Any]:
        keys, values, ends = memory.projected["keys"], memory.projected["values"], memory.lengths
        if self.score == "additive":
            projected, tape = self.query.forward(query)
            y, weights = kernels.additive_attention(projected, keys, self.v, values, ends)
            return y, weights, (projected, tape)
        y, weights = kernels.dot_attention(
            _one_head(_dense(query)), _one_head(keys), _one_head(values), ends, self._scale
        )
        return y[:, :, 0], weights[:, :, 0], None

    def _gradients(
        self, saved: Mapping[str, Any], dy: Array, dweights: Array | None
    ) -> dict[str, Array]:
        memory: Memory = saved["prepared"]
        keys, values, ends = memory.projected["keys"], memory.projected["values"], memory.lengths
        weights = saved["weights"]
        named: dict[str, Array] = {}
        if self.score == "additive":
            projected, tape = saved["own"]
            dquery, dkeys, dv, dvalues = kernels.additive_attention_backward(
                projected, keys, self.v, values, ends, weights, dy, dweights
            )
            of_query = self.query.backward(tape, dquery)
            of_memory = self.memory.backward(memory.projected["tape"], dkeys)
            named = {"v": dv, **self.named_gradients(query=of_query, memory=of_memory)}
            dquery, dmemory = of_query["x"], of_memory["x"]
        else:
            dquery, dmemory, dvalues = (
                gradient[:, :, 0]
                for gradient in kernels.dot_attention_backward(
                    _one_head(_dense(saved["query"])),
                    _one_head(keys),
                    _one_head(values),
                    ends,
                    self._scale,
                    _one_head(weights),
                    _one_head(dy),
                    None if dweights is None else _one_head(dweights),
                )
            )
        query = saved["query"]
        if memory.values is None:
            found = {"query": dquery.reshape(query.shape), "memory": dmemory + dvalues}
        else:
            found = {"query": dquery.reshape(query.shape), "memory": dmemory, "values": dvalues}
        return found | named


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
        self.query_size = options.positive("query_size", query_size)
        self.memory_size = options.positive("memory_size", memory_size)
        self.num_heads = options.positive("num_heads", num_heads)
        if head_size is None:
            options.divisor("num_heads", num_heads, "query_size", self.query_size)
            head_size = self.query_size // self.num_heads
        self.head_size = options.positive("head_size", head_size)
        self.output_size = options.positive(
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

    def _project(self, memory: Array, values: Array) -> dict[str, Any]:
        keys, key_tape = self.key.forward(memory)
        mixed, value_tape = self.value.forward(values)
        return {
            "keys": self._heads(keys),
            "values": self._heads(mixed),
            "key_tape": key_tape,
            "value_tape": value_tape,
        }

    def _scores(self, query: Array, memory: Memory) -> tuple[Array, Array, Any]:
        projected, tape = self.query.forward(query)
        queries = self._heads(projected)
        y, weights = kernels.dot_attention(
            queries,
            memory.projected["keys"],
            memory.projected["values"],
            memory.lengths,
            self.head_size**-0.5,
        )
        result, out_tape = self.out.forward(self._joined(y))
        return result, weights, (queries, tape, out_tape)

    def _gradients(
        self, saved: Mapping[str, Any], dy: Array, dweights: Array | None
    ) -> dict[str, Array]:
        memory: Memory = saved["prepared"]
        queries, tape, out_tape = saved["own"]
        out = self.out.backward(out_tape, dy)
        dqueries, dkeys, dvalues = kernels.dot_attention_backward(
            queries,
            memory.projected["keys"],
            memory.projected["values"],
            memory.lengths,
            self.head_size**-0.5,
            saved["weights"],
            self._heads(out["x"]),
            dweights,
        )
        query = self.query.backward(tape, self._joined(dqueries))
        key = self.key.backward(memory.projected["key_tape"], self._joined(dkeys))
        value = self.value.backward(memory.projected["value_tape"], self._joined(dvalues))
        named = self.named_gradients(query=query, key=key, value=value, out=out)
        if memory.values is None:
            return {"query": query["x"], "memory": key["x"] + value["x"], **named}
        return {"query": query["x"], "memory": key["x"], "values": value["x"], **named}

    def _heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], self.num_heads, self.head_size)

    def _joined(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], -1)


def _dense(array: Array) -> Array:
    return np.ascontiguousarray(array)


def _one_head(array: Array) -> Array:
    return array[:, :, None]


def _seeds(seed: int | None, count: int) -> list[int | None]:
    """A seed for each part, or none."""
    if options.seed(seed) is None:
        return [None] * count
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(count, np.uint64)]
