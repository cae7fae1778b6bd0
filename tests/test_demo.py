"""The demo: a language model learns, its gradients are right, wrong input is named."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn
from demo_support import QUICK, SMALL, cells, write_corpus
from fusedrnn.cli import characters, demo, loop, progress, reading
from fusedrnn.cli.characters import UNKNOWN, Streams, Vocabulary
from fusedrnn.cli.demo import main
from fusedrnn.cli.tasks.char_lm import CharLM


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def validation_bits(output: str) -> tuple[float, float]:
    found = re.search(r"^validation: ([\d.]+) .*entropy ([\d.]+)\)$", output, re.MULTILINE)
    assert found, output
    return float(found[1]), float(found[2])


# Text


def test_default_text_is_english_without_repeated_paragraphs() -> None:
    corpus = characters.default_text()
    assert len(corpus) > 200_000
    assert corpus.count(" the ") > 1000
    paragraphs = [" ".join(p.split()) for p in corpus.split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs)


def test_vocabulary_encodes_what_it_knows() -> None:
    vocabulary = Vocabulary.of("banana")
    assert vocabulary.characters == UNKNOWN + "abn"
    assert vocabulary.encode("nab?\U0001f600z").tolist() == [3, 1, 2, 0, 0, 0]
    assert vocabulary.encode("").tolist() == []


def test_vocabulary_keeps_the_most_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(characters, "MAX_VOCABULARY", 3)
    assert Vocabulary.of("zzzyyx" + UNKNOWN * 9).characters == UNKNOWN + "yz"


def test_normalise_unifies_typography() -> None:
    assert characters.normalise("\u201cit\u2019s\u201d\u2014\u2026") == '"it\'s"-...'


def test_byte_order_marks_and_carriage_returns_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "bom.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc")
    assert reading.read_text("--text", path) == "a\nb\nc"


def test_unigram_entropy_of_known_frequencies() -> None:
    assert characters.unigram_entropy(np.array([1, 2, 3, 4])) == 2.0
    assert characters.unigram_entropy(np.array([7, 7, 7])) == 0.0


def test_streams_go_on_from_chunk_to_chunk() -> None:
    streams = Streams(np.arange(27), batch=2, chunk=4)  # 13 inputs a stream: 3 chunks and a rest
    assert streams.chunks_per_pass == 3
    first, second = streams.at(0), streams.at(1)
    assert first[0][:, 1].tolist() == [13, 14, 15, 16]
    assert (first[2], second[2], streams.at(3)[2]) == (True, False, True)
    np.testing.assert_array_equal(second[0][0], first[0][-1] + 1)
    np.testing.assert_array_equal(first[1], first[0] + 1)
    np.testing.assert_array_equal(streams.at(3)[0], first[0])
    inputs, targets = zip(*streams.one_pass(), strict=True)
    assert np.concatenate(inputs)[:, 0].tolist() == list(range(13))
    assert np.concatenate(targets)[:, 1].tolist() == list(range(14, 27))


# Optimiser


def test_learning_rate_rises_then_falls() -> None:
    rates = [loop.learning_rate(1.0, step) for step in range(1, 1001)]
    top = rates.index(max(rates))
    assert max(rates) == 1.0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_memory_that_runs_out_is_named(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(demo, "train", fails)
    assert main([*QUICK, "--text", str(corpus)]) == 1
    assert capsys.readouterr().err == "fusedrnn demo: out of memory\n"


# Training from the command line


@cells
def test_training_learns(cell: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*QUICK, "--text", str(corpus), "--cell", cell, "--lr", "0.02"]
    assert main([*options, "--steps", "0"]) == 0
    untrained, unigram = validation_bits(capsys.readouterr().out)
    assert main([*options, "--steps", "150"]) == 0
    output = capsys.readouterr()
    learnt, _ = validation_bits(output.out)
    assert untrained > unigram
    assert learnt < unigram / 2
    assert output.err == ""
    assert re.search(r"^gradient norm: .* clipped to 40 in [\d.]+% of", output.out, re.MULTILINE)


def test_layers_stack_and_the_progress_shows_bits(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_TO_FIRST", 0.0)
    assert main([*SMALL, "--layers", "3", "--text", str(corpus), "--steps", "2"]) == 0
    output = capsys.readouterr()
    assert "layers 3" in output.out
    assert "bits/char" in output.err
    assert "characters/s" in output.err


def test_a_seed_gives_the_same_output_twice(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for seed in ("7", "7", "8"):
        assert main([*QUICK, "--text", str(corpus), "--steps", "5", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0].split("generated:")[1] != outputs[2].split("generated:")[1]


def test_threads_do_not_change_the_output(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Large enough for the work to be shared out.
    sizes = ["--hidden", "128", "--batch", "16", "--chunk", "32", "--steps", "4", "--quiet"]
    outputs, before = [], fusedrnn.get_num_threads()
    try:
        for threads in (1, 2):
            fusedrnn.set_num_threads(threads)
            assert main([*sizes, "--text", str(corpus)]) == 0
            outputs.append(capsys.readouterr().out)
    finally:
        fusedrnn.set_num_threads(before)
    assert outputs[0] == outputs[1]


def test_training_that_diverges_says_so_and_saves_nothing(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kept.safetensors"
    path.write_text("the file before")
    options = [*QUICK, "--text", str(corpus), "--lr", "1e38", "--steps", "200"]
    assert main([*options, "--save", str(path)]) == 1
    assert "diverged at update" in capsys.readouterr().err
    assert path.read_text() == "the file before"


# Generation


@pytest.mark.parametrize("temperature", [0.0, 1e-310, 0.5, 100.0])
def test_generated_text_is_of_the_vocabulary(temperature: float) -> None:
    defaults = {setting.name: setting.default for setting in CharLM.settings}
    task = CharLM(defaults | {"hidden": 4}, {"characters": Vocabulary.of("abcd").characters})
    task.model.out.bias[0] = 50.0  # the unknown character, however likely, is no character

    def written_at(temperature: float, seed: int) -> str:
        generator = np.random.default_rng(seed)
        return "".join(task.generate("", 200, generator, temperature=temperature))

    written = written_at(temperature, 0)
    assert len(written) == 200
    assert set(written) <= set("abcd")
    if temperature == 100.0:
        assert set(written) == set("abcd")
    if temperature == 1e-310:
        assert written == written_at(0.0, 1)


# Errors

OTHER_MARK = "expected UTF-8, got the byte-order mark of UTF-16 or UTF-32"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "too short: no character to train on"),
        (b"abc", "too short: 3 characters, 1 of them to train on; --batch 4 and --chunk 16 need"),
        (b"ab\0cd" * 100, "expected a text file, got a binary one"),
        (b"caf\xe9 " * 100, "expected UTF-8, got byte 0xe9 at offset 3"),
        (b"\xef\xbb\xbf", "too short: no character to train on"),
        (codecs.BOM_UTF16_LE + "abc".encode("utf-16-le") * 100, OTHER_MARK),
        (codecs.BOM_UTF16_BE + "abc".encode("utf-16-be") * 100, OTHER_MARK),
        (codecs.BOM_UTF32_LE + "abc".encode("utf-32-le") * 100, OTHER_MARK),
        (codecs.BOM_UTF32_BE + "abc".encode("utf-32-be") * 100, OTHER_MARK),
        (codecs.BOM_UTF16_LE, OTHER_MARK),
    ],
    ids=[
        *("missing", "empty", "short", "binary", "latin-1", "mark alone"),
        *("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "other mark alone"),
    ],
)
def test_a_text_that_cannot_be_used(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    assert main([*QUICK, "--text", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fusedrnn demo: --text {path}: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--hidden", "0", "expected an integer of at least 1, got '0'"),
        ("--steps", "-1", "expected an integer of at least 0, got '-1'"),
        ("--batch", "2.5", "expected an integer of at least 1, got '2.5'"),
        ("--lr", "nan", "expected a number above 0, got 'nan'"),
        ("--lr", "inf", "expected a number above 0, got 'inf'"),
        ("--clip", "0", "expected a number above 0, or inf, got '0'"),
        ("--temperature", "-1", "expected a number of at least 0, got '-1'"),
        ("--cell", "cfc", "expected one of rnn, gru, lstm, got 'cfc'"),
        ("--hid", "8", "unrecognized arguments: --hid 8; did you mean --hidden?"),
    ],
)
def test_a_wrong_option_is_named(
    option: str, value: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([option, value])
    assert stopped.value.code == 2
    assert wanted in capsys.readouterr().err


def test_no_clipping_with_an_infinite_limit(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUICK, "--text", str(corpus), "--steps", "3", "--clip", "inf"]) == 0
    assert "clipped to inf in 0.0% of" in capsys.readouterr().out
