"""The models: gradients by differences, what they write, training that goes on to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import models, nn
from fusedrnn.models.sequences import beam_search, marked
from support import same_bits

T, B, V, C, F = 6, 3, 5, 3, 4
LENGTHS = np.array([6, 2, 4])
RNG = np.random.default_rng(0)
INDICES = RNG.integers(0, V, (T, B))
VECTORS = RNG.normal(size=(T, B, F))
LABELS = np.array([2, 0, 1])

# By name: how a model is made, and the arguments of its loss.
Case = tuple[Callable[..., Any], tuple[Any, ...]]
CASES: dict[str, Case] = {
    "characters": (lambda **o: models.CharModel(V, embedding=3, **o), (INDICES, INDICES[::-1])),
    "classes of symbols": (
        lambda **o: models.Classifier(C, vocabulary=V, embedding=3, **o),
        (INDICES, LABELS, LENGTHS),
    ),
    "classes of vectors": (
        lambda **o: models.Classifier(C, input_size=F, bidirectional=False, **o),
        (VECTORS, LABELS, LENGTHS),
    ),
    "labels": (
        lambda **o: models.Tagger(C, input_size=F, **o),
        (VECTORS, RNG.integers(0, C, (T, B)), LENGTHS),
    ),
    "labels of symbols": (
        lambda **o: models.Tagger(C, vocabulary=V, embedding=3, bidirectional=False, **o),
        (INDICES, RNG.integers(0, C, (T, B))),
    ),
    "forecast": (lambda **o: models.Forecaster(F, 2, **o), (VECTORS, RNG.normal(size=(B, 2)))),
    "captions": (
        lambda **o: models.Captioner(F, V, embedding=3, **o),
        (VECTORS[0], RNG.integers(1, V, (4, B)), np.array([4, 0, 2])),
    ),
    "strokes": (
        lambda **o: models.Sketcher(C, embedding=3, **o),
        (LABELS, RNG.normal(size=(T, B, 2)), LENGTHS),
    ),
    "with attention": (
        lambda **o: models.Seq2Seq(V, C, embedding=3, **o),
        (INDICES, RNG.integers(1, C, (4, B)), LENGTHS, np.array([4, 1, 0])),
    ),
    "without attention": (
        lambda **o: models.Seq2Seq(V, C, attention=False, embedding=3, **o),
        (INDICES, RNG.integers(1, C, (4, B)), LENGTHS, np.array([4, 1, 0])),
    ),
}

every = pytest.mark.parametrize("name", CASES)


def made(name: str, **rest: Any) -> Any:
    return CASES[name][0](**{"hidden": 3, "layers": 2, "dtype": "float64", "seed": 0} | rest)


def loss_of(model: Any, arguments: Any) -> float:
    loss = model.loss(*arguments)
    return float(loss[0] if isinstance(loss, tuple) else loss)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@every
def test_gradients_by_differences(name: str, cell: str) -> None:
    model, arguments = made(name, cell=cell), CASES[name][1]
    loss, grads, *_ = model.loss_and_gradients(*arguments)
    assert loss == pytest.approx(loss_of(model, arguments), rel=1e-12)
    assert list(grads) == list(model.parameters())
    rng, step = np.random.default_rng(1), 1e-5
    for parameter, array in model.parameters().items():
        before, direction = array.copy(), rng.normal(size=array.shape)
        array[...] = before + step * direction
        above = loss_of(model, arguments)
        array[...] = before - step * direction
        below = loss_of(model, arguments)
        array[...] = before
        slope = float(np.sum(grads[parameter] * direction))
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-8), parameter


@every
def test_dropout_has_the_gradients_of_what_was_dropped(name: str) -> None:
    model, arguments = made(name, dropout=0.5), CASES[name][1]
    state = model.random_state()
    assert {key.rpartition(".")[2] for key in state} >= {"rnn", "drop"}
    loss, grads, *_ = model.loss_and_gradients(*arguments)
    assert loss != loss_of(model, arguments)  # which drops nothing
    rng, step = np.random.default_rng(1), 1e-5
    direction = {key: rng.normal(size=array.shape) for key, array in model.parameters().items()}
    values = []
    for sign in (1, -2):
        for key, array in model.parameters().items():
            np.add(array, sign * step * direction[key], out=array)
        model.load_random_state(state)
        values.append(model.loss_and_gradients(*arguments)[0])
    slope = sum(float(np.sum(grads[key] * direction[key])) for key in grads)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-4)


@every
def test_a_configuration_makes_the_same_model(name: str) -> None:
    model, arguments = made(name), CASES[name][1]
    other = type(model)(**model.config())
    assert other.config() == model.config()
    other.load_state_dict(model.state_dict())
    assert loss_of(other, arguments) == loss_of(model, arguments)
    assert type(model)(**model.config(), seed=1).config() == model.config()
    same_bits(made(name).state_dict(), model.state_dict())


@every
def test_training_that_is_resumed_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    arguments = CASES[name][1]

    def training() -> models.Training:
        model = made(name, dropout=0.3, cell="lstm")
        return models.Training(model, fr.schedules.Cosine(0.05, 8), seed=3)

    def batch(of: models.Training) -> tuple[Any, ...]:
        order = of.generator.permutation(B)  # of sequences, along the axis that each argument has
        chosen = [a[order] if np.shape(a)[0] == B else a[:, order] for a in arguments]
        return (*chosen, of.state) if name == "characters" else tuple(chosen)

    whole, first, second = training(), training(), training()
    whole.run(8, batch, quiet=True)
    first.run(3, batch, quiet=True)
    first.save(tmp_path / "training.safetensors", name=name)
    metadata = second.resume(tmp_path / "training.safetensors")
    assert metadata["name"] == name
    assert second.step == 3
    second.run(8, batch, quiet=True)
    same_bits(second.model.state_dict(), whole.model.state_dict())
    assert any((a != b).any() for a, b in zip(
        whole.model.parameters().values(), first.model.parameters().values(), strict=True
    ))  # fmt: skip


def test_a_training_resumes_its_own_model_alone(tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    models.Training(made("labels")).save(path)
    with pytest.raises(ValueError, match=r"^path: expected the training of .* got one of .*Tagger"):
        models.Training(made("classes of vectors")).resume(path)
    with pytest.raises(ValueError, match=r"^path: expected the training of .*'hidden': 4"):
        models.Training(made("labels", hidden=4)).resume(path)


def test_gradients_are_clipped() -> None:
    states = []
    for limit in (np.inf, 1e-3):
        training = models.Training(made("labels"), clip=limit)
        # Adam does not see a constant factor, so let the first step alone be large.
        x, *rest = CASES["labels"][1]
        training.run(3, lambda of, x=x, rest=rest: (x * 10 ** (2 - of.step), *rest), quiet=True)
        states.append(training.model.state_dict())
    assert any((states[0][name] != states[1][name]).any() for name in states[0])


def test_a_training_that_diverges_says_so() -> None:
    model = made("labels")
    training = models.Training(model)
    model.out.weight[...] = np.nan
    with pytest.raises(FloatingPointError, match=r"^training diverged at step 1: loss nan"):
        training.run(5, lambda _: CASES["labels"][1], quiet=True)
    assert training.step == 0


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    training = models.Training(made("labels"))
    training.run(2, lambda _: CASES["labels"][1])
    shown = capsys.readouterr()
    assert not shown.out
    assert "2/2" in shown.err
    assert "loss" in shown.err


# --- what is written ---


def test_drawing() -> None:
    logits = np.log([0.5, 0.25, 0.15, 0.1])
    rng = np.random.default_rng(0)

    def shares(**options: Any) -> Any:
        drawn = [models.draw(logits, rng, **options) for _ in range(2000)]
        return np.bincount(drawn, minlength=4) / 2000

    assert shares() == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.04)
    assert shares(temperature=0.5) == pytest.approx(
        np.array([0.25, 0.0625, 0.0225, 0.01]) / 0.345, abs=0.04
    )
    assert shares(top_k=2) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.04)
    assert shares(top_p=0.7) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.04)
    assert shares(top_p=0.76)[2] > 0
    assert shares(top_p=0.76)[3] == 0
    for options in ({"temperature": 0}, {"temperature": 1e-310}, {"top_k": 1}, {"top_p": 1e-9}):
        assert shares(**options).tolist() == [1, 0, 0, 0]
    assert models.draw([-np.inf, 0.0], rng) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, r"^temperature: expected at least 0, got -1"),
        ({"temperature": np.nan}, r"^temperature: "),
        ({"top_k": 0}, r"^top_k: expected at least 1, got 0"),
        ({"top_p": 0}, r"^top_p: expected above 0 and at most 1, got 0"),
        ({"top_p": 1.5}, r"^top_p: expected above 0 and at most 1, got 1.5"),
        ({"logits": [np.nan]}, r"^logits: expected numbers of shape \(V,\), got"),
        ({"logits": [-np.inf]}, r"^logits: "),
        ({"logits": []}, r"^logits: "),
    ],
)
def test_drawing_names_what_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.draw(**{"logits": [0.0, 1.0], "generator": RNG} | options)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_what_is_written_step_by_step_is_what_the_sequence_says(cell: str) -> None:
    model = made("characters", cell=cell)
    written = list(model.generate([1, 2], 20, temperature=0, never=(0,)))
    text = np.array([1, 2, *written])
    logits = model.out(model.rnn(model.embed(text[:-1, None]))[0])[1:, 0]
    assert (logits[:, 1:].argmax(axis=-1) + 1).tolist() == written
    state: Any = None
    for index, expected in zip(
        text, model.out(model.rnn(model.embed(text[:, None]))[0]), strict=True
    ):
        said, state = model.step([index], state)
        assert said.tobytes() == expected.tobytes()


def test_writing_has_no_end_of_its_own() -> None:
    model = made("characters")
    endless = model.generate([0], generator=np.random.default_rng(0))
    first = [next(endless) for _ in range(30)]
    assert first == list(model.generate([0], 30, generator=np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"^prompt: expected at least one index"):
        model.generate([], 3)
    with pytest.raises(ValueError, match=r"^count: expected at least 0, got -1"):
        model.generate([0], -1)


def all_sequences(longest: int) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    for sequence in found:
        if len(sequence) < longest:
            found.extend((*sequence, symbol) for symbol in range(1, C))
    return found


@pytest.mark.parametrize("name", ["with attention", "without attention", "captions"])
def test_a_wide_beam_finds_the_likeliest_of_all(name: str) -> None:
    """Against the loss of every sequence that there is."""
    if name == "captions":
        model = models.Captioner(F, C, hidden=3, dtype="float64", seed=4)
        given: tuple[Any, ...] = (VECTORS[0] * 3,)
    else:
        model, given = made(name), (INDICES, LENGTHS)
    model.out.weight[...] *= 4  # or all are about as likely
    longest = 4
    said, scores = model.generate(*given, max_length=longest, beam=60)
    greedy, lower = model.generate(*given, max_length=longest)
    for b in range(B):
        source = (
            (given[0][b : b + 1],) if name == "captions" else (given[0][: LENGTHS[b], b : b + 1],)
        )
        chances = {}
        for sequence in all_sequences(longest - 1):
            target = np.array(sequence, int)[:, None]
            chances[sequence] = -model.loss(*source, target) * (len(sequence) + 1)
        best = max((s for s in chances), key=lambda s: chances[s])
        if len(said[b]) < longest:
            assert tuple(said[b]) == best
            assert scores[b] == pytest.approx(chances[best], rel=1e-9)
        if len(greedy[b]) < longest:
            assert lower[b] == pytest.approx(chances[tuple(greedy[b])], rel=1e-9)
        assert lower[b] <= scores[b] + 1e-12
        assert len(greedy[b]) <= longest
    assert any(len(s) < longest for s in said)


def test_a_beam_leaves_a_greedy_dead_end() -> None:
    """The likeliest first symbol leads to nothing likely; the second one to a certain end."""
    table = np.array([[0.001, 0.55, 0.449], [0.34, 0.33, 0.33], [0.98, 0.01, 0.01]])

    def step(symbols: Any, state: Any) -> tuple[Any, Any]:
        return np.log(table[symbols]), state

    assert beam_search(step, None, 1, width=1, max_length=5)[0] == [[1]]
    said, scores = beam_search(step, None, 2, width=2, max_length=5)
    assert said == [[2], [2]]
    assert np.exp(scores) == pytest.approx([0.449 * 0.98] * 2)


def test_what_lives_on_takes_the_place_of_what_has_ended() -> None:
    """The end at once (0.3) is the second beginning, until both that go on with 1 are likelier."""
    table = np.array([[0.3, 0.65, 0.05], [0.01, 0.5, 0.49], [0.9, 0.05, 0.05]])

    def step(symbols: Any, state: Any) -> tuple[Any, Any]:
        return np.log(table[symbols]), state

    said, scores = beam_search(step, None, 1, width=2, max_length=5)
    assert said == [[1, 2]]
    assert np.exp(scores) == pytest.approx([0.65 * 0.49 * 0.9])


def test_a_move_is_said_from_those_before_it() -> None:
    """What is drawn at temperature 0 are the means that the whole stroke's pass finds."""
    model = made("strokes")
    model.out.bias[4] = -50
    moves = np.stack(model.generate(LABELS, max_length=7, temperature=0), axis=1)
    said = model.out(model.rnn(model._inputs(model.embed(LABELS), moves))[0])
    assert said[..., :2] == pytest.approx(moves, rel=1e-12)


