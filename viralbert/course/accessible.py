"""A Sphinx extension: what the theme leaves out for readers with a screen reader or a keyboard.

The theme's templates have no place for these, so they are written into the finished pages.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

MENDED = {
    # Two landmarks of one kind need names to be told apart.
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Site">',
    '<aside class="toc-drawer': '<aside aria-label="This page" class="toc-drawer',
    '<aside class="announcement-content">': '<aside aria-label="Run" class="announcement-content">',
    # A heading by its role alone has no rank.
    'role="heading"': 'role="heading" aria-level="2"',
    # The corner of a table is a header of nothing.
    "<th></th>": "<td></td>",
    # The words on a fold name it; this label of MyST-NB's would hide them.
    ' aria-label="Toggle hidden content"': "",
}
# A long signature is written as a list of definitions that defines nothing.
_SIGNATURE = re.compile(r"<dl>\n((?:<dd>.*?</dd>\n)+)</dl>")


def mend(page: str) -> str:
    """A page of the site with the names and ranks that it lacks."""
    for old, new in MENDED.items():
        page = page.replace(old, new)
    return _SIGNATURE.sub(
        lambda found: (
            found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>").strip()
        ),
        page,
    )


def _mend_all(app: Sphinx, exception: Exception | None) -> None:
    if exception is None:
        for path in Path(app.outdir).rglob("*.html"):
            path.write_text(mend(path.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Mend the pages once all are written."""
    app.connect("build-finished", _mend_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
