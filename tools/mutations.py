"""Whether the Python tests find plausible mistakes: all put into one build, one made at a time.

Usage::

    python tools/mutations.py                # all of them, and the score into tools/mutations.md
    python tools/mutations.py --only 7,17    # some, for their results alone
    python tools/mutations.py --keep FILE    # results so far, written and read again
    python tools/mutations.py --check        # whether the list fits the code; nothing is built

`mutation_list` has the mistakes. The sources are copied to build/mutations, each place becomes
a choice between what stands there and the mistake, and FUSEDRNN_MUTATION=17 makes mistake 17. A
line that is no longer found is an error: the list belongs to the code as it is. A mistake is found
where a test fails, crashes, or does not come to an end. Those of the CUDA engine are looked for by
the GPU's tests over the emulator.

Needs what building the package and running its tests needs; pybind11 where Python finds it. With
FUSEDRNN_MUTATION=0 the tests must pass: those that do not pass are left out for all mistakes, and
named.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.mutation_list import MUTATIONS  # noqa: E402
from tools.mutation_list.mistake import Mutation  # noqa: E402

WORK = ROOT / "build" / "mutations"
SITE = WORK / "site"
VARIABLE = "FUSEDRNN_MUTATION"
COPIED = (
    "CMakeLists.txt",
    "pyproject.toml",
    "cmake",
    "csrc",
    "python",
    "tests/emulator",
    "tests/native",
)
EMULATED = "fusedrnn_cuda_emulated"
# Of the machine, the C library, the benchmarks or the tests themselves.
LEFT_OUT = re.compile(r"test_(bench|cuda_build|examples_native|gpu|oracle|hello)")
TEST = r"(tests/[^\s\[]+(?:\[.*?\])?)"  # in pytest's summary; parameters may have spaces
LIMIT = 900  # seconds for the tests of a mistake: one that hangs is found

PREAMBLE = 'extern "C" int fusedrnn_mutation;\n'
SWITCH = f"""\
#include <cstdlib>

extern "C" int fusedrnn_mutation;
int fusedrnn_mutation = [] {{
  const char* number = std::getenv("{VARIABLE}");
  return number == nullptr ? 0 : std::atoi(number);
}}();
"""
PYTHON_SWITCH = f"""\
import os

