"""Runs parts of work one after the other within a time limit, and keeps what each one leaves.

A part is a command. It may fail or take too long without ending the session; what it wrote is on
the disk by then, and so is the record of all parts before it. Parts of the background all begin
with the first one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

# Lines of the summary in all, and seconds that a part needs to be worth a start.
MOST_LINES = 60
LEAST_SECONDS = 5.0
# Between one request to end and the next, more forceful one.
GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Part:
    """One command.

    `command` gets the seconds that the part has: `most`, or what is left of the session but for
    the seconds that it `leaves` to later parts. It runs only after the parts named in `needs` have
    succeeded, and in the `background` beside all others, which cannot need it. `summarise` makes
    lines of its output.
    """

    name: str
    command: Callable[[float], Sequence[str]]
    most: float
    needs: tuple[str, ...] = ()
    summarise: Callable[[str], list[str]] = lambda text: last_lines(text, 6)
    background: bool = False
    leaves: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What became of a part: `ok`, `failed`, `out of time` or `skipped`, and a word on it."""

    name: str
    status: str
    seconds: float = 0.0
    message: str = ""
    lines: list[str] = field(default_factory=list)


def run_parts(
    parts: Sequence[Part],
    folder: Path,
    limit: float,
    environment: Mapping[str, str] | None = None,
    now: Callable[[], float] = time.monotonic,
    saved: Callable[[Sequence[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """Run what the limit (in seconds) leaves time for, and return it in the order of its ends.

    After each part session.json is written in `folder`, where the logs are, and `saved` is called.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = now()
    outcomes: list[Outcome] = []
    logs = {part.name: folder / f"{number}-{part.name}.log" for number, part in enumerate(parts)}

    def end(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(f"{now() - started:6.1f} s  {outcome.name}: {outcome.status}", flush=True)
        _save(outcomes, folder)
        saved(outcomes)

    beside = [part for part in parts if part.background]
    with ThreadPoolExecutor(max(len(beside), 1)) as pool:
        running = [
            pool.submit(_run, part, min(part.most, limit), logs[part.name], environment, now)
            for part in beside
        ]
        for part in parts:
            if part.background:
                continue
            left = limit - (now() - started) - part.leaves
            end(
                _blocked(part, outcomes, left)
                or _run(part, min(part.most, left), logs[part.name], environment, now)
            )
            running = _collected(running, end)
        for future in running:
            end(future.result())
    return outcomes


def _collected(
    running: Sequence[Future[Outcome]], end: Callable[[Outcome], None]
) -> list[Future[Outcome]]:
    """Those that still run; of the others `end` gets what they found."""
    ended = [future for future in running if future.done()]
    for future in ended:
        end(future.result())
    return [future for future in running if future not in ended]


def _blocked(part: Part, outcomes: Sequence[Outcome], left: float) -> Outcome | None:
    """Why the part does not run, None where it can."""
    succeeded = {outcome.name for outcome in outcomes if outcome.status == "ok"}
    missing = [name for name in part.needs if name not in succeeded]
    if missing:
        return Outcome(part.name, "skipped", message=f"needs {', '.join(missing)}")
    if left < LEAST_SECONDS:
        return Outcome(part.name, "skipped", message="no time left")
    return None


def _run(
    part: Part,
    seconds: float,
    log: Path,
    environment: Mapping[str, str] | None,
    now: Callable[[], float],
) -> Outcome:
    started = now()
    with log.open("w", encoding="utf-8") as output:
        try:
            process = subprocess.Popen(
                list(part.command(seconds)),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=None if environment is None else dict(environment),
                start_new_session=True,  # so that what it started ends with it
            )
        except OSError as error:
            return Outcome(part.name, "failed", message=str(error))
        try:
            code = process.wait(seconds)
            status, message = ("ok", "") if code == 0 else ("failed", f"exit code {code}")
        except subprocess.TimeoutExpired:
            _end(process)
            status, message = "out of time", f"ended after {seconds:.0f} s"
    text = log.read_text(encoding="utf-8", errors="replace")
    return Outcome(part.name, status, round(now() - started, 1), message, part.summarise(text))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started; asked as by a user, pytest says what it found."""
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _save(outcomes: Sequence[Outcome], folder: Path) -> None:
    partial = folder / "session.partial"
    records = [asdict(outcome) for outcome in outcomes]
    partial.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / "session.json")


def archive(folder: Path, out: Path) -> None:
    """Replace the archive `out` (tar.gz) by one of the folder's files as they are now."""
    partial = out.with_name(out.name + ".partial")
    with tarfile.open(partial, "w:gz") as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file.add(path, str(path.relative_to(folder)))
    partial.replace(out)


def summary(outcomes: Sequence[Outcome], most: int = MOST_LINES) -> list[str]:
    """A line a part, then each part's own lines, all together at most so many.

    Where there are too many, the longest parts lose lines first.
    """
    heads = [
        f"{o.name}: {o.status}, {o.seconds:.0f} s" + (f": {o.message}" if o.message else "")
        for o in outcomes
    ]
    bodies = [list(o.lines) for o in outcomes]
    cut = [0] * len(bodies)

    def total() -> int:
        return len(heads) + sum(map(len, bodies)) + sum(n > 0 for n in cut)

    while total() > most and any(bodies):
        longest = max(range(len(bodies)), key=lambda n: len(bodies[n]))
        bodies[longest].pop()
        cut[longest] += 1
    lines = []
    for head, body, lost in zip(heads, bodies, cut, strict=True):
        lines += [head, *(f"  {line}" for line in body)]
        lines += [f"  ... {lost} more lines in the log"] if lost else []
    return lines


def last_lines(text: str, count: int, width: int = 180) -> list[str]:
    """The last lines that are not empty, none too long."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return [line[:width] for line in lines[-count:]]