def test_the_end_of_a_stroke_is_its_last_move() -> None:
    model, moves = made("strokes"), np.zeros((T, B, 2))
    model.out.bias[4] = 50  # always the end
    assert model.loss(LABELS, moves[:1]) < model.loss(LABELS, moves[:2]) - 20
    ends = np.full(B, 1)
    assert model.loss(LABELS, moves, ends) == pytest.approx(model.loss(LABELS, moves[:1]))


def test_strokes_end_where_the_model_says() -> None:
    model = made("strokes")
    model.out.bias[4] = -50
    drawn = model.generate(LABELS, max_length=7, generator=np.random.default_rng(0))
    assert [moves.shape for moves in drawn] == [(7, 2)] * B
    model.out.bias[4] = 50
    assert [len(m) for m in model.generate(LABELS, generator=RNG)] == [1] * B
    model.out.bias[4] = 0
    mean = [
        model.generate(LABELS, temperature=0, generator=np.random.default_rng(k)) for k in (0, 1)
    ]
    for one, other in zip(*mean, strict=True):
        shared = min(len(one), len(other))
        assert (one[:shared] == other[:shared]).all()


def test_alignments() -> None:
    model, (sources, targets, lengths, _) = made("with attention"), CASES["with attention"][1]
    weights = model.alignment(sources, targets, lengths)
    assert weights.shape == (5, B, T)
    assert weights.sum(-1) == pytest.approx(np.ones((5, B)))
    assert (weights[:, 1, 2:] == 0).all()
    with pytest.raises(ValueError, match=r"^alignment: expected a model with attention"):
        made("without attention").alignment(sources, targets, lengths)