NUMBER = int(os.environ.get("{VARIABLE}", "0"))
"""
PYTHON_IMPORT = "from fusedrnn._mutation import NUMBER as _mutation\n"


class StaleError(Exception):
    """A mistake whose line is not in its file, or not once."""


# --- one build with all of them ---


def switched(number: int, mutation: Mutation) -> str:
    """The line with a choice in the place of what is right."""
    line, right, wrong = mutation.line, mutation.right, mutation.wrong
    if line.count(right) != 1:
        raise StaleError(f"{number}: {right!r} is not once in {line!r}")
    if mutation.statement and right != line:
        raise StaleError(f"{number}: a statement is the whole line")
    if mutation.file.endswith(".py"):
        if mutation.statement:
            raise StaleError(f"{number}: mistakes in Python are expressions")
        choice = f"(({wrong}) if _mutation == {number} else ({right}))"
    elif mutation.statement:
        return f"if (::fusedrnn_mutation == {number}) {{ {wrong} }} else {{ {right} }}"
    else:
        choice = f"(::fusedrnn_mutation == {number} ? ({wrong}) : ({right}))"
    return line.replace(right, choice)


def with_switches(file: str, text: str, stale: list[str]) -> str:
    """The text of a file with its mistakes as choices; those that do not fit go to `stale`."""
    chosen: dict[str, str] = {}
    for number, mutation in enumerate(MUTATIONS, 1):
        if mutation.file != file:
            continue
        found = [line for line in text.splitlines() if line.strip() == mutation.line]
        if len(found) != 1:
            problem = f"{number}: {file}: expected one line {mutation.line!r}, got {len(found)}"
            stale.append(problem)
            continue
        if mutation.line in chosen:
            raise StaleError(f"{number}: a line holds one mistake: {mutation.line!r}")
        chosen[mutation.line] = switched(number, mutation)
    lines = [
        line.replace(line.strip(), chosen[line.strip()]) if line.strip() in chosen else line
        for line in text.splitlines()
    ]
    if file.endswith(".py"):
        first = lines.index("from __future__ import annotations")
        lines.insert(first + 1, PYTHON_IMPORT.rstrip())
        return "\n".join(lines) + "\n"
    return PREAMBLE + "\n".join(lines) + "\n"


def write_if_new(path: Path, text: bytes) -> None:
    """Leave what is the same alone, so that it is not compiled again."""
    if path.exists() and path.read_bytes() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)


def mutated_tree() -> Path:
    """The sources with all mistakes, in a copy; what is the same in it stays untouched."""
    tree = WORK / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "-z", *COPIED], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    files = [name for name in listed.split("\0") if name]
    mutated = {mutation.file for mutation in MUTATIONS}
    unknown = mutated.difference(files)
    if unknown:
        raise StaleError(f"no such files: {', '.join(sorted(unknown))}")
    contents = {}
    stale: list[str] = []
    for name in files:
        contents[name] = (ROOT / name).read_bytes()
        if name in mutated:
            contents[name] = with_switches(name, contents[name].decode(), stale).encode()
    if stale:
        raise StaleError("\n".join(stale))
    for library in ("core", "cuda"):  # each has its own: they are not linked together
        contents[f"csrc/{library}/mutation.cpp"] = SWITCH.encode()
    contents["python/fusedrnn/_mutation.py"] = PYTHON_SWITCH.encode()
    for old in tree.rglob("*"):
        if old.is_file() and str(old.relative_to(tree)) not in contents:
            old.unlink()
    for name, data in contents.items():
        write_if_new(tree / name, data)
    return tree


def build(tree: Path, isas: str, jobs: int, *, cuda: bool) -> None:
    """Compile it, and lay the package out to be imported from SITE, the CUDA library beside it."""
    build_dir = WORK / "build"
    pybind11 = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"], check=True, capture_output=True, text=True
    ).stdout.strip()
    options = [
        "-DFUSEDRNN_PYTHON=ON",
        "-DFUSEDRNN_CUDA=OFF",
        f"-DFUSEDRNN_CUDA_EMULATOR={'ON' if cuda else 'OFF'}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_CXX_FLAGS=-w",  # a choice may mix types that the code keeps apart
        f"-Dpybind11_DIR={pybind11}",
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    if re.search(r"set\(FUSEDRNN_ISAS\b[^)]*CACHE", (tree / "CMakeLists.txt").read_text()):
        options.append(f"-DFUSEDRNN_ISAS={isas.replace(',', ';')}")
    subprocess.run(
        ["cmake", "-G", "Ninja", "-S", tree, "-B", build_dir, "--log-level=WARNING", *options],
        check=True,
    )
    targets = ["_core", EMULATED] if cuda else ["_core"]
    options = ["--build", str(build_dir), "--target", *targets, "--parallel", str(jobs)]
    subprocess.run(["cmake", *options, "--", "--quiet"], check=True)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.copytree(tree / "python" / "fusedrnn", SITE / "fusedrnn")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    shutil.copy(build_dir / f"_core{suffix}", SITE / "fusedrnn")
    if cuda:
        (library,) = build_dir.rglob(f"lib{EMULATED}.so")
        shutil.copy(library, SITE)


# --- the tests ---


def of_cuda(mutation: Mutation) -> bool:
    return mutation.file.startswith("csrc/cuda/")


def test_files(*, cuda: bool) -> list[str]:
    """All that could find a mistake, as paths from the root."""
    folder = "tests/gpu" if cuda else "tests"
    names = sorted(path.name for path in (ROOT / folder).glob("test_*.py"))
    return [f"{folder}/{name}" for name in names if cuda or not LEFT_OUT.match(name)]


class Tests:
    """Runs of pytest over the mutated package."""

    def __init__(self) -> None:
        self.deselected: list[str] = []

    def run(self, number: int, files: Sequence[str], *options: str) -> tuple[int | None, str]:
        """The exit status, None where time ran out, and what was printed."""
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=no", *options]
        command += [f"--deselect={test}" for test in self.deselected] + list(files)
        environment = os.environ | {VARIABLE: str(number), "PYTHONPATH": str(SITE)}
        if files[0].startswith("tests/gpu/"):
            command.append("--cuda=emulator")
            environment["FUSEDRNN_CUDA_LIBRARY"] = str(SITE / f"lib{EMULATED}.so")
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a hung child of a test goes with it
        ) as process:
            try:
                output, _ = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                output, _ = process.communicate()
                return None, output
        return process.returncode, output

    def finder(self, number: int, files: Sequence[str], *options: str) -> str | None:
        """The test that finds a mistake, "how" in brackets where it is not by failing; or None."""
        status, output = self.run(number, files, "-x", *options)
        if status == 0:
            return None
        failed = re.search(rf"^(?:FAILED|ERROR) {TEST}(?: - .*)?$", output, re.MULTILINE)
        if failed:
            return failed[1]
        reached = re.findall(r"tests/(?:gpu/)?test_\w+\.py", output)
        how = "hangs" if status is None else f"ends with status {status}"
        return f"{reached[-1] if reached else files[0]} ({how})"


def ordered(mutation: Mutation, files: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files where a mistake is likely to be found, and the others."""
    folder = "tests/gpu/test_gpu_" if of_cuda(mutation) else "tests/test_"
    likely = [f"{folder}{name}.py" for name in mutation.tests]
    unknown = [name for name in likely if name not in files]
    if unknown:
        raise StaleError(f"no such test files: {', '.join(unknown)}")
    return likely, [name for name in files if name not in likely]


