"""What a reader of a fresh clone meets: one lesson run and reported, on the sample and on own data,
and whole pages."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest

from viralbert.course import catalogue
from viralbert_utils.base.files import ROOT


class Links(HTMLParser):
    """Targets and anchors of an HTML page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.append(value)
            elif value and (name == "id" or (tag, name) == ("a", "name")):
                self.anchors.add(value)


def markdown_links(page: Path) -> tuple[list[str], set[str]]:
    """Targets and anchors of a Markdown page; an anchor is a heading in small letters with
    hyphens."""
    text = re.sub(
        r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    anchors = {
        re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-") for heading in headings
    }
    return re.findall(r"\]\(([^)\s]+)\)", text), anchors


def broken_links(folder: Path) -> list[str]:
    """Links of the pages in a folder to files and anchors that are not there; other hosts are not
    asked."""
    pages = {page: markdown_links(page) for page in sorted(folder.resolve().glob("*.md"))}
    for page in sorted(folder.resolve().rglob("*.html")):
        links = Links(page)
        pages[page] = (links.targets, links.anchors)
    broken = []
    for page, (targets, _) in pages.items():
        for link in targets:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            if not target.exists() or (
                anchor and target in pages and anchor not in pages[target][1]
            ):
                broken.append(f"{page.relative_to(folder.resolve())}: {link}")
    assert pages, folder
    return broken


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files as they are now, those that are not committed yet included, and
    nothing else."""
    target = tmp_path_factory.mktemp("clone")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no git checkout")
    names = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    for name in ("emotions", "virality"):
        (target / "mydata" / name).mkdir(parents=True)
        table = pd.read_csv(target / "data" / "sample" / f"{name}.csv").sample(400, random_state=0)
        table.to_csv(target / "mydata" / name / "train.csv", index=False)
    return target


def call(clone: Path, *arguments: str, cwd: str = ".") -> str:
    """What Python prints in the clone; its package goes before the installed one, in kernels
    too."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=clone / cwd,
        env=os.environ | {"PYTHONPATH": str(clone)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("data", "make"), [("", "PROFILE=smoke"), ("mydata", "PROFILE=smoke DATA=mydata")]
)
def test_one_lesson_runs_and_its_report_is_whole(clone, data, make):
    where = call(
        clone, "-c", "import viralbert_utils; print(viralbert_utils.__file__)", cwd="notebooks"
    )
    assert Path(where.strip()).is_relative_to(clone)
    task = ["--profile", "smoke", "--only", "01", *(["--data", data] if data else [])]
    assert "executed: 01_data_preparation\n" in call(clone, "-m", "viralbert.cli", "run", *task)
    printed = call(clone, "-m", "viralbert.cli", "report", *task)
    report = clone / Path(printed.removeprefix("report: ").strip()).parents[1]
    assert broken_links(report / "site") == []
    assert broken_links(report) == []
    first = (report / "README.md").read_text(encoding="utf-8")
    missing = [notebook for notebook in catalogue.notebooks() if notebook.number != "01"]
    assert [line.split("`")[1] for line in first.splitlines() if line.startswith("- **")] == [
        f"make reports ONLY={notebook.number} {make}" for notebook in missing
    ]
    assert (
        "index.html#not-part-of-this-run"
        in Links(report / "site" / "01_data_preparation.html").targets
    )
    assert {path.name for path in clone.iterdir()} - {path.name for path in ROOT.iterdir()} <= {
        "mydata",
        "runs",
    }
    assert not list(clone.parent.glob("runs"))


def test_no_link_of_the_committed_report_is_broken():
    assert broken_links(ROOT / "reports") == []


def test_broken_links_are_found(tmp_path):
    page = (
        '<h1 id="top">T</h1><a href="#top">1</a><a href="b.html#none">2</a><img src="no.png"><a '
        'href="//host/x">3</a>'
    )
    (tmp_path / "a.html").write_text(page, encoding="utf-8")
    (tmp_path / "b.html").write_text(
        '<a href="a.html#top">1</a><a href="#none">2</a>', encoding="utf-8"
    )
    (tmp_path / "c.md").write_text(
        "# A title: one\n\n[1](#a-title-one) [2](c.md#two) [3](none.md) `[4](x.md)`"
    )
    found = [
        "c.md: c.md#two",
        "c.md: none.md",
        "a.html: b.html#none",
        "a.html: no.png",
        "b.html: #none",
    ]
    assert broken_links(tmp_path) == found
