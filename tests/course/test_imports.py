"""The contract of imports: `make lint` keeps it, and an import against it is really found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from viralbert_utils.base.files import ROOT


def broken(folder: Path) -> list[str]:
    """Names of the contracts in pyproject.toml that the packages in a folder break."""
    found = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    lines = found.stdout.splitlines()
    names = [line.removesuffix(" BROKEN") for line in lines if line.endswith(" BROKEN")]
    assert bool(names) == bool(found.returncode), found.stdout + found.stderr
    return names


@pytest.fixture
def copy(tmp_path):
    for package in ("viralbert", "viralbert_utils"):
        only_code = shutil.ignore_patterns("__pycache__", "static", "pretrained")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=only_code)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_packages_keep_the_contract():
    assert broken(ROOT) == []


@pytest.mark.parametrize(
    ("path", "line", "contract"),
    [
        (
            "viralbert_utils/base/texts.py",
            "from viralbert import cli",
            "The product stands on the shared package",
        ),
        (
            "viralbert_utils/models/storage.py",
            "from viralbert_utils.lessons import charts",
            "Rooms of the shared package",
        ),
        (
            "viralbert_utils/data/splits.py",
            "from viralbert_utils.evaluation import metrics",
            "Rooms of the shared package",
        ),
        (
            "viralbert/moments/units.py",
            "from viralbert.serving import predictor",
            "Rooms of the product",
        ),
        ("viralbert_utils/new_room.py", "import re", "Rooms of the shared package"),
    ],
)
def test_an_import_against_the_contract_is_found_inside_a_function_too(copy, path, line, contract):
    with (copy / path).open("a", encoding="utf-8") as file:
        file.write(f"\n\ndef late() -> None:\n    {line}\n")
    assert contract in broken(copy)