def find(tests: Tests, number: int, files: Sequence[str], *, rest: bool) -> str | None:
    likely, others = ordered(MUTATIONS[number - 1], files)
    found = tests.finder(number, likely)
    if found is None and rest and others:
        # All of the GPU's would take longer than LIMIT: as many as CI runs.
        options = ["--every", "4"] if of_cuda(MUTATIONS[number - 1]) else []
        found = tests.finder(number, others, *options)
    return found


# --- the score ---


def key(mutation: Mutation) -> str:
    """What a result belongs to: as long as the mistake is the same."""
    return "\n".join((mutation.file, mutation.line, mutation.right, mutation.wrong))


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def table(results: dict[str, str | None], tests: Tests) -> Iterator[str]:
    """The score as a page of Markdown, line by line."""
    known = [m for m in MUTATIONS if m.equivalent or key(m) in results]
    counted = [m for m in known if not m.equivalent]
    found = [m for m in counted if results[key(m)] is not None]
    share = 100 * len(found) / max(1, len(counted))
    yield "# Mistakes that the tests find"
    yield ""
    yield "Written by `python tools/mutations.py`; `tools/mutation_list` has each mistake whole."
    yield ""
    yield (
        f"{len(found)} of {len(counted)} mistakes are found ({share:.0f} %); "
        f"{len(known) - len(counted)} more are equivalent: they change nothing that is promised."
    )
    if len(known) < len(MUTATIONS):
        yield f"\nPartial: {len(MUTATIONS) - len(known)} have not been tried."
    if tests.deselected:
        yield "\nLeft out, because they fail on that machine without a mistake:"
        yield ", ".join(f"`{test}`" for test in tests.deselected)
    yield ""
    yield "| | file | mistake | found by |"
    yield "|---|---|---|---|"
    for number, mutation in enumerate(MUTATIONS, 1):
        if mutation.equivalent:
            result = f"equivalent: {mutation.equivalent}"
        elif key(mutation) not in results:
            result = "not tried"
        else:
            by = results[key(mutation)]
            result = "**nothing**" if by is None else f"`{by.removeprefix('tests/')}`"
            result = re.sub(r"\[.*\]", "", result)  # the parameters of a test
        name = mutation.file.removeprefix("csrc/").removeprefix("python/")
        yield f"| {number} | {name} | {cell(mutation.why)} | {cell(result)} |"


