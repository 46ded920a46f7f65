"""What the first page of a report says of the way through the lessons: which leads to which, and
how long each takes to read.

All of it is counted from the notebooks: what they declare to read and to leave, and their words.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from viralbert.course.catalogue import Notebook

if TYPE_CHECKING:
    import nbformat

WORDS_A_MINUTE = 180  # slower than a novel: formulas, tables and figures take their time
LINES_A_MINUTE = 25  # of code that stands open
_ROW, _LANE = 44, 15  # heights of a row and widths of a lane, in pixels


def reading_minutes(node: nbformat.NotebookNode) -> int:
    """Minutes that a prepared page takes to read: its prose, and the code that is not folded."""
    words = lines = 0
    for cell in node.cells:
        if cell.cell_type == "markdown":
            words += len(re.findall(r"\w+", cell.source))
        elif not {"hide-input", "hide-cell", "solution"} & set(cell.metadata.get("tags", [])):
            lines += len(cell.source.splitlines())
    return max(1, round(words / WORDS_A_MINUTE + lines / LINES_A_MINUTE))


def needs(notebooks: Sequence[Notebook]) -> dict[str, list[str]]:
    """Number of each lesson -> numbers of those whose results it reads, without those that
    another of them reads already."""
    left_by = {file: notebook.number for notebook in notebooks for file in notebook.leaves}
    direct = {
        notebook.number: {
            left_by[file]
            for file in notebook.reads
            if left_by.get(file, notebook.number) != notebook.number
        }
        for notebook in notebooks
    }

    def before(number: str) -> set[str]:
        return direct[number].union(*(before(other) for other in direct[number]))

    return {
        number: sorted(others - set().union(*(before(other) for other in others)))
        for number, others in direct.items()
    }


def read_first(notebook: Notebook) -> list[str]:
    """Numbers of the lessons that a lesson's table of needs names, whether it reads their files or
    not."""
    for cell in notebook.content.get("cells", []):
        _, heading, table = cell["source"].partition("## Before you start")
        if heading and cell["cell_type"] == "markdown":
            return sorted(set(re.findall(r"^\| *\[?lesson (\d\d)\b", table, re.M)))
    return []


def way(
    notebooks: Sequence[Notebook],
    titles: Mapping[str, str],
    minutes: Mapping[str, int],
) -> tuple[str, str]:
    """The way through the lessons, once for the site and once for Markdown: what to read first, by
    their tables of needs, and whose files a lesson uses.

    Args:
        notebooks: All lessons of the course, in order.
        titles: Name of a lesson that has a page -> its title.
        minutes: Name of such a lesson -> `reading_minutes`.

    Returns:
        HTML with a drawing beside the list of lessons, and a Markdown table that says the same.
    """
    shown = [notebook for notebook in notebooks if notebook.name in titles]
    leads = needs(shown)
    columns = ("lesson", "minutes to read", "read first", "uses files of")
    items, rows = [], [f"| {' | '.join(columns)} |", "|---|---|---|---|"]
    for notebook in shown:
        name, after, before = notebook.name, leads[notebook.number], read_first(notebook)
        told = f"read {_enumerated(before or after)} first"
        if not after and any(notebook.number in others for others in leads.values()):
            told = "start here"
        elif not after:
            told = f"{told}; uses no files of other lessons" if before else "stands alone"
        items.append(
            f'<li><a href="{name}.html">{html.escape(titles[name])}</a>'
            f"<span>{minutes[name]} minutes, {told}</span></li>"
        )
        rows.append(
            f"| [{titles[name]}]({name}.ipynb) | {minutes[name]} | {', '.join(before) or '-'} | "
            f"{', '.join(after) or '-'} |"
        )
    drawing = _drawing([notebook.number for notebook in shown], leads)
    listed = f'<div class="way">{drawing}<ol>{"".join(items)}</ol></div>'
    return listed, "\n".join(rows)


def _enumerated(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def _drawing(numbers: Sequence[str], leads: Mapping[str, Sequence[str]]) -> str:
    """Lessons as circles, one a row, and lines from each to those that use its files."""
    lanes: dict[str, int] = {}
    for number in numbers:
        lanes[number] = 1 + max((lanes[other] for other in leads[number]), default=-1)
    starts = {other for others in leads.values() for other in others}
    alone = [number for number in numbers if not leads[number] and number not in starts]
    # Those that stand alone have a lane of their own, where no line passes through them.
    rail = 1 + max((lane for number, lane in lanes.items() if number not in alone), default=-1)
    lanes |= dict.fromkeys(alone, rail)
    x = {number: _LANE * (lane + 0.5) for number, lane in lanes.items()}
    y = {number: _ROW * (row + 0.5) for row, number in enumerate(numbers)}
    lines, says = [], []
    for number in numbers:
        for other in leads[number]:
            lines.append(
                f'<path d="M{x[other]:g} {y[other]:g}V{y[number] - 8:g}'
                f'Q{x[other]:g} {y[number]:g} {x[other] + 8:g} {y[number]:g}H{x[number]:g}"/>'
            )
        after = [other for other in numbers if number in leads[other]]
        if after:
            says.append(f"{number} leads to {' and '.join(after)}")
    circles = [f'<circle cx="{x[number]:g}" cy="{y[number]:g}" r="5"/>' for number in numbers]
    width, height = _LANE * (max(lanes.values(), default=0) + 1), _ROW * len(numbers)
    said = "; ".join(says) or "each stands alone"
    return (
        f'<svg role="img" aria-label="How the lessons lead to each other: {said}." '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"{''.join(lines)}{''.join(circles)}</svg>"
    )
