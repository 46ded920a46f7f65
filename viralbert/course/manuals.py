"""The manuals in `docs/`: Markdown that reads well in the repository and becomes pages of the site.

A link that leads to a page of the site stays a link there; one to a source file leads to its part
of the API reference; any other file of the repository is named by its path, since a site that is
carried away has no repository around it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from viralbert.course import catalogue
from viralbert.course.catalogue import CourseError

FOLDER = "docs"
_LINK = re.compile(r"(?<!!)\[((?:[^\][]|\[[^\][]*\])*)\]\(([^)#\s]*)(#[^)\s]*|)\)")
_LESSON = re.compile(r"reports/(\d\d_\w+)\.md")


def manuals(root: Path) -> list[Path]:
    """The manuals of a repository, in the order in which `docs/README.md` names them; none if it
    has no such folder.

    Raises:
        CourseError: A manual is missing in the list, or the list names a file that is not there.
    """
    index = root / FOLDER / "README.md"
    if not index.is_file():
        return []
    listed = [
        index.parent / target
        for _, target, _ in _LINK.findall(index.read_text(encoding="utf-8"))
        if re.fullmatch(r"[\w-]+\.md", target)
    ]
    there = set(index.parent.glob("*.md")) - {index}
    if set(listed) != there:
        names = ", ".join(sorted(path.name for path in set(listed) ^ there))
        raise CourseError(
            f"{FOLDER}/README.md must name each manual of its folder once; it differs in: {names}"
        )
    return list(dict.fromkeys(listed))


def title(path: Path) -> str:
    """The heading of a manual."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").strip()


def lessons_of(path: Path) -> set[str]:
    """Names of the lessons that a manual leads to."""
    return set(_LESSON.findall(path.read_text(encoding="utf-8")))


def site_page(path: Path, root: Path, lessons: Collection[str], not_run: str) -> str:
    """A manual as a page of the site.

    Args:
        path: The Markdown file of the manual.
        root: The repository.
        lessons: Names of the lessons that the site has a page of.
        not_run: Where a link to any other lesson leads, seen from the site's first page.

    Raises:
        CourseError: A link leads to a file that is not there.
    """
    others = manuals(root)

    def link(match: re.Match[str]) -> str:
        text, target, part = match.groups()
        if not target or re.match(r"\w+:", target):
            return match[0]
        file = Path(os.path.normpath(path.parent / target))
        if file in others:
            return match[0]
        inside = os.path.relpath(file, root)
        if lesson := _LESSON.fullmatch(inside):
            place = f"{lesson[1]}.ipynb{part}" if lesson[1] in lessons else not_run
            return f"[{text}](../{place})"
        if inside == os.path.join("reports", "README.md"):
            return f"[{text}](../index.md{part})"
        if not file.exists():
            raise CourseError(f"{path.name}: the link to {target} leads nowhere")
        if file.suffix == ".py" and inside.partition(os.sep)[0] in catalogue.PACKAGES:
            module = ".".join(Path(inside).with_suffix("").parts)
            return f"{{py:mod}}`{text.strip('`')} <{module}>`"
        return text if inside in text else f"{text} (`{inside}`)"

    return _LINK.sub(link, path.read_text(encoding="utf-8"))
