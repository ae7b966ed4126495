# SPDX-License-Identifier: MIT
"""Composition. The picture: ratios against their bars, and how the cost grows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from udriver.bench.growth import Curve
from udriver.bench.rows import Row

__all__ = ["missing", "plot"]


def missing() -> str | None:
    """Why there can be no picture, with the command that changes it."""
    if importlib.util.find_spec("matplotlib") is not None:
        return None
    return "--plot draws with matplotlib, which is not installed; `pip install 'udriver[bench]'`"


def plot(file: Path, rows: list[Row], curves: list[Curve]) -> None:
    """Write ``file``; its suffix says in which format, .svg or .png for two."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "udriver"
    figure, (bars, frames, waiters) = plt.subplots(
        1, 3, figsize=(19, 6), width_ratios=[2, 1, 1], layout="constrained"
    )
    _bars(bars, [row for row in rows if row.value is not None and row.limit])
    _curves(frames, [curve for curve in curves if curve.over == "bytes"])
    _curves(waiters, [curve for curve in curves if curve.over == "waiters"])
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    plt.close(figure)


def _bars(axes: Any, rows: list[Row]) -> None:
    names = [f"{row.figure} / {row.against}" for row in rows]
    how_far = [row.missed_by() for row in rows]
    colors = ["tab:green" if row.met else "tab:red" for row in rows]
    axes.barh(names, how_far, color=colors)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("figure / its bar (left of 1: met)")
    axes.invert_yaxis()


def _curves(axes: Any, curves: list[Curve]) -> None:
    for curve in curves:
        label = f"{curve.name}: ~ n^{curve.exponent:.2f}"
        axes.loglog(curve.numbers, curve.microseconds, marker="o", label=label)
        axes.set_xlabel(curve.over)
    axes.set_ylabel("us")
    axes.legend()
