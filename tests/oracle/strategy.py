# SPDX-License-Identifier: MIT
"""Hypothesis makes scripts: few objects, many meetings; shrinks to few steps of few operations."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from tests.oracle.script import (
    ACTORS,
    COMPLETIONS,
    CONTEXTS,
    COUNTS,
    FALLING,
    STATES,
    TIMED,
    TIMEOUTS,
    UNTIMED,
    Op,
    Script,
)

MOST_STEPS, MOST_OPS = 10, 5

_actors = st.integers(0, ACTORS - 1)
# mostly the same one: what meets nobody says nothing
_completions = st.sampled_from(COMPLETIONS[0] * 5 + COMPLETIONS[1] * 2 + COMPLETIONS[2])
_contexts = st.sampled_from(CONTEXTS)
_timeouts = st.sampled_from(["1", "2", "3", "1", "2", "0", "max", "negative"])
_posts = st.sampled_from(["complete"] * 4 + ["complete_all", "complete_on_current_cpu"])
_looks = st.sampled_from(["try", "try", "done", "reinit", "reinit"])
assert set(TIMEOUTS) >= {"1", "negative"}

_untimed = st.builds(Op, st.sampled_from(sorted(UNTIMED)), _actors, _completions)
_timed = st.builds(Op, st.sampled_from(sorted(TIMED)), _actors, _completions, _timeouts)
_in_state = st.builds(Op, st.just("state"), _actors, _completions, st.sampled_from(sorted(STATES)))
_by_controller = st.builds(
    lambda what, x, context: Op(what, None, x, "", context),
    st.one_of(_posts, _looks),
    _completions,
    _contexts,
)
_by_actor = st.builds(Op, st.one_of(_posts, _looks), _actors, _completions)
_written = st.builds(
    lambda x, word, context: Op("set", None, x, word, context),
    _completions,
    st.sampled_from(sorted(COUNTS)),
    _contexts,
)
_to_actor = st.builds(
    Op, st.sampled_from(["usr1", "usr1", "usr1", "wake", "wake", "kill", "term"]), _actors
)
_trapped = st.one_of(
    st.builds(
        lambda what, x, whom: Op(what, None, x, "", FALLING, whom),
        st.one_of(_posts, _looks),
        _completions,
        _actors,
    ),
    st.builds(
        lambda what, whom: Op(what, context=FALLING, whom=whom),
        st.sampled_from(["usr1", "wake", "kill"]),
        _actors,
    ),
)
_user = st.builds(Op, st.just("user"), _actors)
_tick = st.just(Op("tick"))

ops = st.one_of(
    _timed, _timed, _untimed, _in_state, _by_controller, _by_controller, _by_actor, _to_actor,
    _to_actor, _tick, _written, _user, _trapped,
)  # fmt: skip
steps = st.lists(ops, min_size=1, max_size=MOST_OPS).map(tuple)
scripts: st.SearchStrategy[Script] = st.lists(steps, min_size=1, max_size=MOST_STEPS).map(tuple)


def explored(check: Callable[[Script], None], count: int, number: int, *, shrink: bool) -> None:
    """Run ``check`` on ``count`` scripts of seed ``number``; shrink the first it refuses.

    The scripts are the same each time, so one run can collect them for the kernel to play in one
    go, and the next compare, ask about what shrinking makes of them, and raise on the smallest.
    """
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]

    @seed(number)
    @settings(
        max_examples=count,
        phases=phases,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
    )
    @given(scripts)
    def run(script: Script) -> None:
        check(script)

    run()


def generated(count: int, number: int) -> list[Script]:
    """``count`` scripts of seed ``number``; fewer only where Hypothesis has no more."""
    found: list[Script] = []
    explored(found.append, count, number, shrink=False)
    return found
