"""README keeps its word: its examples run, commands and links exist, figures are measured ones."""

from __future__ import annotations

import ast
import builtins
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from bench.records import load_runs
from bench.summary import class_summaries, geometric_mean, tables
from fusedrnn.__main__ import main
from pages import Block, blocks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

#: Examples that are not run, by their section, and why.
NOT_RUN = {"On a GPU": "takes arrays of PyTorch, CuPy or JAX on a CUDA device, and makes some"}

BLOCKS = blocks(README)
PYTHON = [block for block in BLOCKS if block.language == "python"]
RUN = [block for block in PYTHON if block.section not in NOT_RUN]


def assumed() -> dict[str, Any]:
    """What the examples take for given: a GRU's weights, a gradient, flags, the input of a step."""
    rng = np.random.default_rng(1)

    def array(*shape: int) -> Any:
        return 0.1 * rng.standard_normal(shape, dtype=np.float32)

    T, B, I, H = 100, 8, 40, 256  # noqa: E741
    return {
        "w_ih": array(3 * H, I),
        "w_hh": array(3 * H, H),
        "b_ih": array(3 * H),
        "b_hh": array(3 * H),
        "h0": array(B, H),
        "done": rng.random((T, B)) < 0.05,
        "dy": array(T, B, H),
        "x_t": array(B, I),
    }


def names(code: str) -> tuple[set[str], set[str]]:
    """Return the names that are read and those that are bound."""
    read, bound = set(), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {alias.asname or alias.name for alias in node.names}
    return read, bound


# Python


def test_the_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # one writes a file
    namespace = assumed()
    for block in RUN:
        exec(compile(block.code, "README.md", "exec"), namespace)
        # What a comment says of the results.
        if "grads[" in block.code:
            assert {"x", "h0", "c0"} <= set(namespace["grads"])
        if ".save(" in block.code:
            assert (tmp_path / "model.frnn").is_file()


def test_the_examples_assume_nothing_else() -> None:
    known, missing = set(dir(builtins)), set()
    for block in RUN:
        for statement in ast.parse(block.code).body:
            read, bound = names(ast.unparse(statement))
            missing |= read - known - bound
            known |= bound
    assert missing == set(assumed())


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"line {block.line}")
def test_an_example_that_is_not_run_has_a_reason(block: Block) -> None:
    read, _ = names(block.code)  # its syntax is checked in any case
    assert read
    if block.section in NOT_RUN:
        pytest.skip(f"README, line {block.line}: {NOT_RUN[block.section]}")


def test_there_are_examples_to_run() -> None:
    assert len(RUN) >= 3
    assert {block.section for block in PYTHON} - {block.section for block in RUN} == set(NOT_RUN)


def test_weights_of_pytorch_are_taken() -> None:
    assert "`lstm.load_state_dict(torch_lstm.state_dict())`" in README
    torch = pytest.importorskip("torch")
    torch_lstm = torch.nn.LSTM(5, 4, num_layers=2, bidirectional=True)
    lstm = fr.LSTM(5, 4, num_layers=2, bidirectional=True)
    lstm.load_state_dict(torch_lstm.state_dict())
    assert np.array_equal(lstm.parameters()["weight_hh_l1"], torch_lstm.weight_hh_l1.detach())


def test_names_of_the_package_are_public() -> None:
    mentioned = set(re.findall(r"\bfr\.(\w+)", README))
    assert mentioned
    assert mentioned <= set(fr.__all__)


