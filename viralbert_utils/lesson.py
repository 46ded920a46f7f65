"""What every notebook needs: a start, figures with alt text, tables, records, checks.

A recorded value is what tests, the report's first page and the sentences of `say` read; it is never
typed by hand.
"""

from __future__ import annotations

import html
import io
import random
import re
import resource
import sys
from pathlib import Path
from typing import Any, Protocol

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure

from viralbert_utils import plots
from viralbert_utils.base.files import own_path
from viralbert_utils.base.variables import RECORD_MIME
from viralbert_utils.evaluation.intervals import Estimate

# What this kernel has recorded, for sentences further down. A code span or a formula has braces of
# its own, so nothing is filled in there.
_recorded: dict[str, Any] = {}
_FIELD = re.compile(r"`[^`]*`|\$[^$]*\$|\{([A-Za-z_][\w.]*)(?::([^{}]*))?\}")


def start(seed: int = 0, run_dir: str = "runs/sample") -> Path:
    """Seed Python, NumPy and (when it is loaded) torch, set the figure style.

    Args:
        seed: Not enough for equal results on a GPU, where sums run in varying order.
        run_dir: Where this run keeps what one notebook leaves for another; a relative path is seen
            from the root of the repository, whether the kernel works there or in `notebooks/`.

    Returns:
        `run_dir` as seen from the working directory, made if missing.
    """
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
    plots.use_style()
    _recorded.clear()
    folder = _repository() / run_dir
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def find(file: str) -> Path:
    """A file as seen from the working directory, else from the root of the repository.

    Args:
        file: A path; whoever reads it reports that it does not exist.
    """
    here = own_path(file)
    return here if here.is_file() else _repository() / here


def _repository() -> Path:
    """The working directory or its parent, whichever holds `notebooks`; else the former."""
    # Relative, so that no path of this machine gets into an executed notebook.
    return next(
        (folder for folder in (Path(), Path("..")) if (folder / "notebooks").is_dir()), Path()
    )


def record(name: str, value: float | int | str | bool | Estimate | dict) -> None:
    """Keep a value of this run under a name, unseen, for tests and the report.

    Args:
        name: Letters, digits, `_` and `.`; `macro_f1` of notebook 01 is `01.macro_f1` outside it.
        value: A number, a text, a flag, a dictionary of such; an `Estimate` is kept as value, low
            and high.

    Raises:
        TypeError: The value is of another type.
        ValueError: The value is not finite.
    """
    _recorded[name] = _plain(value)
    display({RECORD_MIME: {"name": name, "value": _recorded[name]}}, raw=True)


def say(text: str, **values: float | int | str | Estimate) -> None:
    """Show a paragraph of Markdown with numbers of this run in it.

    The report makes ordinary prose of it, so that a number is read in JupyterLab as on the page.

    Args:
        text: Markdown; `{name}` or `{name:.2f}` stands for a value, with a format of Python. An
            `Estimate` is shown as `0.41 [0.39, 0.43]`, its parts as `{name.low}` and `{name.high}`.
            Code spans and formulas stay as they are.
        values: Are recorded under their names; others must have been recorded before.

    Raises:
        KeyError: Nothing was recorded under a name.
        ValueError: The format does not fit the value.
    """
    for name, value in values.items():
        record(name, value)
    filled = _FIELD.sub(lambda field: field[0] if field[1] is None else _said(*field.groups()), text)
    display({"text/markdown": filled, "text/plain": filled}, raw=True)


def _said(name: str, spec: str | None) -> str:
    """A recorded value, or a part of one, in a sentence."""
    value, rest = _recorded.get(name), ""
    while value is None and "." in name:
        name, _, part = name.rpartition(".")
        rest = f"{part}.{rest}" if rest else part
        value = _recorded.get(name)
    for part in filter(None, rest.split(".")):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        raise KeyError(
            f"the sentence names {name!r}, which was not recorded before it; recorded: "
            f"{', '.join(sorted(_recorded))}"
        )
    if isinstance(value, dict):
        if not {"value", "low", "high"} <= set(value):
            raise ValueError(f"{name!r} has the parts {', '.join(value)}: name one of them")
        middle, low, high = (format(value[part], spec or ".3f") for part in ("value", "low", "high"))
        return f"{middle} [{low}, {high}]"
    return format(value, spec or "")


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return {"value": _plain(value.value), "low": _plain(value.low), "high": _plain(value.high)}
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if not np.isfinite(value):
            raise ValueError(f"{value} cannot be recorded: say in words why there is no figure")
        return round(value, 6)
    if isinstance(value, (bool, int, str)):
        return value
    raise TypeError(
        f"cannot record a {type(value).__name__}; give a number, a text, an Estimate or a "
        "dictionary of such"
    )


