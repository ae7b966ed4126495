# SPDX-License-Identifier: MIT
"""Several runs beside each other, and what is said of a bar that is missed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from udriver.bench.budget import Budget
from udriver.bench.growth import Curve
from udriver.bench.reasons import explained, who_to_count
from udriver.bench.report import as_json, print_table
from udriver.bench.rows import Row
from udriver.bench.runs import disagreeing, merge, read_run
from udriver.cli import Status
from udriver.cli_bench import Wishes, bench_command
from udriver.errors import UDriverError


def run(value: float, wakeups: float = 0.0) -> list[Row]:
    return [
        Row("round trip, inline, p50", "bare", value, limit=1.25, ours=value * 10, theirs=10.0),
        Row("idle, inline", "nothing", wakeups, limit=0.0, ours=wakeups),
        Row("round trip, inline, p50", "serialx", None, limit=1.0, note="not installed"),
    ]


def test_the_median_of_the_runs_and_each_of_them() -> None:
    rows, curves = merge([(run(v), [Curve("c", "x", [1, 2], [v, v])]) for v in (0.8, 1.4, 0.9)])
    assert rows[0].value == 0.9
    assert rows[0].runs == (0.8, 1.4, 0.9)
    assert rows[0].ours == 9.0
    assert rows[0].met is rows[0].ahead is True
    assert rows[0].agreement() == (2, 3)
    assert rows[2].note == "not installed"
    assert curves[0].microseconds == [0.9, 0.9]


def test_runs_that_differ_on_who_is_ahead_are_named() -> None:
    agree, _ = merge([(run(v), []) for v in (1.3, 2.0, 1.1)])
    assert disagreeing(agree) == []  # the peer is ahead in each, though one of them meets the bar
    differ, _ = merge([(run(v), []) for v in (1.1, 2.0, 0.9)])
    assert [row.figure for row in disagreeing(differ)] == ["round trip, inline, p50"]


def test_without_a_peer_they_may_differ_on_the_bar() -> None:
    rows, _ = merge([(run(1.0, wakeups), []) for wakeups in (0.0, 0.0, 3.0)])
    assert [row.figure for row in disagreeing(rows)] == ["idle, inline"]


@pytest.mark.parametrize(("sense", "ahead"), [("<=", False), (">=", True)])
def test_more_is_better_where_the_bar_says_so(sense: str, ahead: bool) -> None:
    assert Row("a", "b", 1.2, sense, 1.5, ours=1.2, theirs=1.0).ahead is ahead  # type: ignore[arg-type]


def test_files_of_earlier_runs_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for number, value in enumerate((1.1, 2.0, 0.9)):
        files.append(tmp_path / f"{number}.json")
        curves = [Curve("c", "bytes", [1, 10, 100], [1.0, 2.0, 3.0])]
        files[-1].write_text(json.dumps(as_json(run(value), curves, "a port")))
    assert bench_command(None, Wishes(compare=tuple(files))) == Status.OK
    shown = capsys.readouterr().out
    assert "3 runs agree on who is ahead in 1 of the 2 rows with a bar" in shown
    assert "theirs 2/3" in shown
    assert bench_command(None, Wishes(compare=tuple(files), as_object=True)) == Status.OK
    report = json.loads(capsys.readouterr().out)
    assert report["port"] == "a port"
    assert report["rows"][0]["runs"] == [1.1, 2.0, 0.9]
    again = tmp_path / "again.json"
    again.write_text(json.dumps(report))
    (rows, _), _ = read_run(again)
    assert rows[0].runs == (1.1, 2.0, 0.9)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "udriver.run/1"}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(UDriverError, match=r"udriver bench --json"):
        read_run(file)


def test_a_missed_bar_has_the_counts_of_both_and_the_rungs_beside_it() -> None:
    rows = [
        *run(2.0),
        Row("ladder, sleeps: epoll, p50", "bare", 1.31, ours=13.0, theirs=10.0),
        Row("ping-pong, two threads", "lock", 1.0, limit=1.1, ours=1.0, theirs=1.0),
    ]
    assert who_to_count(rows) == ["inline", "bare"]  # the ping-pong meets its bar
    counted = [
        Budget("inline", "at once", {"write": 1.0, "readv": 1.0, "epoll_wait": 1.0}, {}, {}, {"f": 999.0}),
        Budget("bare", "at once", {"write": 1.0, "read": 1.0}, {}, {}, {"trip": 24.0}),
    ]  # fmt: skip
    first, idle, *_ = explained(rows, counted)
    assert "3 system calls, 0 sleeps and 999 bytecodes here, 2 system calls" in first.reason
    assert "24 bytecodes there" in first.reason
    assert "sleeps: epoll 1.31" in first.reason
    assert idle.reason == ""


def test_what_was_said_of_one_row_is_not_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    missed = [
        Row(figure, "bare", 2.0, limit=1.0, ours=2.0, theirs=1.0, reason=reason)
        for figure, reason in [
            ("a", "counts; rungs"),
            ("b", "others; rungs"),
            ("c", "counts; rungs"),
        ]
    ]
    print_table([*missed, Row("d", "bare", 2.0, limit=1.0, ours=2.0, theirs=1.0)], [])
    lines = [line for line in capsys.readouterr().out.splitlines() if "MISSED" in line]
    assert lines == [
        "- MISSED a / bare: counts; rungs",
        "- MISSED b / bare: others",
        "- MISSED c / bare: as above",
        "- MISSED d / bare: its cause was not measured here",
    ]
