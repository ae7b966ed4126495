# SPDX-License-Identifier: MIT
"""Composition. The picture: ratios against their bars, and how the cost grows."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

from udriver.bench.growth import Curve
from udriver.bench.rows import Row

__all__ = ["missing", "plot"]


GROWTH = ("bytes", "ports", "waiters")


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

    mpl.rcParams.update({"svg.hashsalt": "udriver", "svg.fonttype": "none"})
    figure = plt.figure(figsize=(13, 11), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[3, 2])
    _bars(above.subplots(), [row for row in rows if row.value is not None and row.limit])
    for axes, over in zip(below.subplots(1, len(GROWTH)), GROWTH, strict=True):
        _curves(axes, [curve for curve in curves if curve.over == over])
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
        error = "" if math.isnan(curve.error) else f" ± {curve.error:.2f}"
        label = f"{curve.name}: ~ n^({curve.exponent:.2f}{error})"
        axes.loglog(curve.numbers, curve.microseconds, marker="o", label=label)
        axes.loglog(curve.numbers, curve.fitted(), linestyle=":", color="gray", linewidth=1)
        axes.set_xlabel(curve.over)
    axes.set_ylabel("us, and the fit (dotted)")
    if curves:
        axes.legend(fontsize="small")