class Live(Protocol):
    """A figure that a reader can ask; `viralbert_utils.lessons.interactive` makes them."""

    def html(self, png: bytes, alt: str) -> str:
        """The figure as HTML, with the still picture in it."""


def show(figure: Figure, alt: str, live: Live | None = None) -> None:
    """Show a figure with a text for those who cannot see it.

    Args:
        figure: Closed afterwards, so that it is shown once.
        alt: What the figure says, in a sentence or two, with the numbers that matter.
        live: Takes the picture's place in a notebook and on the site; the picture stays for print
            and for the committed pages.

    Raises:
        ValueError: The alt text is missing or too short to say anything.
    """
    if len(alt.split()) < 5:
        raise ValueError(f"alt text {alt!r} is too short: say what the figure shows, in a sentence")
    buffer = io.BytesIO()
    # Without the version in it, the same figure gives the same file.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    data = {"image/png": buffer.getvalue(), "text/plain": alt}
    if live is not None:
        data["text/html"] = live.html(buffer.getvalue(), alt)
    display(
        data,
        raw=True,
        metadata={"image/png": {"alt": alt}},
    )


def table(frame: pd.DataFrame, caption: str = "", digits: int = 3, index: bool = True) -> None:
    """Show a table as HTML (notebook, site) and as Markdown (the committed report).

    Args:
        frame: Few rows; texts longer than 200 characters are cut with an ellipsis.
        caption: A line above it; like the cells, it is shown as it is: nothing in it counts as
            HTML.
        digits: Decimals of floating-point columns.
        index: Whether the row names are part of the table.
    """
    # Object columns first: a column of strings does not take a formatted number.
    shown = frame.reset_index() if index else frame.copy()
    shown = shown.astype(object).map(lambda cell: _cell(cell, digits))
    shown.columns = [
        str(column) if column != "index" or not index else "" for column in shown.columns
    ]
    cells = shown.to_html(index=False, border=0, justify="left")
    lines = [
        f"| {' | '.join(map(_in_markdown, row))} |" for row in (shown.columns, *shown.to_numpy())
    ]
    lines.insert(1, f"|{'---|' * len(shown.columns)}")
    data = {
        "text/html": f"<p><strong>{html.escape(caption, quote=False)}</strong></p>{cells}"
        if caption
        else cells,
        "text/markdown": (f"**{_in_markdown(caption)}**\n\n" if caption else "") + "\n".join(lines),
        "text/plain": (f"**{caption}**\n\n" if caption else "") + shown.to_string(index=False),
    }
    display(data, raw=True)


def _in_markdown(text: Any) -> str:
    """A text as a cell of a Markdown table, without HTML, links and images."""
    plain = html.escape(str(text), quote=False).replace("&gt;", ">")
    return plain.replace("](", "]\\(").replace("|", "\\|")


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:,.{digits}f}"
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"{value:,}"
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:199] + "…"


def headline(name: str, what: str, result: Estimate, beside: str) -> None:
    """Record a figure for the report's first page and the README.

    Args:
        name: Unique in the course.
        what: What was measured, on what: "emotions, macro-F1, 255 test texts".
        result: The figure with its interval.
        beside: What to hold it against: the baseline, in words with its figure.
    """
    record(f"headline.{name}", {"what": what, **vars(result), "beside": beside})


def check(name: str, answer: Any, expected: Any, hint: str) -> None:
    """Tell a reader whether the answer to an exercise is right; wait while there is none.

    Args:
        name: What the exercise is called.
        answer: The reader's; `None` or `...` while it is not written.
        expected: The solution's value: a number, an array, or anything that can be compared.
        hint: What to look at when the answer differs.

    Raises:
        AssertionError: The answer is not the expected one.
    """
    if answer is None or answer is ...:
        print(
            f"{name}: write your answer where it says `answer = None`, run that cell, then this one"
        )
        return
    try:
        same = bool(np.allclose(answer, expected, rtol=1e-3))
    except (TypeError, ValueError):
        same = bool(np.array_equal(answer, expected))
    if not same:
        raise AssertionError(f"{name}: not yet. {hint}")
    print(f"✓ {name}: right")


def finish() -> None:
    """Record the peak memory of this notebook's process in MiB; the last call of every notebook."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record("run.peak_memory_mib", round(peak / (2**20 if sys.platform == "darwin" else 2**10)))