def test_quantiles_do_not_cross() -> None:
    model = made("forecast")
    y = model.predict(VECTORS)
    assert y.shape == (B, 2, 3)
    assert (np.diff(y, axis=-1) >= 0).all()


def test_probabilities() -> None:
    for name in ("classes of vectors", "labels"):
        model = made(name)
        shares = model.predict(VECTORS, LENGTHS)
        assert shares.shape == ((B, C) if name != "labels" else (T, B, C))
        assert shares.sum(-1) == pytest.approx(np.ones(shares.shape[:-1]))
        alone = model.predict(VECTORS[:2, 1:2])
        expected = shares[1] if name != "labels" else shares[:2, 1]
        assert np.squeeze(alone) == pytest.approx(expected, abs=1e-12)


# --- sequences ---


def test_symbols() -> None:
    words = models.Symbols.of([["b", "a"], ["c", "a"]])
    assert words.symbols == ["a", "b", "c"]
    assert len(words) == 4
    assert words.encode(["c", "a"]).tolist() == [3, 1]
    assert words.decode([3, 0, 1]) == ["c", "a"]
    assert words.encode("xa", unknown=0).tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"^sequence: expected known symbols, got 'x'"):
        words.encode("ax")
    with pytest.raises(ValueError, match=r"^symbols: expected each once"):
        models.Symbols("aba")


