"""The look of all figures, in one place: palette, sizes, and the few charts that several lessons share.

Colours are Okabe and Ito's (2008), told apart with any colour vision. Figures stay readable at phone width: at most
5.6 inches wide, text of 7 points and more, both names of an emotion in one label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as MplPath
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from viralbert_utils.emotions import display_name

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#7F7F7F"
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY)
WIDTH = 5.6  # inches
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"


def use_style() -> None:
    """Set matplotlib's defaults for this process."""
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 4.0),
            "figure.dpi": 130,
            "savefig.dpi": 130,
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",  # comes with matplotlib and has all Cyrillic letters
            "font.size": 9.5,
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E5E5E5",
            "legend.frameon": False,
        }
    )


def new(height: float = 4.0, columns: int = 1, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of the course's width with `columns` axes side by side; `height` in inches."""
    figure, axes = plt.subplots(1, columns, figsize=(WIDTH, height), squeeze=False, sharey=share_y)
    return figure, list(axes[0])


def plain_ticks(axes: Axes) -> None:
    """Numbers on logarithmic axes as one reads them: 30, 100, not powers of ten."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def legend_below(axes: Axes, n_columns: int = 3, offset: float = 0.14) -> None:
    """Put the legend under the axes, never over the data; `offset` in heights of the axes, more for low ones."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -offset), ncols=n_columns)


def bar_chart(values: pd.Series, title: str, xlabel: str, label_format: str = "{:,.0f}") -> Figure:
    """Horizontal bars with their values behind them, first row on top; negative ones in orange, to the left."""
    figure, (axes,) = new(height=0.2 * len(values) + 0.8)
    positions = np.arange(len(values))[::-1]
    axes.barh(positions, values.to_numpy(), color=np.where(values < 0, ORANGE, BLUE), height=0.72)
    axes.set_yticks(positions, [str(name) for name in values.index])
    axes.set(title=title, xlabel=xlabel, ylim=(-0.6, len(values) - 0.4))
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)
    for position, value in zip(positions, values, strict=True):
        side = -1 if value < 0 else 1
        axes.annotate(label_format.format(value), (value, position), xytext=(3 * side, 0), textcoords="offset points",
                      va="center", ha="right" if side < 0 else "left", fontsize=7.5, color="#444444")  # fmt: skip
    return figure


def interval_chart(table: pd.DataFrame, title: str, xlabel: str, reference: float | None = None) -> Figure:
    """Estimates with intervals, a row each, first on top.

    Args:
        table: Index = names; the first column is the value, `low` and `high` its interval.
        title: Of the figure.
        xlabel: The measure.
        reference: A value to compare with, drawn as a dashed line.
    """
    figure, (axes,) = new(height=0.3 * len(table) + 1.0)
    intervals(axes, table)
    axes.set(title=title, xlabel=xlabel)
    if reference is not None:
        axes.axvline(reference, color=GREY, linestyle="--", linewidth=1)
    return figure


def intervals(axes: Axes, table: pd.DataFrame) -> None:
    """Estimates with intervals on given axes, a row each, first on top; the first column is the value."""
    positions = np.arange(len(table))[::-1]
    axes.hlines(positions, table["low"], table["high"], color=BLUE, linewidth=2)
    axes.plot(table.iloc[:, 0], positions, "o", color=BLUE)
    axes.set_yticks(positions, [str(name) for name in table.index])
    axes.set_ylim(-0.6, len(table) - 0.4)


