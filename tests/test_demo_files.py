"""What the demo reads and writes: no path costs a file that was there, or what was trained."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo_support import QUICK, SMALL, write_corpus
from fusedrnn.cli import demo, reading
from fusedrnn.cli import run as runs
from fusedrnn.cli.demo import main

PROGRAM = [sys.executable, "-m", "fusedrnn", "demo"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    return write_corpus(folder)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def begins(*_arguments: Any) -> None:
        pytest.fail("the training has begun")

    monkeypatch.setattr(demo, "train", begins)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    """What may stand at a path without being a file, each also behind a symbolic link."""
    with contextlib.ExitStack() as stack:
        folder, fifo, bound = (tmp_path / name for name in ("folder", "fifo", "socket"))
        folder.mkdir()
        os.mkfifo(fifo)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)  # the address of a socket is short
            listener.bind("socket")
        ours, theirs = os.openpty()  # a device that nobody needs
        stack.callback(os.close, ours)
        stack.callback(os.close, theirs)
        paths = {
            "folder": folder,
            "FIFO": fifo,
            "socket": bound,
            "device": Path(os.ttyname(theirs)),
        }
        for name, path in list(paths.items()):
            paths[f"link to a {name}"] = tmp_path / f"link to {name}"
            paths[f"link to a {name}"].symlink_to(path)
        yield paths


KINDS = [f"{link}{kind}" for link in ("", "link to a ") for kind in ("folder", "FIFO", "socket")]
KINDS += ["device", "link to a device"]


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, *arguments]) == 2
    output = capsys.readouterr()
    assert output.err == f"fusedrnn demo: {message}\n"
    assert output.out == ""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Saving


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_replaced(
    kind: str, paths: dict[str, Path], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = paths[kind]
    before, link = path.stat(), path.lstat()
    what = kind.removeprefix("link to a ")
    message = f"--save {path}: expected a file, got a {what}"
    refused(["--text", str(corpus), "--save", str(path)], message, capsys)
    assert os.path.samestat(path.stat(), before)
    assert os.path.samestat(path.lstat(), link)


def relative(path: Path) -> Path:
    return Path(os.path.relpath(path))


def roundabout(path: Path) -> Path:
    return path.parent / ".." / path.parent.name / path.name


def symbolic(path: Path) -> Path:
    link = path.with_name("symbolic")
    link.symlink_to(path)
    return link


def hard(path: Path) -> Path:
    link = path.with_name("hard")
    link.hardlink_to(path)
    return link


def through_a_folder(path: Path) -> Path:
    link = path.parent.with_name("other")
    link.symlink_to(path.parent)
    return link / path.name


def descriptor(path: Path) -> Path:
    return Path(f"/dev/fd/{os.open(path, os.O_RDONLY)}")  # until the process ends


def same(path: Path) -> Path:
    return path


SPELLINGS = [same, relative, roundabout, symbolic, hard, through_a_folder, descriptor]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize("option", ["--text", "--save"])
def test_the_text_is_not_replaced(
    spell: Callable[[Path], Path], option: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = corpus.read_bytes()
    files = {"--text": corpus, "--save": corpus, option: spell(corpus)}
    message = f"--save {files['--save']}: expected another file than --text {files['--text']}"
    arguments = ["--text", str(files["--text"]), "--save", str(files["--save"])]
    refused(arguments, message, capsys)
    assert corpus.read_bytes() == before


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_the_file_of_the_output_is_not_replaced(stream: str, corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "output"
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with open(path, "w") as file:
        command = [*PROGRAM, *QUICK, "--text", str(corpus), "--save", str(path)]
        failed = subprocess.run(command, check=False, text=True, **{**streams, stream: file})
    assert failed.returncode == 2
    written = (failed.stderr or "") + path.read_text()
    expected = "expected another file than the output goes to"
    assert written == f"fusedrnn demo: --save {path}: {expected}\n"


PLACES = [
    ("/proc/model.safetensors", "cannot write in /proc: No such file or directory"),
    ("/proc/self/comm", "cannot write in /proc/{pid}: No such file or directory"),
    ("{tmp}/none/model.safetensors", "there is no folder {tmp}/none"),
    ("{tmp}/dangling", "there is no folder {tmp}/none"),
    ("{tmp}/file/model.safetensors", "Not a directory"),
    ("{tmp}/loop", "Too many levels of symbolic links"),
    ("{tmp}/" + 300 * "n", "File name too long"),
]


@pytest.mark.usefixtures("no_training")
@pytest.mark.skipif(sys.platform != "linux", reason="words and /proc as Linux has them")
@pytest.mark.parametrize(("place", "message"), PLACES)
def test_a_place_where_nothing_can_be_written(
    place: str, message: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "none" / "model.safetensors")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    before = names(tmp_path)
    path = place.format(tmp=tmp_path)
    expected = f"--save {path}: {message.format(tmp=tmp_path, pid=os.getpid())}"
    refused(["--text", str(corpus), "--save", path], expected, capsys)
    assert names(tmp_path) == before


# Root may write everywhere, so it becomes another user, who may not even read what is not imported
# yet: a first run imports all of it.
AS_ANOTHER = """
import os, sys
from fusedrnn.cli.demo import main
*options, path, other = sys.argv[1:]
assert main([*options, "--save", other]) == 0
if os.geteuid() == 0:
    os.setuid(65534)