def main(arguments: list[str]) -> int:
    """0 where every mistake that was tried is found."""
    parser = argparse.ArgumentParser(description="Which mistakes the Python tests find.")
    parser.add_argument("--only", default="", help="numbers of mistakes, as in 7,17")
    parser.add_argument("--likely", action="store_true", help="the likely test files alone")
    parser.add_argument("--isas", default="scalar,avx2", help="instruction sets to compile")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--keep", type=Path, help="a file of results, to go on from")
    parser.add_argument("--check", action="store_true", help="only whether the list fits the code")
    options = parser.parse_args(arguments)
    files = {cuda: test_files(cuda=cuda) for cuda in (False, True)}
    try:
        tree = mutated_tree()
        for mutation in MUTATIONS:
            ordered(mutation, files[of_cuda(mutation)])
    except StaleError as error:
        parser.error(f"tools/mutation_list does not fit the code:\n{error}")
    if options.check:
        print(f"{len(MUTATIONS)} mistakes fit the code")
        return 0
    numbers = [int(n) for n in options.only.split(",") if n] or range(1, len(MUTATIONS) + 1)
    kinds = {of_cuda(MUTATIONS[n - 1]) for n in numbers}
    build(tree, options.isas, options.jobs, cuda=True in kinds)

    kept: dict[str, str | None] = {}
    tests = Tests()
    if options.keep is not None and options.keep.exists():
        stored = json.loads(options.keep.read_text())
        kept, tests.deselected = stored["results"], stored["deselected"]
    else:
        together = importlib.util.find_spec("xdist") is not None
        for cuda in sorted(kinds):
            begin = time.monotonic()
            more = ["-n", str(options.jobs)] if together else []
            more += ["--every", "4"] if cuda else []
            status, output = tests.run(0, files[cuda], *more)
            if status not in (0, 1):
                raise SystemExit(f"the tests do not run without a mistake:\n{output}")
            failed = re.findall(rf"^FAILED {TEST}(?: - .*)?$", output, re.MULTILINE)
            tests.deselected += failed
            seconds = time.monotonic() - begin
            print(f"without a mistake: {output.splitlines()[-1]} ({seconds:.0f} s)")
            for test in failed:
                print(f"left out: {test}")

    lock = threading.Lock()

    def attempt(number: int) -> None:
        mutation = MUTATIONS[number - 1]
        begin = time.monotonic()
        by = find(tests, number, files[of_cuda(mutation)], rest=not options.likely)
        with lock:
            print(f"{number}: {by or 'NOTHING'} ({time.monotonic() - begin:.0f} s)", flush=True)
            if by is not None or not options.likely:
                kept[key(mutation)] = by
            if options.keep is not None:
                state = {"results": kept, "deselected": tests.deselected}
                options.keep.write_text(json.dumps(state, indent=1))

    wanted = [n for n in numbers if not MUTATIONS[n - 1].equivalent]
    if not options.only:
        wanted = [n for n in wanted if key(MUTATIONS[n - 1]) not in kept]
    with ThreadPoolExecutor(options.jobs) as workers:
        list(workers.map(attempt, wanted))
    if not options.only or options.keep is not None:
        page = "\n".join(table(kept, tests)) + "\n"
        (ROOT / "tools" / "mutations.md").write_text(page)
    return 0 if all(kept.get(key(MUTATIONS[n - 1])) for n in wanted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