def arrows(axes: Axes, named: Mapping[str, Sequence[float]], title: str) -> None:
    """Vectors of the plane from the origin, each named at its tip, on axes of equal scale."""
    for (name, (x, y)), colour in zip(named.items(), PALETTE, strict=False):
        axes.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.8})
        axes.annotate(name, (x, y), xytext=(0, 4), textcoords="offset points", ha="center", color=colour)
    ends = np.array([(0.0, 0.0), *named.values()])
    low, high = ends.min(axis=0) - 0.5, ends.max(axis=0) + 0.5
    axes.set(title=title, xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")


def lower_triangle(matrix: pd.DataFrame, title: str, bar_label: str, diverging: bool = False) -> Figure:
    """Heat map of a symmetric matrix over emotions, each pair once; both names on the rows.

    Args:
        matrix: Square, English names on both sides.
        title: Of the figure.
        bar_label: What the colours mean, with the unit.
        diverging: For values with a sign: colours centred on zero.
    """
    figure, (axes,) = new(height=5.6)
    colours = {"cmap": DIVERGING, "center": 0} if diverging else {"cmap": SEQUENTIAL}
    shown = matrix.rename(index=display_name)
    mask = np.triu(np.ones_like(matrix, dtype=bool))
    sns.heatmap(shown, mask=mask, ax=axes, cbar_kws={"label": bar_label}, xticklabels=1, yticklabels=1, **colours)
    axes.grid(visible=False)
    axes.tick_params(labelsize=7)
    axes.set_title(title)
    return figure


def confusion(axes: Axes, matrix: pd.DataFrame, title: str) -> None:
    """Confusion matrix with its shares written in the cells.

    Args:
        axes: Where to draw.
        matrix: Rows = labels, columns = answers, each row adding up to 1.
        title: Of the axes.
    """
    sns.heatmap(matrix, ax=axes, vmin=0, vmax=1, cmap=SEQUENTIAL, annot=True, fmt=".2f", cbar=False, square=True)
    axes.grid(visible=False)
    axes.set(title=title, xlabel="answer", ylabel="label")


def share_below(values: dict[str, np.ndarray], title: str, xlabel: str, marked: float, ticks: list[int]) -> Figure:
    """For each group the share of values up to a limit, over a logarithmic axis of limits, with one limit marked."""
    figure, (axes,) = new(height=3.8)
    for name, group in values.items():
        axes.ecdf(group, label=name, linewidth=2)
    axes.axvline(marked, color=GREY, linestyle="--", linewidth=1)
    axes.set(title=title, xlabel=xlabel, ylabel="share of texts", xscale="log", xlim=(ticks[0], ticks[-1]))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    legend_below(axes)
    return figure


def chords(axes: Axes, pairs: pd.DataFrame, names: Sequence[str], title: str) -> None:
    """Emotions on a circle, in the order given, and a curve for each pair: thicker for a higher phi.

    Args:
        axes: Where to draw.
        pairs: Columns `a`, `b` and `phi`; pairs below zero are dashed.
        names: All emotions on the circle.
        title: Of the axes.
    """
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    places = dict(zip(names, np.column_stack([np.cos(angles), np.sin(angles)]), strict=True))
    most = max(pairs["phi"].abs().max(), 1e-9)
    for one, other, phi in zip(pairs["a"], pairs["b"], pairs["phi"], strict=True):
        ends = places[one], places[other]
        # Drawn towards the centre: neighbours get a short bow, opposites nearly a straight line.
        curve = MplPath([ends[0], 0.2 * sum(ends), ends[1]], [MplPath.MOVETO, MplPath.CURVE3, MplPath.CURVE3])
        look = {"edgecolor": BLUE} if phi > 0 else {"edgecolor": ORANGE, "linestyle": "--"}
        axes.add_patch(PathPatch(curve, facecolor="none", linewidth=4 * abs(phi) / most, alpha=0.7, **look))
    linked = {*pairs["a"], *pairs["b"]}
    for (name, (x, y)), angle in zip(places.items(), np.degrees(angles), strict=True):
        axes.text(1.04 * x, 1.04 * y, display_name(name), color="black" if name in linked else GREY, fontsize=7,
                  ha="right" if x < 0 else "left", va="center", rotation=angle + 180 * (x < 0),
                  rotation_mode="anchor")  # fmt: skip
    axes.plot(*np.array(list(places.values())).T, ".", color=GREY, markersize=4)
    axes.set(title=title, aspect="equal", xlim=(-1.9, 1.9), ylim=(-2, 2))
    axes.axis("off")


def tree(axes: Axes, matrix: pd.DataFrame, groups: Mapping[str, str], title: str) -> None:
    """Dendrogram of a correlation matrix (average linkage on `1 - correlation`), names in the colours of their groups.

    Args:
        axes: Where to draw.
        matrix: English names of emotions on both sides, as `correlation.ordered` gives it.
        groups: Emotion -> its group.
        title: Of the axes.
    """
    distances = squareform((1 - matrix.to_numpy()).clip(0), checks=False)
    joined = linkage(distances, "average", optimal_ordering=True)
    drawn = dendrogram(joined, ax=axes, orientation="left", color_threshold=0, above_threshold_color=GREY)
    leaves = matrix.index[drawn["leaves"]]
    colours = dict(zip(dict.fromkeys(groups.values()), (BLUE, RED, GREEN, GREY), strict=False))
    axes.set_yticklabels([display_name(name) for name in leaves], fontsize=7)
    for label, name in zip(axes.get_yticklabels(), leaves, strict=True):
        label.set_color(colours[groups[name]])
    axes.grid(visible=False)
    axes.set(title=title, xlabel="1 - correlation")