sys.exit(main([*options, "--save", path]))
"""


@pytest.mark.parametrize("protected", ["file", "folder"])
def test_what_is_protected(protected: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies where nobody else gets
        (root := Path(name)).chmod(0o755)
        corpus, folder = write_corpus(root), root / "models"
        folder.mkdir()
        path = folder / "model.safetensors"
        path.write_text("the file before")
        path.chmod(0o444 if protected == "file" else 0o666)
        folder.chmod(0o555 if protected == "folder" else 0o777)
        options = [*QUICK, "--text", str(corpus), "--steps", "0", str(path), str(root / "other")]
        failed = subprocess.run(
            [sys.executable, "-c", AS_ANOTHER, *options],
            check=False,
            capture_output=True,
            text=True,
        )
        where = "" if protected == "file" else f"cannot write in {folder}: "
        expected = f"fusedrnn demo: --save {path}: {where}Permission denied\n"
        assert (failed.returncode, failed.stderr) == (2, expected)
        assert failed.stdout.count("model: ") == 1
        assert path.read_text() == "the file before"
        assert names(folder) == ["model.safetensors"]
        folder.chmod(0o755)


# From nothing at all to all but the file's last bytes.
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_disk_too_small_is_noticed_before_the_training(
    share: float, cell: str, corpus: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    path = folder / "model.safetensors"
    command = [*QUICK, "--text", str(corpus), "--cell", cell, "--steps", "1", "--save", str(path)]
    assert main(command) == 0
    before = path.read_bytes()
    limit = int(share * len(before))
    # A limit of the process on the size of files stands for the disk.
    limited = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
        "from fusedrnn.cli.demo import main; sys.exit(main())"
    )
    failed = subprocess.run(
        [sys.executable, "-c", limited, *command], check=False, capture_output=True, text=True
    )
    assert failed.returncode == 2
    reason = f"cannot write in {folder}: File too large"
    assert failed.stderr == f"fusedrnn demo: --save {path}: {reason}\n"
    assert failed.stdout == ""
    assert path.read_bytes() == before
    assert names(folder) == ["model.safetensors"]


def test_a_disk_that_fills_up_leaves_the_old_file_and_shows_the_results(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    path = folder / "model.safetensors"
    path.write_text("the file before")

    def fill_up(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    trained = demo.train

    def train_then_fill_up(*arguments: Any) -> demo.Report:
        monkeypatch.setattr(os, "fsync", fill_up)
        return trained(*arguments)

    monkeypatch.setattr(demo, "train", train_then_fill_up)
    arguments = [*QUICK, "--text", str(corpus), "--steps", "2", "--save", str(path)]
    assert main(arguments) == 2
    output = capsys.readouterr()
    reason = f"cannot write in {folder}: No space left on device"
    assert output.err == f"fusedrnn demo: --save {path}: {reason}\n"
    assert "validation:" in output.out
    assert path.read_text() == "the file before"
    assert names(folder) == ["model.safetensors"]


def test_a_target_that_became_a_fifo_meanwhile(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    path = folder / "model.safetensors"

    trained = demo.train

    def train_then_make_a_fifo(*arguments: Any) -> demo.Report:
        os.mkfifo(path)
        return trained(*arguments)

    monkeypatch.setattr(demo, "train", train_then_make_a_fifo)
    arguments = [*QUICK, "--text", str(corpus), "--steps", "2", "--save", str(path)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fusedrnn demo: --save {path}: expected a file, got a FIFO; the model")
    assert stat.S_ISFIFO(path.stat().st_mode)
    # What was trained is whole, where the message says.
    kept = Path(error.strip().partition("the model is in ")[2])
    assert runs.load("--load", kept).update == 2


def test_a_file_that_cannot_be_replaced(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    replace, path = os.replace, tmp_path / "model.safetensors"

    def busy(source: Path, target: Path) -> None:
        if target == path:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        replace(source, target)

    path.write_text("the file before")
    monkeypatch.setattr(os, "replace", busy)
    arguments = [*QUICK, "--text", str(corpus), "--steps", "2", "--save", str(path)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fusedrnn demo: --save {path}: Device or resource busy; the model is")
    assert path.read_text() == "the file before"
    kept = Path(error.strip().partition("the model is in ")[2])
    assert runs.load("--load", kept).update == 2


@pytest.mark.parametrize("name", ["model.safetensors", 255 * "n"], ids=["short", "longest"])
def test_a_replaced_file_keeps_its_links_and_its_mode(
    name: str, corpus: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    path, link = folder / name, tmp_path / "link.safetensors"
    path.write_text("the file before")
    path.chmod(0o640)
    link.symlink_to(path)
    arguments = [*QUICK, "--text", str(corpus), "--steps", "2", "--save", str(link)]
    assert main(arguments) == 0
    assert link.is_symlink()
    assert runs.load("--load", path).update == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(folder) == [name]


def test_a_new_file_has_the_mode_of_any_new_file(corpus: Path, tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "model.safetensors"
    other.touch()
    assert main([*QUICK, "--text", str(corpus), "--steps", "1", "--save", str(path)]) == 0
    assert path.stat().st_mode == other.stat().st_mode


# An output that ends during the training


def test_results_that_nobody_reads_cost_no_model(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    options = [*QUICK, "--text", str(corpus), "--steps", "30", "--save", str(path)]
    with subprocess.Popen(
        [*PROGRAM, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"text: ")
        assert process.stdout.readline().startswith(b"model: ")
        process.stdout.close()
        assert process.stderr.read() == b"fusedrnn: standard output: Broken pipe\n"
        assert process.wait(timeout=60) == 2
    assert runs.load("--load", path).update == 30


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-"])
def test_progress_that_cannot_be_shown_costs_no_model(
    redirected: str, corpus: Path, tmp_path: Path
) -> None:
    if redirected == "2>/dev/full" and not Path("/dev/full").is_char_device():
        pytest.skip("this system has no /dev/full")
    path = tmp_path / "model.safetensors"
    options = [*SMALL, "--text", str(corpus), "--steps", "30", "--save", str(path)]
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirected}', "sh", *PROGRAM, *options],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "generated:" in done.stdout
    assert runs.load("--load", path).update == 30


# Reading


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("option", "kind", "message"),
    [
        ("--text", "folder", "Is a directory"),
        ("--text", "socket", "No such device or address"),
        ("--load", "folder", "expected a file, got a folder"),
        ("--load", "FIFO", "expected a file, got a FIFO"),
        ("--load", "socket", "expected a file, got a socket"),
        ("--load", "link to a device", "expected a file, got a device"),
    ],
)
def test_what_cannot_be_read(
    option: str,
    kind: str,
    message: str,
    paths: dict[str, Path],
    corpus: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--text", str(corpus), option, str(paths[kind])]
    refused(arguments, f"{option} {paths[kind]}: {message}", capsys)


@pytest.mark.usefixtures("no_training")
def test_a_checkpoint_that_is_missing(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.safetensors"
    message = f"--load {path}: No such file or directory"
    refused(["--text", str(corpus), "--load", str(path)], message, capsys)


@pytest.mark.usefixtures("no_training")
@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="this system has no /dev/zero")
def test_a_text_of_zeros_without_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    message = "--text /dev/zero: expected a text file, got a binary one"
    refused(["--text", "/dev/zero"], message, capsys)


@contextlib.contextmanager
def written_to(path: Path, write: Callable[[int], None]) -> Iterator[None]:
    """Let a thread write to a FIFO until its reader leaves."""
    os.mkfifo(path)

    def feed() -> None:
        writer = os.open(path, os.O_WRONLY)
        try:
            write(writer)
        except BrokenPipeError:
            pass
        finally:
            os.close(writer)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        # Where nobody read, the thread still waits for a reader.
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        thread.join()


@pytest.mark.usefixtures("no_training")
def test_a_text_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def endless(writer: int) -> None:
        while True:
            os.write(writer, b"words without an end\n" * 1000)

    monkeypatch.setattr(reading, "MAX_BYTES", 3_000_000)
    path = tmp_path / "fifo"
    with written_to(path, endless):
        message = f"--text {path}: expected at most 3,000,000 bytes, got more"
        refused(["--text", str(path)], message, capsys)


@pytest.mark.parametrize("excess", [0, 1])
def test_the_limit_of_a_text(
    excess: int, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", corpus.stat().st_size - excess)
    monkeypatch.setattr(reading, "READ_BYTES", 1000)
    assert main([*QUICK, "--text", str(corpus), "--steps", "0"]) == 2 * excess
    assert ("got more" in capsys.readouterr().err) == bool(excess)


def test_a_text_may_come_through_a_pipe(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def results(path: Path) -> str:
        assert main([*QUICK, "--text", str(path), "--steps", "2"]) == 0
        return capsys.readouterr().out.removeprefix(f"text: {path}, ")

    def write(writer: int) -> None:
        with open(writer, "wb", closefd=False) as file:
            file.write(corpus.read_bytes())

    fifo = tmp_path / "fifo"
    with written_to(fifo, write):
        piped = results(fifo)
    assert piped == results(corpus)


def test_a_text_may_come_from_standard_input(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(corpus, "rb") as file:
        piped = subprocess.run(
            [*PROGRAM, *QUICK, "--text", "-", "--steps", "2"],
            check=False, stdin=file, capture_output=True, text=True,
        )  # fmt: skip
    assert (piped.returncode, piped.stderr) == (0, "")
    assert main([*QUICK, "--text", str(corpus), "--steps", "2"]) == 0
    usual = capsys.readouterr().out
    assert piped.stdout.removeprefix("text: -") == usual.removeprefix(f"text: {corpus}")
