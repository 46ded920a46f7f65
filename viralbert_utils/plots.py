"""The look of all figures: palette, sizes, and the charts that several lessons share.

Colours are Okabe and Ito's (2008), told apart with any colour vision. Figures stay readable at
phone width: at most 5.6 inches wide, text of 7 points and more, both names of an emotion in one
label.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from viralbert_utils.data.emotions import display_name

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#7F7F7F",
)
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
    """Put the legend under the axes; `offset` in heights of the axes, more for low ones."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -offset), ncols=n_columns)


def bar_chart(values: pd.Series, title: str, xlabel: str, label_format: str = "{:,.0f}") -> Figure:
    """Horizontal bars with their values, first row on top; negative ones orange, to the left."""
    figure, (axes,) = new(height=0.2 * len(values) + 0.8)
    positions = np.arange(len(values))[::-1]
    axes.barh(positions, values.to_numpy(), color=np.where(values < 0, ORANGE, BLUE), height=0.72)
    axes.set_yticks(positions, [str(name) for name in values.index])
    axes.set(title=title, xlabel=xlabel, ylim=(-0.6, len(values) - 0.4))
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)
    for position, value in zip(positions, values, strict=True):
        side = -1 if value < 0 else 1
        axes.annotate(
            label_format.format(value),
            (value, position),
            xytext=(3 * side, 0),
            textcoords="offset points",
            va="center",
            ha="right" if side < 0 else "left",
            fontsize=7.5,
            color="#444444",
        )
    return figure


def interval_chart(
    table: pd.DataFrame, title: str, xlabel: str, reference: float | None = None
) -> Figure:
    """Estimates with intervals, a row each, first on top.

    Args:
        table: Index = names; the first column is the value, `low` and `high` its interval.
        title: Title of the figure.
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
    """Estimates (first column) with intervals on given axes, a row each, first on top."""
    positions = np.arange(len(table))[::-1]
    axes.hlines(positions, table["low"], table["high"], color=BLUE, linewidth=2)
    axes.plot(table.iloc[:, 0], positions, "o", color=BLUE)
    axes.set_yticks(positions, [str(name) for name in table.index])
    axes.set_ylim(-0.6, len(table) - 0.4)


def lower_triangle(
    matrix: pd.DataFrame, title: str, bar_label: str, diverging: bool = False
) -> Figure:
    """Heat map of a symmetric matrix over emotions, each pair once; both names on the rows.

    Args:
        matrix: Square, English names on both sides.
        title: Title of the figure.
        bar_label: What the colours mean, with the unit.
        diverging: For values with a sign: colours centred on zero.
    """
    figure, (axes,) = new(height=5.6)
    colours = {"cmap": DIVERGING, "center": 0} if diverging else {"cmap": SEQUENTIAL}
    shown = matrix.rename(index=display_name)
    mask = np.triu(np.ones_like(matrix, dtype=bool))
    sns.heatmap(
        shown,
        mask=mask,
        ax=axes,
        cbar_kws={"label": bar_label},
        xticklabels=1,
        yticklabels=1,
        **colours,
    )
    axes.grid(visible=False)
    axes.tick_params(labelsize=7)
    axes.set_title(title)
    return figure
