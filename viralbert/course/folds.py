"""A Sphinx extension: parts of a page that a reader opens.

Sections `Further: ...` fold beneath their heading, and each page lists its contents in a fold of
its own, for widths at which the theme hides the list in the margin. Both are plain HTML and open
without a script.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

FURTHER = "Further: "


def _fold_further(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for section in list(doctree.findall(nodes.section)):
        title = section.next_node(nodes.title)
        if title is None or not title.astext().startswith(FURTHER):
            continue
        place = section.index(title) + 1
        summary = '<details class="further"><summary>Read this part</summary>'
        section.insert(place, nodes.raw("", summary, format="html"))
        section.append(nodes.raw("", "</details>", format="html"))


def _list_contents(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    body, contents = context.get("body"), context.get("toc", "")
    # One heading alone makes no list: its only link leads to the top of the page.
    if body and contents.count("<a ") > 1:
        fold = f'<details class="contents"><summary>On this page</summary>{contents}</details>'
        head, end, rest = body.partition("</h1>")
        if end:
            context["body"] = f"{head}{end}\n{fold}\n{rest}"
    if context.get("body"):
        # The words on a fold name it; this label of MyST-NB's would hide them from a screen reader.
        context["body"] = context["body"].replace(' aria-label="Toggle hidden content"', "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both."""
    app.connect("doctree-resolved", _fold_further)
    app.connect("html-page-context", _list_contents)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
