"""bench/: records, and the page that is made from them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import machine, plots, report, run
from bench.peers import OURS, UnavailableError
from bench.records import Row, load_runs
from bench.scenarios import (
    Shape,
    flops,
)
from bench.summary import class_summaries, tables
from bench_support import TINY, sample_run


def test_json_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(sample_run().to_json())
    assert load_runs([path]) == [sample_run()]
    first = json.loads(path.read_text())["rows"][0]
    assert first["median"] == 0.002
    assert first["gflops"] == pytest.approx(flops("training", TINY) / 0.002 / 1e9)


def test_foreign_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "foreign.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"foreign\.json: not a result file: .*schema"):
        load_runs([path])
    assert report.main([str(path)]) == 2
    assert "foreign.json" in capsys.readouterr().err


def test_the_first_schema_is_still_read(tmp_path: Path) -> None:
    data = json.loads(sample_run().to_json()) | {"schema": 1, "command": "python bench/run.py"}
    data["settings"] = {"tolerance": 1e-5, "rounds": 5}
    del data["commands"], data["probes"]
    for row in data["rows"]:
        del row["p50"], row["p99"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(data))
    (old,) = load_runs([path])
    assert old == replace(sample_run(), probes={})
    assert "training-f32 | 1 | 4.00" in report.report({"old": old})


def test_committed_results_can_be_read() -> None:
    paths = sorted(run.RESULTS.glob("*.json"))
    assert paths
    runs = dict(zip((path.stem for path in paths), load_runs(paths), strict=True))
    text = report.report(runs)
    assert all(f"## {name}\n" in text for name in runs)


def test_merge_replaces_whole_cases() -> None:
    before = sample_run()
    again = [replace(row, peer="numpy") for row in before.rows[:1]]
    fresh = Row("step", Shape("rnn", 1, 1, 4), "float32", 1, OURS, "ok", "", 1e-7, (1e-6,), 1e-6, 9)
    later = replace(
        before,
        commands=("python bench/run.py --merge",),
        machine=before.machine | {"load_before": 0.5},
        peers={"numpy": {"version": "3"}},
        skipped={"jax": "jax is not installed"},
        gemm_gflops={1: 90.0, 2: 180.0},
        probes={1: {"l1_gbs": 310.0}},
        rows=(*again, fresh),
    )
    merged = before.merged(later)
    marks = {"date": before.created, "load": 0.1}
    kept = [replace(r, **marks, version=before.peers[r.peer]["version"]) for r in before.rows[2:]]
    assert merged.rows == (*kept, *again, fresh)
    assert later.merged(replace(later, rows=())).merged(later).rows == later.merged(later).rows
    assert merged.commands == (*before.commands, *later.commands)
    assert merged.skipped == {"jax": "jax is not installed"}  # numpy has come
    assert set(merged.peers) == {"fusedrnn", "pytorch", "numpy"}
    assert merged.gemm_gflops == {1: 100.0, 2: 180.0}
    assert merged.probes == {1: {"fma_gflops": 90.0, "l1_gbs": 310.0}}
    assert merged.machine["load_before"] == 0.5


def test_tables_say_the_cpu_and_when() -> None:
    assert ", 2 threads" not in (text := report.report({"a": sample_run()}))
    cpu = f"{machine.name(sample_run().machine)}, {machine.cores()} cores"
    assert f"\n{cpu}; measured 2026-11-21, load average 0.1.\n" in text
    dates = [("2026-11-30T10:00+00:00", 0.5), ("2026-12-01T10:00+00:00", 0.2)] * 2
    rows = [
        replace(row, date=date, load=load, version=f"{number % 2}")
        for number, (row, (date, load)) in enumerate(zip(sample_run().rows, dates, strict=True))
    ]
    text = report.report({"a": replace(sample_run(), rows=tuple(rows))})
    assert "; measured 2026-11-30 to 2026-12-01, load average 0.2 to 0.5.\n" in text
    assert "fusedrnn 0, pytorch 1\n" in text
    met = [replace(row, core_latency_ns=100.0 + 50 * number) for number, row in enumerate(rows[:2])]
    text = report.report({"a": replace(sample_run(), rows=(*met, *rows[2:]))})
    assert "load average 0.2 to 0.5, cores 100 to 150 ns apart.\n" in text
    met = [replace(row, cores=1.2 + 0.7 * number) for number, row in enumerate(met)]
    text = report.report({"a": replace(sample_run(), rows=(*met, *rows[2:]))})
    assert "100 to 150 ns apart, all threads 1.2 to 1.9 times as fast as one.\n" in text
    rows[2] = replace(rows[2], version="2")
    assert "fusedrnn 0 and 2," in report.report({"a": replace(sample_run(), rows=tuple(rows))})


@pytest.mark.parametrize(
    ("threads", "cores", "latency", "marked"),
    [
        (2, 1.69, 60.0, True),
        (2, 0.0, 60.0, True),
        (2, 1.71, 60.0, False),
        (4, 3.3, 60.0, True),
        (2, 1.9, 181.0, True),
        (2, 1.9, 179.0, False),
        (2, None, 181.0, True),  # as files once were
        (2, None, None, False),
    ],
)
def test_misplaced_threads_are_marked_against_the_nearest_of_the_file(
    threads: int, cores: float | None, latency: float | None, marked: bool
) -> None:
    rows = [
        Row("step", TINY, "float32", threads, peer, "ok", "", 1e-7, (1e-3,), 1e-3, 1)
        for peer in (OURS, "fusedrnn-int8-weights", "pytorch")
    ]
    rows = [replace(row, cores=cores, core_latency_ns=latency) for row in rows]
    near = Row("step", TINY, "bfloat16", 2, OURS, "ok", core_latency_ns=60.0)
    text = report.report({"a": replace(sample_run(), rows=(near, *rows))})
    table = text.partition(f"### Step, float32, {threads} threads\n")[2].partition("\n### ")[0]
    assert table.count("| LSTM 2, 2, 3 † |") == 2 * marked
    assert table.count("| LSTM 2, 2, 3 |") == 2 * (not marked)


def test_commands_are_shown_where_they_are_few() -> None:
    commands = tuple(f"python bench/run.py --shapes rnn:1,1,{h}" for h in range(5))
    few, many = (replace(sample_run(), commands=commands[:n]) for n in (2, 5))
    assert f"- Run: `{commands[0]}`; `{commands[1]}`, " in report.report({"a": few})
    assert "- Run: in 5 parts, whose commands stand in " in report.report({"a": many})


def test_cpus_stand_side_by_side() -> None:
    run = sample_run()
    facts = {"vendor_id": "AuthenticAMD", "cpu family": "25", "model": "1"}
    other = replace(
        run,
        machine=run.machine | {"cpu": "AMD EPYC", "family": facts, "cores": 8},
        rows=run.rows[:0],
    )
    text = report.report({"a": run, "b": other})
    here = f"{machine.name(run.machine)}, {machine.cores()} cores"
    assert f"| class | {here} | AMD EPYC Milan, 8 cores |" in text
    assert "| training-f32 | 4.00 (4.00) | - |" in text


def test_kinds_and_memory_have_tables_of_their_own() -> None:
    network = replace(TINY, layers=2)
    rows = [
        *sample_run().rows[:2],
        Row("training", network, "float32", 1, OURS, "ok", "", 1e-7, (0.001,), 0.001, 5),
        Row("training", network, "float32", 1, "pytorch", "ok", "", 1e-7, (0.002,), 0.002, 5),
        Row("memory", network, "float32", 1, OURS, "ok", peak=2_000_000),
        Row("memory", network, "float32", 1, "fusedrnn-lean", "ok", peak=500_000),
        Row("memory", TINY, "float32", 1, OURS, "ok", peak=1_000_000),
        Row("memory", network, "float32", 1, "pytorch", "ok", peak=3_000_000),
        Row("memory", network, "float32", 1, "openvino", "unsupported", "has no training"),
    ]
    found = tables(rows)
    assert [table.title for table in found] == [
        "training, float32, 1 thread",
        "training, networks, float32, 1 thread",
        "memory, float32, 1 thread",
    ]
    assert [(s.name, s.entries, s.mean) for s in class_summaries(found)] == [
        ("training-f32", 1, pytest.approx(4)),
        ("training-f32, networks", 1, pytest.approx(2)),
        ("memory", 1, pytest.approx(1.5)),
    ]
    text = report.report({"a": replace(sample_run(), rows=tuple(rows))})
    assert "| cell T, B, H | fusedrnn MB | pytorch MB | best peer | best/ours |\n" in text
    assert "| LSTM 2, 2, 3, 2 layers | 2.00 | 3.00 | pytorch | 1.50 |" in text
    assert "| LSTM 2, 2, 3, 2 layers | 2.00 | 0.500 |" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machine": {"cpu": "another", "cores": 2}}, "machine: expected"),
        ({"settings": {"tolerances": {"float32": 1e-5}, "rounds": 3}}, "settings: expected"),
    ],
)
def test_merge_refuses_what_cannot_be_compared(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_run().merged(replace(sample_run(), **change))


def test_ratios_leave_out_what_was_not_timed() -> None:
    (table,) = tables(sample_run().rows)
    assert table.title == "training, float32, 1 thread"
    assert table.ratios("pytorch") == {TINY: pytest.approx(4)}
    assert table.best_ratios() == {TINY: pytest.approx(4)}


def class_rows() -> list[Row]:
    """Step times in ms of four peers: two shapes on one thread, one of them on two."""
    times = {
        (TINY, 1): {OURS: 2.0, "fusedrnn-int8-weights": 0.1, "pytorch": 8.0, "openvino": 4.0},
        (TINY, 2): {OURS: 2.0, "fusedrnn-int8-weights": 0.1, "pytorch": 1.0, "openvino": 9.0},
        (Shape("gru", 1, 1, 8), 1): {OURS: 1.0, "pytorch": 4.0, "openvino": 5.0},
    }
    return [
        Row("step", shape, "float32", threads, peer, "ok", "", 1e-7, (ms / 1e3,), ms / 1e3, 1)
        for (shape, threads), peers in times.items()
        for peer, ms in peers.items()
    ]


def test_the_best_peer_of_each_entry_counts_and_variants_do_not() -> None:
    one, two = tables(class_rows())
    assert one.others == ["pytorch", "openvino"]
    assert one.extras == ["fusedrnn-int8-weights"]
    best = one.best(TINY)
    assert best is not None
    assert best.peer == "openvino"
    (found,) = class_summaries([one, two])
    assert found.name == "step"
    assert found.entries == 3
    assert found.mean == pytest.approx((2 * 0.5 * 4) ** (1 / 3))
    assert found.lowest == pytest.approx(0.5)
    assert found.where == "LSTM 2, 2, 3, 2 threads"
    assert found.peer == "pytorch"
    assert class_summaries([]) == []


def test_the_fastest_of_our_ways_counts() -> None:
    times = {OURS: 2.0, "fusedrnn-functions": 1.0, "openvino": 4.0}
    rows = [
        Row("inference", TINY, "float32", 1, peer, "ok", "", 1e-7, (ms / 1e3,), ms / 1e3, 1)
        for peer, ms in times.items()
    ]
    (table,) = tables(rows)
    assert table.ways == [OURS, "fusedrnn-functions"]
    assert table.others == ["openvino"]
    assert table.best_ratios() == {TINY: pytest.approx(4)}
    ours = table.ours(TINY)
    assert ours is not None
    assert ours.peer == "fusedrnn-functions"


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "machine.json"
    path.write_text(sample_run().to_json())
    assert report.main([str(path)]) == 0
    text = capsys.readouterr().out
    assert "python bench/report.py --out docs/benchmarks.md bench/results/*.json" in text
    assert "## machine\n" in text
    assert "| training-f32 | 1 | 4.00 | 4.00 (LSTM 2, 2, 3, 1 thread, pytorch) |" in text
    assert "| training, float32, 1 thread | pytorch | 4.00 | 4.00 (LSTM 2, 2, 3) |" in text
    assert "| LSTM 2, 2, 3 | 2.00 | 8.00 | pytorch | 4.00 |" in text
    assert "| GRU 4, 1, 8 | 4.00 | wrong | - | - |" in text
    assert "- GRU 4, 1, 8, pytorch: wrong: dx: off" in text
    assert "fusedrnn 0.1, pytorch 2" in text
    assert "Skipped numpy: threadpoolctl is not installed" in text
    assert "the\n  clock's own 50 ns included" in text
    assert "| 1 | 90.0 | 300 |" in text
    assert str(tmp_path) not in text


def test_report_shows_percentiles_and_variants() -> None:
    rows = [replace(row, p50=2e-6, p99=3e-6) for row in class_rows()]
    text = report.report({"a": replace(sample_run(), rows=tuple(rows))})
    assert "ours p50 / p99 µs | best peer p50 / p99 µs" in text
    assert "| 2.00 / 3.00 | 2.00 / 3.00 |" in text
    assert "fusedrnn-int8-weights ms | share of ceiling" in text


def test_report_writes_page_and_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "machine.json"
    rows = (*sample_run().rows, *class_rows())
    path.write_text(replace(sample_run(), rows=rows).to_json())
    page = tmp_path / "docs" / "benchmarks.md"
    page.parent.mkdir()
    assert report.main(["--out", str(page), str(path)]) == 0
    text = page.read_text()
    drawn = sorted(file.name for file in (page.parent / "plots").iterdir())
    assert drawn == [
        "machine-roofline-float32.svg",
        "machine-step.svg",
        "machine-training-f32.svg",
    ]
    assert all(f"](plots/{name})" in text for name in drawn)
    first = {name: (page.parent / "plots" / name).read_bytes() for name in drawn}
    assert report.main(["--out", str(page), str(path)]) == 0
    assert all((page.parent / "plots" / name).read_bytes() == first[name] for name in drawn)
    assert all(len(content) < 100_000 for content in first.values())


def test_no_matplotlib_is_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnavailableError, match="matplotlib is not installed"):
        plots.draw(sample_run(), tmp_path, "a")
    path = tmp_path / "machine.json"
    path.write_text(sample_run().to_json())
    assert report.main(["--out", str(tmp_path / "page.md"), str(path)]) == 0
    assert "no plots: matplotlib is not installed" in capsys.readouterr().err
    assert "## machine" in (tmp_path / "page.md").read_text()
