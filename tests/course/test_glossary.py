"""The glossary: what lessons link is explained, what is explained is linked."""

import re

import pytest

from viralbert.course import catalogue
from viralbert_utils.base.files import ROOT

GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^## (.+)\n\n(.+)$", GLOSSARY, re.M))
LESSONS = catalogue.notebooks()


def anchor(term: str) -> str:
    return re.sub(r"[^\w\- ]", "", term.lower()).replace(" ", "-")


def links(notebook: catalogue.Notebook) -> list[str]:
    text = "\n".join(cell["source"] for cell in notebook.content["cells"])
    return re.findall(r"\]\(\.\./docs/glossary\.md#([^)\s]+)\)", text)


def test_every_heading_has_an_entry_and_they_are_sorted():
    headings = re.findall(r"^## (.+)$", GLOSSARY, re.M)
    assert headings == list(ENTRIES)
    assert headings == sorted(headings, key=str.casefold)


@pytest.mark.parametrize("term", ENTRIES)
def test_an_entry_has_its_russian_name_and_a_sentence(term):
    russian, text = re.fullmatch(r"\*([^*]+)\.\* (.+)", ENTRIES[term]).groups()
    assert re.search("[а-яё]", russian, re.I) or russian == term, "no Russian name"
    assert len(text.split()) >= 5
    assert text.endswith((".", ")"))


@pytest.mark.parametrize("notebook", LESSONS, ids=lambda notebook: notebook.name)
def test_every_link_of_a_lesson_has_its_entry(notebook):
    assert set(links(notebook)) <= set(map(anchor, ENTRIES))


def test_every_entry_is_linked_by_a_lesson():
    linked = {slug for notebook in LESSONS for slug in links(notebook)}
    assert set(map(anchor, ENTRIES)) == linked
