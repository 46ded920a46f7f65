"""pyproject.toml, the locks and environment.yml say the same."""

import re
import tomllib
from functools import cache

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from viralbert_utils.base.files import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, EXTRAS = PYPROJECT["project"], PYPROJECT["project"]["optional-dependencies"]
REPORTS = [*PROJECT["dependencies"], *EXTRAS["serve"], *EXTRAS["report"]]
TESTS = [
    *PROJECT["dependencies"],
    *(text for extra in EXTRAS.values() for text in extra),
    *PYPROJECT["dependency-groups"]["dev"],
]
LOCKS = {
    "requirements.lock": REPORTS,
    "requirements-lab.lock": [*REPORTS, *EXTRAS["lab"]],
    "requirements-test.lock": TESTS,
    "requirements-image.lock": PYPROJECT["dependency-groups"]["image"],
}


@cache
def locked(name: str) -> dict[str, str]:
    """What a lock pins: package -> version."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M))


@pytest.mark.parametrize(
    ("lock", "text"), [(lock, text) for lock, wanted in LOCKS.items() for text in wanted]
)
def test_a_lock_has_what_pyproject_asks_for(lock, text):
    wanted = Requirement(text)
    if wanted.name == "torch":
        pytest.skip("no lock names it, so that a machine gets the build that fits it")
    assert wanted.specifier.contains(locked(lock)[canonicalize_name(wanted.name)])


@pytest.mark.parametrize("lock", LOCKS)
def test_every_file_of_a_lock_has_a_hash_and_no_torch_or_cuda_is_pinned(lock):
    entries = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    entries = [entry for entry in entries if not entry.startswith("#")]
    names = [entry.partition("==")[0] for entry in entries]
    assert names == sorted(set(names))
    assert not [name for name in names if re.match(r"(torch|triton)$|cuda|nvidia", name)]
    assert not [entry for entry in entries if "--hash=sha256:" not in entry or "://" in entry]


@pytest.mark.parametrize("lock", LOCKS)
def test_the_locks_agree(lock):
    assert locked(lock).items() <= locked("requirements-test.lock").items()


def test_who_reads_the_lessons_installs_no_tools_of_developers_and_nothing_under_the_gpl():
    readers = locked("requirements.lock").keys()
    assert not readers & {"mypy", "pytest", "ruff", "playwright", "ray", "quadprog", "qpsolvers"}
    assert {"quadprog", "qpsolvers", "ray"} <= locked("requirements-test.lock").keys()


def test_torch_is_the_same_for_make_conda_and_pyproject():
    (wanted,) = (
        wanted for wanted in map(Requirement, PROJECT["dependencies"]) if wanted.name == "torch"
    )
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    version = re.search(r"^TORCH\s+\?= torch==(\S+)$", makefile, re.M)[1]
    assert wanted.specifier.contains(version)
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    python, pytorch = (re.match(r"(\w+)=(\S+)", conda[place]) for place in (0, 2))
    assert python[1] == "python" and f">={python[2]}" == PROJECT["requires-python"]
    assert pytorch[1] == "pytorch" and version.startswith(f"{pytorch[2]}.")
    assert conda[-1] == {"pip": ["-r requirements.lock"]}


def test_installed_versions_are_those_of_the_lock(capsys):
    from viralbert.cli import main

    status = main(["check-env"])
    assert status == 0, capsys.readouterr().out
