# SPDX-License-Identifier: MIT
"""``udriver bench``: each row is there and finite. How long anything took is never asserted."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from udriver.bench import checks, plot
from udriver.bench.growth import Curve, growth_rows
from udriver.bench.peers import NEEDS, PEERS, missing
from udriver.bench.rounds import Contestant, take_turns
from udriver.bench.rows import Row
from udriver.cli import Status
from udriver.cli_bench import Wishes, _judge, bench_command
from udriver.kernel import completion

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'hw'}"}
FIGURES = {
    *(f"round trip, {chip}, p{p}" for chip, p in [("inline", 50), ("inline", 99), ("select", 50)]),
    "round trip, signal, p50",
    "tracepoints and context checks, off, p50",
    *(f"idle, {chip}" for chip in ("inline", "select", "signal")),
    "stream, inline, MB/s",
    "stream, inline, CPU per MB",
    "complete() + try, uncontended",
    "ping-pong, two threads",
    "ladder, least: epoll, completion, p50",
    *(f"ladder, least: {how}, p50" for how in ("read, eventfd", "read, lock", "epoll, eventfd")),
    "ladder, least: eventfd, two threads on one CPU",
    "10 ports, memory each beyond the kfifo",
    "10 ports, idle",
    "interrupt latency, signal, main thread burns, p99",
    "interrupt latency, signal, another thread burns, p99",
}


@pytest.fixture(scope="module")
def quick() -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-m", "udriver", "bench", "--quick", "--json"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == Status.OK, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.mark.slow
def test_every_figure_is_there_with_its_peer_and_finite(quick: dict[str, Any]) -> None:
    assert quick["schema"] == "udriver.bench/1"
    assert {row["figure"] for row in quick["rows"]} >= FIGURES
    for row in quick["rows"]:
        if row["value"] is None:
            assert "pip install" in row["note"], row
        else:
            numbers = [row[key] for key in ("value", "ours", "theirs") if row[key] is not None]
            assert all(math.isfinite(number) and number >= 0 for number in numbers), row
    against = {row["against"] for row in quick["rows"]}
    assert against >= {"bare", "lock", "Event", "select thread + Event", *PEERS}


@pytest.mark.slow
def test_the_growth_is_there(quick: dict[str, Any]) -> None:
    curves = {curve["name"]: curve for curve in quick["curves"]}
    assert {"round trip, inline", "round trip, bare", "complete()", "complete_all()"} <= set(curves)
    assert {"frame, inline", "frame, bare", "a waiter in the middle times out"} <= set(curves)
    assert all(min(curve["microseconds"]) > 0 for curve in curves.values())


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NEEDS, "serialx", ("no_such_module", "serialx"))
    assert missing("serialx") == "serialx is not installed; `pip install serialx` lets it take part"
    assert missing("pySerial") is None


def test_without_matplotlib_a_plot_is_a_named_skip(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert bench_command(None, Wishes(quick=True, plot_file=Path("x.svg"))) == Status.SKIPPED
    assert "pip install 'udriver[bench]'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_plot_is_drawn(tmp_path: Path) -> None:
    if why := plot.missing():
        pytest.skip(why)
    file = tmp_path / "bench.svg"
    program = f"""
