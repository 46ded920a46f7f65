"""The site: Sphinx makes it of the executed notebooks, the manuals and the docstrings."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import nbformat

from viralbert.course import catalogue, manuals, reference
from viralbert.course.catalogue import CourseError
from viralbert.course.runner import Run

STATIC = Path(__file__).parent / "static"
STYLE, SCRIPT = STATIC / "course.css", STATIC / "course.js"
NOT_RUN = "index.md#not-part-of-this-run"


def has_reference(root: Path) -> bool:
    """Whether a repository's site has the API reference: it is the one that the packages lie in."""
    return root.resolve() == catalogue.HOME


def sources(root: Path) -> list[Path]:
    """Files that the site of a repository is made of beside its notebooks."""
    code = reference.source_files() if has_reference(root) else []
    return [
        *sorted(Path(__file__).parent.glob("*.py")),
        STYLE,
        SCRIPT,
        *manuals.manuals(root),
        *code,
    ]


def build_site(
    run: Run, prepared: Mapping[str, nbformat.NotebookNode], first: str, built: Path
) -> None:
    """Build the site of a run.

    Args:
        run: The run.
        prepared: Name of a lesson -> its notebook as `report.prepare` returns it.
        first: The first page in Markdown.
        built: The folder to make.

    Raises:
        CourseError: Sphinx warns of anything, such as a link that leads nowhere.
    """
    # Sphinx takes these by name, and if one is not installed, its own error hides which.
    import furo  # noqa: F401
    import latex2mathml  # noqa: F401
    import myst_nb  # noqa: F401

    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "source")
        source.mkdir()
        settings = _settings(run.config["banner"])
        docstrings = _write_sources(run, prepared, first, source)
        if docstrings:
            reference.load()
            settings["extensions"] += ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
            settings |= reference.options()
        # Built here and not in its place: MyST-NB leaves what it has read beside the site.
        _sphinx(Path(scratch), settings, docstrings)
        for leftover in (".buildinfo", "objects.inv"):
            Path(scratch, "site", leftover).unlink(missing_ok=True)
        shutil.move(Path(scratch, "site"), built)


def _write_sources(
    run: Run, prepared: Mapping[str, nbformat.NotebookNode], first: str, source: Path
) -> reference.Docstrings | None:
    """Write what Sphinx reads; returns how it reads docstrings, if it does."""
    contents = _contents("Lessons", prepared)
    guides = manuals.manuals(run.root)
    for guide in guides:
        text = manuals.site_page(guide, run.root, prepared, NOT_RUN)
        _write(source / manuals.FOLDER / guide.name, text)
    contents += _contents("Manuals", [f"{manuals.FOLDER}/{guide.stem}" for guide in guides])
    docstrings = None
    code: dict[str, dict[str, list[str]]] = {}
    if has_reference(run.root):
        rooms = reference.rooms()
        for room, modules in rooms.items():
            _write(source / "api" / f"{room}.rst", reference.room_page(room, modules))
        for package in catalogue.PACKAGES:
            pages = [f"api/{room}" for room in rooms if room.partition(".")[0] == package]
            contents += _contents(f"Code: {package}", pages)
        code = {notebook.name: reference.code_of(notebook) for notebook in run.notebooks}
        docstrings = reference.Docstrings(prepared, code)
    for name, node in prepared.items():
        links = [
            f"[{manuals.title(guide)}]({manuals.FOLDER}/{guide.name})"
            for guide in guides
            if name in manuals.lessons_of(guide)
        ]
        whole = reference.with_links(node, code.get(name, {}), reference.site_link, links)
        whole = _beside_manuals(whole)
        nbformat.write(whole, source / f"{name}.ipynb")
    _write(source / "index.md", f"{first}\n{contents}")
    return docstrings


def _beside_manuals(node: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of a lesson whose links to the manuals start where its page lies on the site."""
    moved = copy.copy(node)
    moved.cells = [copy.copy(cell) for cell in node.cells]
    for cell in moved.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace(f"](../{manuals.FOLDER}/", f"]({manuals.FOLDER}/")
    return moved


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _contents(caption: str, pages: Collection[str]) -> str:
    """A part of the navigation."""
    lines = ["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", "", ""]
    return "\n".join(lines) if any(pages) else ""


def _settings(banner: str) -> dict[str, Any]:
    return {
        "project": "ViralBERT course",
        "html_title": "ViralBERT course",
        "extensions": ["myst_nb", "viralbert.course.mathml", "viralbert.course.folds"],
        "html_theme": "furo",
        "html_theme_options": {"announcement": banner} if banner else {},
        "html_math_renderer": "mathml",
        "html_static_path": [str(STYLE), str(SCRIPT)],
        "html_css_files": [STYLE.name],
        "html_js_files": [SCRIPT.name],
        "html_copy_source": False,
        "html_show_sphinx": False,
        "html_show_copyright": False,
        "myst_enable_extensions": ["dollarmath"],
        "myst_heading_anchors": 3,
        "nb_execution_mode": "off",
        "nb_merge_streams": True,
        "nitpicky": True,
        "language": "en",
    }


def _sphinx(
    scratch: Path, settings: dict[str, Any], docstrings: reference.Docstrings | None
) -> None:
    """Build `scratch/site` of `scratch/source`; whatever Sphinx warns of is an error."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    log = scratch / "warnings.txt"
    with (
        open(os.devnull, "w") as quiet,
        docutils_namespace(),
        log.open("w", encoding="utf-8") as warnings,
    ):
        app = Sphinx(
            str(scratch / "source"),
            None,
            str(scratch / "site"),
            str(scratch / "doctrees"),
            "html",
            settings,
            status=quiet,
            warning=warnings,
            freshenv=True,
        )
        if docstrings:
            # Napoleon reads docstrings at the priority of 500.
            app.connect("autodoc-process-docstring", docstrings.plain, priority=400)
            app.connect("autodoc-process-docstring", docstrings.linked, priority=600)
            app.connect("autodoc-process-signature", docstrings.signature)
        app.build()
    logging.getLogger("sphinx").handlers.clear()
    problems = log.read_text(encoding="utf-8").strip()
    if app.statuscode or problems:
        raise CourseError(f"the site could not be built cleanly:\n{problems}")