# Commands

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CMAKE = "".join(path.read_text(encoding="utf-8") for path in ROOT.rglob("csrc/**/CMakeLists.txt"))
CMAKE += (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """Return the words of all commands: whole blocks, and what prose has between backticks."""
    inline = re.findall(r"`((?:[A-Z_]+=\S+ )?(?:pip|python|pytest|cmake)(?: [^`\n]+)?)`", README)
    lines = [
        line
        for block in BLOCKS
        if block.language == "sh"
        for line in block.code.splitlines()
        if line
    ]
    return [shlex.split(part) for line in (*lines, *inline) for part in line.split("&&")]


def check_extras(requirement: str) -> None:
    assert requirement.partition("[")[0] in {".", "fusedrnn"}
    for extra in re.findall(r"\[(\w+)\]", requirement):
        assert re.search(rf"^{extra} = \[", PYPROJECT, re.MULTILINE), extra


def check(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    match words:
        case ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1", "torchrun", *options]:
            run = pytest.importorskip("torch.distributed.run")
            assert (ROOT / run.parse_args(options).training_script).is_file()
        case [setting, *rest] if "=" in setting:
            _, _, value = setting.partition("=")
            option = re.fullmatch(r"-D(FUSEDRNN_\w+)=(ON|OFF)", value)
            assert option, setting
            assert re.search(rf"\b{option[1]}\b", CMAKE), setting
            check(rest, capsys)
        case ["pip", "install", requirement]:
            check_extras(requirement)
        case ["python", "-m", "fusedrnn", command, *options]:
            assert main([command, "--help"]) == 0
            shown = capsys.readouterr().out
            for option in options:
                assert not option.startswith("-") or option in shown, option
        case ["python", "-m", "sphinx", source, _]:
            assert (ROOT / source / "conf.py").is_file()
        case ["python", script, *options]:
            source = (ROOT / script).read_text(encoding="utf-8")
            for option in options:
                assert not option.startswith("-") or f'"{option}"' in source, option
        case ["pytest", "-n", "auto"]:
            pass
        case _:
            pytest.fail(f"no rule for the command {shlex.join(words)}: write one here")


@pytest.mark.parametrize("words", commands(), ids=shlex.join)
def test_a_command_exists(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    check(words, capsys)


def test_there_are_commands() -> None:
    assert ["python", "-m", "fusedrnn", "demo"] in commands()
    assert ["python", "-m", "fusedrnn", "info"] in commands()


def test_variables_of_the_environment_are_read_by_the_sources() -> None:
    files = [*(ROOT / "csrc").rglob("*.cpp"), *(ROOT / "python").rglob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    mentioned = set(re.findall(r"\b(FUSEDRNN_[A-Z_]+)(?==|`)", README))
    variables = {name for name in mentioned if f"-D{name}" not in README}
    assert variables >= {"FUSEDRNN_NUM_THREADS", "FUSEDRNN_LOG", "FUSEDRNN_ISA"}
    for name in variables:
        assert f'"{name}"' in sources, name


# Links


def anchors(path: Path) -> set[str]:
    """Return the headings as GitHub turns them into anchors."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_a_link_leads_somewhere(link: str) -> None:
    if "://" in link:
        pytest.skip(f"{link}: tests ask nothing of the network")
    name, _, anchor = link.partition("#")
    page = ROOT / (name or "README.md")
    assert page.is_file()
    assert not anchor or anchor in anchors(page)


# Figures

RESULTS = ROOT / "bench" / "results"
CLASSES = {
    "inference, float32": "inference-f32",
    "inference, bfloat16": "inference-bf16",
    "training, float32": "training-f32",
    "training, bfloat16": "training-bf16",
    "one step, float32": "step",
}


def measured(folder: str, name: str) -> list[list[str]]:
    """Return the cells of each row of a committed table."""
    lines = (RESULTS / folder / f"{name}.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[0] in {"RNN", "GRU", "LSTM"}]


def test_ratios_are_those_of_the_committed_table() -> None:
    groups = tables(load_runs([RESULTS / "epyc-turin-2-cores.json"])[0].rows)
    known = {s.name: [f"{s.mean:.2f}", f"{s.lowest:.2f}"] for s in class_summaries(groups)}
    shown = re.findall(r"^\| ([\w ]+, \w+) \| ([\d.]+) \| ([\d.]+) \|$", README, re.MULTILINE)
    assert {CLASSES[name]: ratios for name, *ratios in shown} == {
        name: known[name] for name in CLASSES.values()
    }
    amx = tables(load_runs([RESULTS / "xeon-granite-rapids-2-cores.json"])[0].rows)
    of_amx = {s.name: s for s in class_summaries(amx)}
    *means, last_mean = (f"{of_amx[name].mean:.2f}" for name in CLASSES.values())
    *lows, last_low = (f"{of_amx[name].lowest:.2f}" for name in CLASSES.values())
    assert f"the means are {', '.join(means)} and {last_mean}," in README
    assert f"the lowest {', '.join(lows)} and {last_low}." in README
    eager = {g.title: geometric_mean(g.ratios("pytorch").values()) for g in groups}
    lowest, highest = eager["inference, float32, 1 thread"], eager["step, float32, 2 threads"]
    said = rf"are {lowest:.1f} \(inference, one\s+thread\) to {highest:.1f} \(steps, two threads\)"
    assert re.search(said, README), said


def test_ratios_of_pytorch_and_jax_are_those_of_the_committed_tables() -> None:
    said = []
    for cell in ("LSTM", "RNN", "GRU"):
        found = [
            float(row[-1])
            for row in measured("torch_bridge", "epyc-turin-2-cores")
            if row[0] == cell
        ]
        said.append(rf"{min(found):.2g} to {max(found):.2g}\s+(times\s+)?\({cell}\)")
    for name in ("epyc-turin-1-core", "epyc-turin-2-cores"):
        rows = measured("jax_bridge", name)
        least = {r[0]: min(map(float, r[3:])) for r in rows if r[1] == "128, 32, 128"}
        said.append(rf"{least['RNN']:.1f}\s+\(RNN\)\s+to\s+{least['LSTM']:.1f}\s+times\s+\(LSTM\)")
    for text in said:
        assert re.search(text, README), text