from pathlib import Path
from udriver.bench.growth import Curve
from udriver.bench.plot import plot
from udriver.bench.rows import Row
rows = [Row("ours", "theirs", 2.0, limit=1.0), Row("not there", "theirs", None)]
lines = [Curve("line", over, [1, 10], [2.0, 20.0]) for over in ("bytes", "ports", "waiters")]
plot(Path({str(file)!r}), rows, lines)
"""
    # in a process of its own: matplotlib keeps the files of its fonts open
    subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, check=True, timeout=50)
    assert "<svg" in file.read_text()


def test_a_bar_is_met_or_missed_by_so_many_times() -> None:
    below, above = Row("a", "b", 3.0, "<=", 1.5), Row("a", "b", 3.0, ">=", 12.0)
    assert (below.met, below.missed_by()) == (False, 2.0)
    assert (above.met, above.missed_by()) == (False, 4.0)
    assert Row("a", "b", 1.5, "<=", 1.5).met is True
    assert Row("a", "b", 0.0, "<=", 0.0).missed_by() == 1.0
    assert Row("a", "b", 0.5, "<=", 0.0).missed_by() == math.inf
    assert Row("a", "b", None, "<=", 1.0).met is None


def test_slack_fails_on_ratios_only_beyond_it(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("a", "b", 3.0, "<=", 1.5)]
    assert _judge(rows, None) == Status.OK
    assert _judge(rows, 2.0) == Status.OK
    assert _judge(rows, 1.9) == Status.FAILED
    assert "a / b" in capsys.readouterr().err


def test_slack_is_from_what_is_known_to_be_reached_where_that_misses_the_bar() -> None:
    def row(value: float) -> Row:
        return Row("a", "b", value, "<=", 1.5)

    assert _judge([row(3.3)], 2.0) == Status.FAILED
    assert _judge([row(3.3)], 2.0, [row(3.0)]) == Status.OK
    assert _judge([row(6.1)], 2.0, [row(3.0)]) == Status.FAILED
    assert _judge([row(3.3)], 2.0, [row(0.1)]) == Status.FAILED  # better than the bar is no new bar


def test_a_count_that_is_to_be_0_may_be_so_many() -> None:
    assert _judge([Row("idle", "nothing", 2.0, "<=", 0.0)], 2.0) == Status.OK
    assert _judge([Row("idle", "nothing", 2.5, "<=", 0.0)], 2.0) == Status.FAILED


def test_a_p99_is_told_and_not_judged() -> None:
    assert _judge([Row("round trip, p99", "bare", 90.0, "<=", 1.5)], 2.0) == Status.OK


def test_everybody_takes_turns_and_the_first_one_changes() -> None:
    order = []

    class Opened:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> Any:
            order.append(self.name)
            return lambda count: [1000 if self.name == "a" else 500] * count

        def __exit__(self, *exc_info: object) -> None:
            pass

    both = [Contestant(name, lambda name=name: Opened(name)) for name in "ab"]  # type: ignore[misc]
    results = take_turns(both, 3, 10)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert results.ratio("a", "b", 50) == pytest.approx(2.0, rel=0.01)


def test_the_checks_are_cut_out_and_put_back() -> None:
    before = completion.complete.__code__
    with checks.without_checks() as cut:
        assert cut > 10
        assert "tracepoint" not in completion.complete.__code__.co_names
        assert "might_sleep" not in completion.wait_for_completion.__code__.co_names
        x = completion.Completion("x")
        completion.complete(x)
        completion.wait_for_completion(x)
    assert completion.complete.__code__ is before
    with checks.without_checks(cut=False) as exchanged:
        assert exchanged == cut
        assert completion.complete.__code__ is not before
        assert "tracepoint" in completion.complete.__code__.co_names
    assert completion.complete.__code__ is before


@pytest.mark.parametrize("power", [0, 1, 2])
def test_a_curve_knows_how_it_grows(power: int) -> None:
    numbers = [10, 100, 1000]
    curve = Curve("y", "x", numbers, [3.0 * n**power for n in numbers])
    assert curve.exponent == pytest.approx(power, abs=1e-6)
    assert curve.error == pytest.approx(0, abs=1e-6)
    assert curve.fitted() == pytest.approx(curve.microseconds)


def test_a_quadratic_complete_all_misses_its_bar() -> None:
    def curve(name: str, power: float) -> Curve:
        return Curve(name, "waiters", [10, 100, 1000], [10.0**power, 100.0**power, 1000.0**power])

    laws = [
        ("complete_all()", 1.0),
        ("complete_all()", 2.0),
        ("complete()", 0.0),
        ("complete()", 1.0),
    ]
    rows = growth_rows([curve(name, power) for name, power in laws])
    assert [row.met for row in rows] == [True, False, True, False]
    assert growth_rows([Curve("complete()", "waiters", [10, 100], [1.0, 9.0])]) == []


def test_a_curve_knows_how_badly_it_fits() -> None:
    """By hand: in decades x is 0, 1, 2 and y is 0, 1, 0; the residuals' squares sum to 2/3."""
    curve = Curve("y", "x", [1, 10, 100], [1.0, 10.0, 1.0])
    assert curve.exponent == pytest.approx(0, abs=1e-9)
    assert curve.error == pytest.approx(math.sqrt(2 / 3 / 1 / 2))
    assert math.isnan(Curve("y", "x", [1, 10], [1.0, 2.0]).error)
