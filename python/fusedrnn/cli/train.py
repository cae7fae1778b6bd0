"""``python -m fusedrnn train TASK``: data and settings in, a results folder out."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fusedrnn
from fusedrnn.cli import configuration, loop, reading, results
from fusedrnn.cli import run as runs
from fusedrnn.cli.errors import CommandError
from fusedrnn.cli.interrupt import INTERRUPTED, ctrl_c_as_request
from fusedrnn.cli.parser import Parser, add_settings, nearest, path_of, shown
from fusedrnn.cli.run import Run
from fusedrnn.cli.tasks import TASKS, Source, Task

USAGE = """usage: python -m fusedrnn train TASK --data FILE [--config FILE.toml] [--out FOLDER] ...
       python -m fusedrnn train TASK --resume FOLDER

{tasks}

All options of one, with their defaults: python -m fusedrnn train TASK --help"""
NO_PICTURE = ", without a picture, which needs matplotlib: pip install 'fusedrnn[plot]'"


def main(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    if list(argv[:1]) in (["-h"], ["--help"]):
        print(USAGE.format(tasks="\n".join(f"  {t.name:10} {t.help}" for t in TASKS.values())))
        return 0
    if not argv or argv[0] not in TASKS:
        got = f"{argv[0]!r}{nearest(argv[0], TASKS)}" if argv else "none"
        print(
            f"fusedrnn train: expected a task, {', '.join(TASKS)}, got {got} (more: --help)",
            file=sys.stderr,
        )
        return 2
    task = TASKS[argv[0]]
    options = parser(task).parse_args(argv[1:])
    try:
        return _train(task, options)
    except (CommandError, MemoryError) as error:
        message = str(error) or "out of memory"
        print(f"fusedrnn train {task.name}: {message}", file=sys.stderr)
        return error.exit_status if isinstance(error, CommandError) else 1
    except KeyboardInterrupt:
        print(f"fusedrnn train {task.name}: interrupted", file=sys.stderr)
        return INTERRUPTED


def parser(task: type[Task]) -> argparse.ArgumentParser:
    """Build the parser of a task's options."""
    result = Parser(
        f"fusedrnn train {task.name}",
        usage=f"python -m fusedrnn train {task.name} (--data FILE | --resume FOLDER) [options]",
        description=f"Learn {task.help}. Options go before the settings of --config. Ctrl-C ends "
        "the training and keeps what was trained.",
    )
    files = result.add_argument_group("files and output")
    names = ["--data", "--text"] if task.name == "char-lm" else ["--data"]
    files.add_argument(*names, dest="data", type=path_of, metavar="FILE", help=task.data_help)
    files.add_argument("--config", type=path_of, metavar="FILE", help="settings, in TOML")
    files.add_argument(
        "--out",
        type=path_of,
        metavar="FOLDER",
        help=f"a new one, for the results (default: {results.DEFAULT}/{task.name}-1, -2, ...)",
    )
    files.add_argument("--resume", type=path_of, metavar="FOLDER", help="go on with its training")
    files.add_argument("--quiet", action="store_true", help="no progress")
    add_settings(result, task.settings)
    return result


def _train(task: type[Task], options: argparse.Namespace) -> int:
    given = {
        setting.name: getattr(options, setting.name)
        for setting in task.settings
        if getattr(options, setting.name) is not None
    }
    if options.config:
        found = configuration.read(options.config, task.name, task.settings)
        for place in ("data", "out"):
            value = found.pop(place, None)
            if value is not None and getattr(options, place) is None:
                setattr(options, place, Path(value))
        given = found | given
    with contextlib.ExitStack() as held:
        run, folder = (_resume if options.resume else _begin)(task, options, given, held)
        return _finish(run, folder, options.quiet)