def test_padding() -> None:
    x, lengths = models.pad([[1, 2, 3], [4]])
    assert x.T.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert lengths.tolist() == [3, 1]
    x, lengths = models.pad([np.ones((2, 4), np.float32), np.zeros((0, 4), np.float32)])
    assert (x.shape, x.dtype, lengths.tolist()) == ((2, 2, 4), np.float32, [2, 0])
    with pytest.raises(ValueError, match=r"^sequences: expected at least one, got none"):
        models.pad([])
    with pytest.raises(ValueError, match=r"^sequences: expected steps of one shape, got"):
        models.pad([np.ones((2, 4)), np.ones((2, 3))])


def test_marks() -> None:
    read, wanted, ends = marked(np.array([[1, 2], [3, 9]]), np.array([2, 1]), batch=2, vocabulary=4)
    assert read.T.tolist() == [[0, 1, 3], [0, 2, 0]]
    assert wanted.T.tolist() == [[1, 3, 0], [2, 0, 0]]
    assert ends.tolist() == [3, 2]


def test_models_are_modules() -> None:
    assert all(issubclass(getattr(models, name), nn.Module) for name in (
        "CharModel", "Classifier", "Tagger", "Forecaster", "Captioner", "Sketcher", "Seq2Seq"
    ))  # fmt: skip
