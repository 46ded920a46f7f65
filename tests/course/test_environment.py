"""pyproject.toml, requirements.lock and environment.yml say the same."""

import re
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from viralbert_utils.base.files import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import lock

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements() -> list[Requirement]:
    texts = [
        *PROJECT["dependencies"],
        *(text for extra in PROJECT["optional-dependencies"].values() for text in extra),
    ]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_lock_satisfies_pyproject(requirement):
    assert requirement.specifier.contains(lock.read_lock()[lock.canonical(requirement.name)])


def test_environment_yml_has_the_pins_of_the_lock_and_a_reason_for_each():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert text == lock.environment_yml(), "run `make lock`"
    pip = yaml.safe_load(text)["dependencies"][-1]["pip"]
    assert {Requirement(pin).name for pin in pip} == set(lock.direct_dependencies())
    for line in text.splitlines():
        if "==" in line:
            assert len(line.split("  # ")[1].split()) >= 1
    python = re.search(r"python=(3\.\d+)", text)
    assert python
    assert f">={python[1]}" == PROJECT["requires-python"]


def test_the_lock_names_each_package_once_and_no_cuda():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    names = [
        lock.canonical(re.split(r"==", line)[0])
        for line in lines
        if line and not line.startswith("#")
    ]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith(("nvidia", "cuda", "triton"))]
    assert not [line for line in lines if "://" in line or line.startswith("-")]


def test_installed_versions_are_those_of_the_lock(capsys):
    from viralbert.cli import main

    status = main(["check-env"])
    assert status == 0, capsys.readouterr().out