def _begin(
    task: type[Task],
    options: argparse.Namespace,
    given: Mapping[str, Any],
    held: contextlib.ExitStack,
) -> tuple[Run, Path]:
    if options.data is None:
        raise CommandError("expected --data FILE, or --resume FOLDER, got neither")
    values = {setting.name: setting.default for setting in task.settings} | dict(given)
    source = Source.read("--data", options.data)
    data = task.parse(source, values)
    made = runs.build(task, values, task.learn(data, values))
    found = made.use(data)
    optimizer = fusedrnn.Adam(made.model.parameters())
    run = Run(made, optimizer, _absolute(options.data), source.fingerprint)
    # All that can be wrong with the files comes first: nothing trained is lost by it.
    folder = results.create(options.out, task.name)
    held.enter_context(results.alone("--out", folder))
    results.check_empty(folder)  # once more: another run may have been faster
    try:
        _write_config(folder, run)
        runs.save(folder / results.CHECKPOINT, run)
    except (CommandError, KeyboardInterrupt):
        with contextlib.suppress(OSError):
            for name in (results.CONFIG, results.CHECKPOINT):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()
        raise
    print(f"data: {options.data}, {found}")
    return run, folder


def _absolute(path: Path) -> str:
    name = str(path) if path == reading.STDIN else os.path.abspath(path)
    return name.encode(errors="replace").decode()  # not every name of a file is Unicode


def _resume(
    kind: type[Task],
    options: argparse.Namespace,
    given: Mapping[str, Any],
    held: contextlib.ExitStack,
) -> tuple[Run, Path]:
    folder: Path = options.resume
    if options.out is not None and options.out != folder:
        raise CommandError("expected --out or --resume, which goes on in its folder, got both")
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"--resume {folder}: expected a folder of train, got a file")
    held.enter_context(results.alone("--resume", folder))
    run = runs.load("--resume", folder / results.CHECKPOINT)
    task = run.task
    if task.name != kind.name:
        raise CommandError(f"--resume {folder}: expected a {kind.name}, got a {task.name}")
    values = dict(task.values)
    for setting in task.settings:
        value = given.get(setting.name, values[setting.name])
        if setting.fixed and value != values[setting.name]:
            raise CommandError(
                f"--{setting.name} {shown(value)}: "
                f"the run of --resume {folder} has {shown(values[setting.name])}"
            )
        values[setting.name] = value
    if values["steps"] < run.update:
        raise CommandError(
            f"--steps {values['steps']}: the run of --resume {folder} has done {run.update}"
        )
    task.values = values
    path = options.data or Path(run.source)
    if options.data is None and path == reading.STDIN:
        raise CommandError(f"--resume {folder}: its data came from standard input; give --data")
    source = Source.read("--data", path)
    if source.fingerprint != run.fingerprint:
        raise CommandError(f"--data {path}: expected the data of --resume {folder}, got others")
    found = task.use(task.parse(source, values))
    _write_config(folder, run)
    print(f"data: {path}, {found}")
    return run, folder


def _write_config(folder: Path, run: Run) -> None:
    places = {"task": run.task.name, "data": run.source}
    results.write(folder, results.CONFIG, configuration.write(places | dict(run.task.values)))


def _finish(run: Run, folder: Path, quiet: bool) -> int:
    task, steps = run.task, run.task.values["steps"]
    parameters = sum(value.size for value in task.model.parameters().values())
    so_far = f", {run.update} updates so far" if run.update else ""
    print(f"model: {task.model_words()}, {parameters:,} parameters{so_far}", flush=True)
    if run.update >= steps:
        print(f"all {steps} updates are done; --steps N for more")
        return 0
    with ctrl_c_as_request() as interrupt:
        outcome = loop.train(run, folder, interrupt, quiet)
    status = 0
    picture = None
    try:
        if run.rows:
            picture = results.draw(folder, run.rows, task.measure)
    except CommandError as error:
        outcome.failure = outcome.failure or error
        print(f"fusedrnn train {task.name}: {error}", file=sys.stderr)
    if outcome.failure:
        status = outcome.failure.exit_status
    if outcome.interrupted:
        status = INTERRUPTED
        if outcome.failure is None:
            print(
                f"interrupted after {run.update} of {steps} updates, all of them saved; to go on: "
                f"python -m fusedrnn train {task.name} --resume {folder}",
                file=sys.stderr,
            )
    elif run.rows:
        last = {name: value for name, value in run.rows[-1].items() if name != "speed"}
        words = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in last.items())
        baseline = task.baseline()
        print(f"{words} ({task.measure}{'; ' if baseline else ''}{baseline})")
    without = run.rows and not picture and outcome.failure is None
    print(f"results: {folder}{NO_PICTURE if without else ''}")
    return status
