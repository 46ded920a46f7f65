"""What several test files share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings

from tests import tiny
from tests.timing import HANG_S
from viralbert.course import report, runner
from viralbert.course.report import Page
from viralbert.course.runner import Run
from viralbert_utils.base import devices
from viralbert_utils.base.files import ROOT

if (
    torch.cuda.is_available()
):  # the tests compute on the CPU all the same: many of them feed a model by hand
    os.environ.setdefault("VIRALBERT_DEVICE", "cpu")
settings.register_profile(
    "any machine", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the real data (../shared/data) are not on this machine")
    return SHARED


@pytest.fixture(autouse=True)
def environment_of_the_process() -> Iterator[None]:
    """A command asks for a device by the environment, which must not reach the next test."""
    before = dict(os.environ)
    yield
    for name in (devices.DEVICE, devices.PRECISION):
        os.environ.pop(name, None)
        os.environ.update({name: before[name]} if name in before else {})


@pytest.fixture(scope="session")
def smoke() -> dict[str, Page]:
    """Every notebook, executed once on the smoke profile (again only if something changed)."""
    run = Run("smoke")
    run.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(
        run.folder.parent / "smoke.lock"
    ):  # one process of the tests runs them, the others wait
        runner.run(run)
    return {notebook.name: report.read_page(run.executed(notebook)) for notebook in run.notebooks}


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """A folder that takes long to make: one process of the tests makes it, each gets a copy."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def made(name: str, make: Callable[[Path], None]) -> Path:
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).is_dir():
                new = tmp_path_factory.mktemp(name)
                make(new)
                new.rename(shared / name)
        return shutil.copytree(shared / name, tmp_path_factory.mktemp(name) / name)

    return made


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write a table as `<tmp>/<set>/<split>.csv`; returns the data folder."""

    def write(name: str, split: str = "train", **columns: list[Any]) -> Path:
        path = tmp_path / name / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(columns).to_csv(path, index=False)
        return tmp_path

    return write


@pytest.fixture
def tiny_course(tmp_path: Path) -> Callable[..., Run]:
    """A repository with profiles and the notebooks given as lists of code cells; the first is the
    parameters cell."""

    def make(*notebooks: list[str], **profile: Any) -> Run:
        folder = tmp_path / "notebooks"
        folder.mkdir(exist_ok=True)
        for number, cells in enumerate(notebooks, 1):
            node = nbformat.v4.new_notebook()
            node.metadata = {
                "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
            }
            node.cells = [nbformat.v4.new_markdown_cell(f"# 0{number}. Lesson\n\nWhat?")]
            node.cells += [nbformat.v4.new_code_cell(source) for source in cells]
            node.cells[1].metadata["tags"] = ["parameters"]
            nbformat.write(node, folder / f"0{number}_lesson.ipynb")
        (tmp_path / "profiles").mkdir(exist_ok=True)
        config = {
            "description": "test",
            "banner": "",
            "offline": True,
            "cell_timeout_s": 600,
            "common": {},
            "notebooks": {},
        } | profile
        import yaml

        (tmp_path / "profiles" / "sample.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        return Run(root=tmp_path)

    return make


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=1000 * HANG_S)
    with sync_playwright() as playwright:
        options = [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-sync",
        ]
        chromium = playwright.chromium.launch(executable_path=executable, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def tiny_tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="session")
def save_tiny_encoder() -> Callable[..., None]:
    """Write a BERT that has learnt nothing, and its tokenizer, as a folder of transformers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def save(folder: Path, vocab_size: int = 15) -> None:
        words = {
            word: i
            for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"абвгдежзик"])
        }
        core = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
        core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
        }
        PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(folder)
        model = tiny.bert(vocab_size, 512, 32, intermediate_size=32, pooler=True)
        model.save_pretrained(folder)

    return save
