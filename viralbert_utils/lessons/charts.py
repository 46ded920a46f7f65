"""Charts that one lesson draws: gradient arrows, runs, a confusion matrix, near-duplicates, strong
and weak classes, chords, heat maps side by side, a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as MplPath
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from viralbert_utils.data.emotions import display_name
from viralbert_utils.plots import (
    BLUE,
    DIVERGING,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    RED,
    SEQUENTIAL,
    legend_below,
    new,
    plain_ticks,
)


def arrows(axes: Axes, named: Mapping[str, Sequence[float]], title: str) -> None:
    """Vectors of the plane from the origin, each named at its tip, on axes of equal scale."""
    for (name, (x, y)), colour in zip(named.items(), PALETTE, strict=False):
        axes.annotate(
            "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.8}
        )
        axes.annotate(
            name, (x, y), xytext=(0, 4), textcoords="offset points", ha="center", color=colour
        )
    ends = np.array([(0.0, 0.0), *named.values()])
    low, high = ends.min(axis=0) - 0.5, ends.max(axis=0) + 0.5
    axes.set(title=title, xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")


def runs(axes: Axes, figures: Sequence[Sequence[float]]) -> None:
    """A short stroke for each run of a system, on rows as `plots.intervals` draws them."""
    for position, values in enumerate(reversed(figures)):
        axes.plot(values, [position - 0.25] * len(values), "|", color=GREY, markersize=7)


def confusion(axes: Axes, matrix: pd.DataFrame, title: str) -> None:
    """Confusion matrix with its shares written in the cells.

    Args:
        axes: Where to draw.
        matrix: Rows = labels, columns = answers, each row adding up to 1.
        title: Title of the axes.
    """
    sns.heatmap(
        matrix,
        ax=axes,
        vmin=0,
        vmax=1,
        cmap=SEQUENTIAL,
        annot=True,
        fmt=".2f",
        cbar=False,
        square=True,
    )
    axes.grid(visible=False)
    axes.set(title=title, xlabel="answer", ylabel="label")


def share_below(
    values: dict[str, np.ndarray], title: str, xlabel: str, marked: float, ticks: list[int]
) -> Figure:
    """For each group the share of values up to a limit, over a logarithmic axis of limits, with one
    limit marked."""
    figure, (axes,) = new(height=3.8)
    for name, group in values.items():
        axes.ecdf(group, label=name, linewidth=2)
    axes.axvline(marked, color=GREY, linestyle="--", linewidth=1)
    axes.set(
        title=title,
        xlabel=xlabel,
        ylabel="share of texts",
        xscale="log",
        xlim=(ticks[0], ticks[-1]),
    )
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    legend_below(axes)
    return figure


def strong_and_weak(table: pd.DataFrame, mean: float, title: str) -> Figure:
    """F1 of each class with its interval, and beside it the number of its training texts.

    Args:
        table: Index = English names, the first row on top; columns `value`, `low`, `high` (F1 and
            its interval), `texts` (training texts) and `side`: where the interval lies, `above` or
            `below` the mean or `not told apart from` it.
        mean: Mean F1 of the classes, drawn as a dashed line.
        title: Title of the left axes.
    """
    figure, (left, right) = new(height=5.6, columns=2, share_y=True)
    places = pd.Series(np.arange(len(table))[::-1], table.index)
    for side, colour, mark in (
        ("above", BLUE, "^"),
        ("not told apart from", GREY, "o"),
        ("below", RED, "v"),
    ):
        part = table[table["side"] == side]
        at = places[part.index]
        left.hlines(at, part["low"], part["high"], color=colour, linewidth=2)
        left.plot(part["value"], at, mark, color=colour, label=f"{side} the mean")
        right.plot(part["texts"], at, mark, color=colour)
    left.axvline(mean, color=GREY, linestyle="--", linewidth=1)
    right.axvline(table["texts"].median(), color="black", linestyle="--", linewidth=1)
    left.set_yticks(places, [display_name(name) for name in table.index], fontsize=7)
    left.set(title=title, xlabel="F1 (dashed: mean)", ylim=(-0.6, len(table) - 0.4))
    # On a plain axis one frequent class, like neutral, would press all others into a corner.
    right.set(title="Training texts", xlabel="texts (dashed: median)", xscale="log")
    plain_ticks(right)
    right.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def chords(axes: Axes, pairs: pd.DataFrame, names: Sequence[str], title: str) -> None:
    """Emotions on a circle, in the order given, and a curve for each pair: thicker for a higher
    phi.

    Args:
        axes: Where to draw.
        pairs: Columns `a`, `b` and `phi`; pairs below zero are dashed.
        names: All emotions on the circle.
        title: Title of the axes.
    """
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    places = dict(zip(names, np.column_stack([np.cos(angles), np.sin(angles)]), strict=True))
    most = max(pairs["phi"].abs().max(), 1e-9)
    for one, other, phi in zip(pairs["a"], pairs["b"], pairs["phi"], strict=True):
        ends = places[one], places[other]
        # Drawn towards the centre: neighbours get a short bow, opposites nearly a straight line.
        curve = MplPath(
            [ends[0], 0.2 * sum(ends), ends[1]], [MplPath.MOVETO, MplPath.CURVE3, MplPath.CURVE3]
        )
        look = {"edgecolor": BLUE} if phi > 0 else {"edgecolor": ORANGE, "linestyle": "--"}
        axes.add_patch(
            PathPatch(curve, facecolor="none", linewidth=4 * abs(phi) / most, alpha=0.7, **look)
        )
    linked = {*pairs["a"], *pairs["b"]}
    # Names stand upright in two columns, evenly spaced, each with a thin line to its point.
    for side in (-1, 1):
        column = sorted(
            (name for name, (x, _) in places.items() if (x >= 0) == (side > 0)),
            key=lambda name: places[name][1],
        )
        heights = np.linspace(-1.3, 1.3, max(len(column), 2))
        for name, height in zip(column, heights, strict=False):
            x, y = places[name]
            axes.plot([x, 1.25 * side], [y, height], color=GREY, linewidth=0.4)
            axes.text(
                1.3 * side,
                height,
                display_name(name),
                color="black" if name in linked else GREY,
                fontsize=7,
                ha="right" if side < 0 else "left",
                va="center",
            )
    axes.plot(*np.array(list(places.values())).T, ".", color=GREY, markersize=4)
    axes.set(title=title, aspect="equal", xlim=(-2.6, 2.6), ylim=(-1.45, 1.45))
    axes.axis("off")


def heat_maps(matrices: Mapping[str, pd.DataFrame], bar_label: str) -> Figure:
    """Matrices over the same emotions side by side, in one scale of colours centred on zero.

    Columns are too narrow for names: they bear the numbers of the rows. The diagonal, and whatever
    has no value, is grey.

    Args:
        matrices: Title -> a square matrix, English names on both sides, in one order for all.
        bar_label: What the colours mean, with the unit.
    """
    figure, axes = new(height=4.9, columns=len(matrices), share_y=True)
    shown = [matrix.mask(np.eye(len(matrix), dtype=bool)) for matrix in matrices.values()]
    most = np.nanmax(np.abs(shown))
    for axis, title, values in zip(axes, matrices, shown, strict=True):
        mesh = axis.pcolormesh(values, cmap=DIVERGING, vmin=-most, vmax=most)
        ticks = np.arange(0, len(values), 3)
        axis.set_xticks(ticks + 0.5, [str(tick + 1) for tick in ticks])
        axis.tick_params(labelsize=7, length=2)
        axis.grid(visible=False)
        axis.set(title=title, xlabel="number of the row", facecolor="#BDBDBD")
    names = [f"{display_name(name)}  {row}" for row, name in enumerate(shown[0].index, 1)]
    axes[0].set_yticks(np.arange(len(names)) + 0.5, names)
    axes[0].invert_yaxis()
    figure.colorbar(mesh, ax=axes, location="bottom", label=bar_label, aspect=40, pad=0.03)
    return figure


def tree(axes: Axes, matrix: pd.DataFrame, groups: Mapping[str, str], title: str) -> None:
    """Dendrogram of a correlation matrix (average linkage on `1 - correlation`), names in the
    colours of their groups.

    Args:
        axes: Where to draw.
        matrix: English names of emotions on both sides, as `correlation.ordered` gives it.
        groups: Emotion -> its group.
        title: Title of the axes.
    """
    distances = squareform((1 - matrix.to_numpy()).clip(0), checks=False)
    joined = linkage(distances, "average", optimal_ordering=True)
    drawn = dendrogram(
        joined, ax=axes, orientation="left", color_threshold=0, above_threshold_color=GREY
    )
    leaves = matrix.index[drawn["leaves"]]
    colours = dict(zip(dict.fromkeys(groups.values()), (BLUE, RED, GREEN, GREY), strict=False))
    axes.set_yticklabels([display_name(name) for name in leaves], fontsize=7)
    for label, name in zip(axes.get_yticklabels(), leaves, strict=True):
        label.set_color(colours[groups[name]])
    axes.grid(visible=False)
    axes.set(title=title, xlabel="1 - correlation")
