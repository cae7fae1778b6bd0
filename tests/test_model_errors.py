"""What models make of wrong arguments: each is named as the model's own method calls it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import models
from fusedrnn.models.sequences import beam_search, marked
from support import same_bits

T, B, V, C, F = 5, 3, 6, 3, 4
RNG = np.random.default_rng(0)
INDICES = RNG.integers(0, V, (T, B))
TARGETS = RNG.integers(1, V, (4, B))
VECTORS = RNG.standard_normal((T, B, F)).astype(np.float32)
MOVES = np.ascontiguousarray(VECTORS[..., :2])
LABELS = np.array([2, 0, 1])
SMALL: dict[str, Any] = {"hidden": 3, "seed": 0}

CHARACTERS = models.CharModel(V, embedding=3, **SMALL)
CLASSES = models.Classifier(C, input_size=F, **SMALL)
WORDS = models.Classifier(C, vocabulary=V, embedding=3, **SMALL)
TAGS = models.Tagger(C, input_size=F, **SMALL)
FORECAST = models.Forecaster(F, 2, **SMALL)
CAPTIONS = models.Captioner(F, V, embedding=3, **SMALL)
STROKES = models.Sketcher(C, embedding=3, **SMALL)
ATTENTIVE = models.Seq2Seq(V, V, embedding=3, **SMALL)
PLAIN = models.Seq2Seq(V, V, attention=False, embedding=3, **SMALL)

Refusal = tuple[Callable[[], Any], type[Exception], str]
MADE: list[Refusal] = [
    (lambda: models.Classifier(2), ValueError, "input_size, vocabulary: expected one of them"),
    (
        lambda: models.Tagger(2, input_size=2, vocabulary=2),
        ValueError,
        "input_size, vocabulary: expected one of them, got 2, 2",
    ),
    (lambda: models.CharModel(4, cell="gur"), ValueError, "cell: expected 'rnn', 'gru' or 'lstm'"),
    (lambda: models.CharModel(0), ValueError, "vocabulary: expected at least 1, got 0"),
    (lambda: models.CharModel(4, embedding=0), ValueError, "embedding: expected at least 1, got 0"),
    (
        lambda: models.Classifier(0, input_size=2),
        ValueError,
        "classes: expected at least 1, got 0",
    ),
    (
        lambda: models.Captioner(3, 5, layers=2.0),  # type: ignore[arg-type]
        TypeError,
        "layers: expected an int, got float",
    ),
    (
        lambda: models.Sketcher(3, hidden="8"),  # type: ignore[arg-type]
        TypeError,
        "hidden: expected an int, got str",
    ),
    (
        lambda: models.Seq2Seq(4, 4, attention="no"),  # type: ignore[arg-type]
        TypeError,
        "attention: expected a bool, got str",
    ),
    (lambda: models.Seq2Seq(4, 4, dropout=1.0), ValueError, "dropout: expected a finite number"),
    (
        lambda: models.CharModel(4, dtype="float16"),  # type: ignore[arg-type]
        ValueError,
        "dtype: expected 'float32' or 'float64', got 'float16'",
    ),
    (lambda: models.Forecaster(1, 0), ValueError, "horizon: expected at least 1, got 0"),
    (
        lambda: models.Forecaster(1, 2, (0.9, 0.1)),
        ValueError,
        "quantiles: expected some in rising order, got [0.9, 0.1]",
    ),
    (lambda: models.Forecaster(1, 2, ()), ValueError, "quantiles: expected some in rising order"),
    (
        lambda: models.Forecaster(1, 2, (0.5, 1.5)),
        ValueError,
        "quantiles[1]: expected a number above 0 and below 1, got 1.5",
    ),
    (
        lambda: models.Forecaster(1, 2, {0.1, 0.9}),  # type: ignore[arg-type]
        TypeError,
        "quantiles: expected a sequence of numbers, got set",
    ),
]
CALLED: list[Refusal] = [
    (
        lambda: CLASSES.loss_and_gradients(VECTORS, LABELS + 1),
        ValueError,
        "labels: expected values from 0 to 2, got 3 at index 0",
    ),
    (
        lambda: CLASSES.loss(VECTORS, LABELS[:2]),
        ValueError,
        "labels: expected shape (3,), got (2,)",
    ),
    (
        lambda: CLASSES.predict(VECTORS[:, 0]),
        ValueError,
        "inputs: expected shape (*, *, 4), got (5, 4)",
    ),
    (
        lambda: CLASSES.predict(VECTORS.astype(float)),
        TypeError,
        "inputs: expected dtype float32, got float64",
    ),
    (
        lambda: WORDS.predict(INDICES + 1),
        ValueError,
        "inputs: expected values from 0 to 5, got 6 at index",
    ),
    (lambda: WORDS.predict(INDICES[0]), ValueError, "inputs: expected shape (*, *), got (3,)"),
    (
        lambda: TAGS.loss_and_gradients(VECTORS, np.full((T, B), 3)),
        ValueError,
        "labels: expected values from 0 to 2, got 3 at index (0, 0)",
    ),
    (
        lambda: TAGS.loss(VECTORS, LABELS[None]),
        ValueError,
        "labels: expected shape (5, 3), got (1, 3)",
    ),
    (
        lambda: FORECAST.loss(VECTORS, np.zeros((B, 3), np.float32)),
        ValueError,
        "target: expected shape (3, 2), got (3, 3)",
    ),
    (
        lambda: CAPTIONS.loss(VECTORS[0], TARGETS[:, :2]),
        ValueError,
        "targets: expected shape (*, 3), got (4, 2)",
    ),
    (
        lambda: CAPTIONS.loss(VECTORS[0, 0], TARGETS),
        ValueError,
        "vectors: expected shape (*, 4), got (4,)",
    ),
    (
        lambda: CAPTIONS.loss_and_gradients(VECTORS[0], TARGETS * 0),
        ValueError,
        "targets: expected values from 1 to 5, got 0 at index (0, 0)",
    ),
    (
        lambda: CAPTIONS.generate(VECTORS[0].astype(float)),
        TypeError,
        "vectors: expected dtype float32, got float64",
    ),
    (
        lambda: CAPTIONS.generate(VECTORS[0], max_length=0),
        ValueError,
        "max_length: expected at least 1, got 0",
    ),
    (
        lambda: CAPTIONS.generate(VECTORS[0], beam=0),
        ValueError,
        "beam: expected at least 1, got 0",
    ),
    (
        lambda: ATTENTIVE.loss(INDICES, TARGETS + 1),
        ValueError,
        "targets: expected values from 1 to 5, got 6 at index",
    ),
    (
        lambda: ATTENTIVE.loss(INDICES + 1, TARGETS),
        ValueError,
        "sources: expected values from 0 to 5, got 6 at index",
    ),
    (
        lambda: ATTENTIVE.loss(INDICES, TARGETS[:, :2]),
        ValueError,
        "targets: expected shape (*, 3), got (4, 2)",
    ),
    (
        lambda: ATTENTIVE.loss_and_gradients(INDICES, TARGETS, [5, 0, 1]),
        ValueError,
        "source_lengths: expected values from 1 to 5, got 0 at index 1",
    ),
    (
        lambda: PLAIN.loss(INDICES, TARGETS, [5, -1, 1]),
        ValueError,
        "source_lengths: expected values from 0 to 5, got -1 at index 1",
    ),
    (
        lambda: PLAIN.loss(INDICES, TARGETS, None, [5, 1, 1]),
        ValueError,
        "target_lengths: expected values from 0 to 4, got 5 at index 0",
    ),
    (
        lambda: ATTENTIVE.loss(INDICES[:0], TARGETS),
        ValueError,
        "sources: expected at least one step, got shape (0, 3)",
    ),
    (
        lambda: ATTENTIVE.generate(INDICES, beam=-1),
        ValueError,
        "beam: expected at least 1, got -1",
    ),
    (
        lambda: ATTENTIVE.generate(INDICES, [5, 5, 9]),
        ValueError,
        "lengths: expected values from 1 to 5, got 9 at index 2",
    ),
    (
        lambda: PLAIN.alignment(INDICES, TARGETS),
        ValueError,
        "alignment: expected a model with attention, got one without",
    ),
    (
        lambda: STROKES.loss(LABELS[:, None], MOVES),
        ValueError,
        "labels: expected shape (*,), got (3, 1)",
    ),
    (
        lambda: STROKES.generate(LABELS + 1),
        ValueError,
        "labels: expected values from 0 to 2, got 3 at index 0",
    ),
    (
        lambda: STROKES.loss(LABELS, VECTORS),
        ValueError,
        "moves: expected shape (*, 3, 2), got (5, 3, 4)",
    ),
    (
        lambda: STROKES.loss(LABELS, MOVES[:0]),
        ValueError,
        "moves: expected at least one step, got shape (0, 3, 2)",
    ),
    (
        lambda: STROKES.loss(LABELS, MOVES, [1, 0, 2]),
        ValueError,
        "lengths: expected values from 1 to 5, got 0 at index 1",
    ),
    (
        lambda: STROKES.generate(LABELS, temperature=-1),
        ValueError,
        "temperature: expected at least 0, got -1",
    ),
    (
        lambda: STROKES.generate(LABELS, generator=np.random),  # type: ignore[arg-type]
        TypeError,
        "generator: expected a numpy.random.Generator, got module",
    ),
    (
        lambda: CHARACTERS.step([[1]]),
        ValueError,
        "inputs: expected shape (*,), got (1, 1)",
    ),
]
# `generate` is an iterator: what is wrong is said at the call, not at the first symbol.
GENERATED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"prompt": []}, ValueError, "prompt: expected at least one index, got none"),
    ({"prompt": [1.7]}, TypeError, "prompt: expected an integer dtype, got float64"),
    ({"prompt": [6]}, ValueError, "prompt: expected values from 0 to 5, got 6 at index 0"),
    ({"count": -1}, ValueError, "count: expected at least 0, got -1"),
    ({"temperature": np.nan}, ValueError, "temperature: expected at least 0, got nan"),
    ({"temperature": 0, "top_k": 0}, ValueError, "top_k: expected at least 1, got 0"),
    ({"temperature": 0, "top_p": 2}, ValueError, "top_p: expected above 0 and at most 1, got 2"),
    ({"never": (6,)}, ValueError, "never: expected values from 0 to 5, got 6 at index 0"),
    ({"never": range(6)}, TypeError, "never: expected an array"),
    ({"never": (*range(6),)}, ValueError, "never: expected fewer than all 6 symbols, got all"),
    ({"generator": 3}, TypeError, "generator: expected a numpy.random.Generator, got int"),
]
SYMBOLS = models.Symbols("abc")
PREPARED: list[Refusal] = [
    (lambda: SYMBOLS.encode(iter("az")), ValueError, "sequence: expected known symbols, got 'z'"),
    (lambda: SYMBOLS.encode("z", 4), ValueError, "unknown: expected a number below 4, got 4"),
    (lambda: SYMBOLS.decode([1, -1]), ValueError, "indices: expected values from 0 to 3, got -1"),
    (lambda: SYMBOLS.decode([4]), ValueError, "indices: expected values from 0 to 3, got 4"),
    (
        lambda: models.pad([1, 2]),
        TypeError,
        "sequences[0]: expected a sequence of numbers, got int",
    ),
    (
        lambda: models.pad([[1], [[1], [1, 2]]]),
        ValueError,
        "sequences[1]: expected steps of one shape, got several",
    ),
    (
        lambda: marked(TARGETS[0], None, batch=B, vocabulary=V),
        ValueError,
        "targets: expected shape (*, 3), got (3,)",
    ),
    (
        lambda: marked(TARGETS.astype(float), None, batch=B, vocabulary=V),
        TypeError,
        "targets: expected an integer dtype, got float64",
    ),
    (
        lambda: marked(TARGETS, [1.0, 1.0, 1.0], batch=B, vocabulary=V),
        TypeError,
        "lengths: expected an integer dtype, got float64",
    ),
    (
        lambda: marked(TARGETS, [1], batch=B, vocabulary=V),
        ValueError,
        "lengths: expected shape (3,), got (1,)",
    ),
    (
        lambda: beam_search(
            lambda symbols, state: (np.full((len(symbols), V), np.nan), state),
            None,
            B,
            width=2,
            max_length=3,
        ),
        ValueError,
        "logits: expected numbers, got others at step 0",
    ),
]


def refused(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call()


@pytest.mark.parametrize(("call", "error", "message"), MADE + CALLED + PREPARED)
def test_errors_name_what_is_wrong(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    refused(error, message, call)


@pytest.mark.parametrize(("changed", "error", "message"), GENERATED)
def test_what_cannot_be_written_is_said_at_the_call(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    refused(error, message, lambda: CHARACTERS.generate(**({"prompt": [1], "count": 3} | changed)))


def test_what_is_beyond_the_lengths_may_be_anything() -> None:
    ends = np.array([3, 2, 3])
    beyond = np.arange(T)[:, None] >= ends
    odd = np.where(beyond[..., None], np.float32(np.nan), VECTORS)
    cases: list[tuple[Any, tuple[Any, ...], tuple[Any, ...]]] = [
        (CLASSES, (odd, LABELS), (VECTORS, LABELS)),
        (TAGS, (odd, np.where(beyond, -7, 1)), (VECTORS, np.ones((T, B), int))),
        (STROKES, (LABELS, odd[..., :2].copy()), (LABELS, MOVES)),
        (CAPTIONS, (VECTORS[0], np.where(beyond, -7, 1)), (VECTORS[0], np.ones((T, B), int))),
    ]
    for model, strange, usual in cases:
        loss, grads = model.loss_and_gradients(*strange, ends)
        expected, others = model.loss_and_gradients(*usual, ends)
        assert loss == expected == model.loss(*strange, ends)
        same_bits(grads, others)


def test_what_is_padded_keeps_its_type() -> None:
    x, lengths = models.pad([[], [1, 2]])
    assert x.dtype.kind == "i"
    assert (x.T.tolist(), lengths.tolist()) == ([[0, 0], [1, 2]], [0, 2])


def test_sizes_that_are_numpy_s_can_be_saved(tmp_path: Path) -> None:
    model = models.Forecaster(
        np.int64(1), np.int32(2), np.array([0.1, 0.9]), dropout=np.float32(0.5), dtype=np.float32
    )  # type: ignore[arg-type]
    models.Training(model).save(tmp_path / "file")
    assert (
        models.Training(models.Forecaster(**model.config())).resume(tmp_path / "file")["step"] == 0
    )


def test_trainings_name_what_is_wrong() -> None:
    def batch(_: models.Training) -> Any:
        return VECTORS

    training = models.Training(CLASSES)
    refused(TypeError, "until: expected an int, got float", lambda: training.run(2.5, batch))  # type: ignore[arg-type]
    refused(
        TypeError,
        "batch: expected a tuple from the callable, got ndarray",
        lambda: training.run(2, batch, quiet=True),
    )
    refused(
        ValueError,
        "clip: expected at least 0, got nan",
        lambda: models.Training(CLASSES, clip=np.nan),
    )
    refused(
        TypeError,
        "model: expected one with loss_and_gradients, got GRU",
        lambda: models.Training(fr.GRU(2, 2)),
    )
