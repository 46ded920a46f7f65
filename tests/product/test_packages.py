"""What is said where a package is missing: the same line everywhere."""

import sys

import pytest

from tests.product.course.lessons import PARAMETERS
from viralbert import packages
from viralbert.course.catalogue import CourseError
from viralbert.course.runner import run
from viralbert.serving.onnx_model import OnnxModel
from viralbert_utils.base.errors import DataError


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("ray.data", "the package ray is not installed: pip install 'viralbert-course[archives]'"),
        (
            "opentimelineio",
            "the package opentimelineio is not installed: pip install 'viralbert-course[video]'",
        ),
        (
            "onnxruntime",
            "the package onnxruntime is not installed: pip install 'viralbert-course[serve]'",
        ),
        (
            "sklearn.svm",
            "the package scikit-learn is not installed: pip install 'viralbert-course'",
        ),
        ("tokenizers", "the package transformers is not installed: pip install 'viralbert-course'"),
    ],
)
def test_a_module_leads_to_its_package_and_what_brings_it(module, line):
    assert packages.missing(module) == line
    assert packages.is_own(module)


@pytest.mark.parametrize("module", ["pandsa", "torchvision", "onnx_graphsurgeon", "os"])
def test_other_modules_are_not_ours(module):
    assert not packages.is_own(module)


def test_an_export_without_its_runtime_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        DataError, match=r"onnxruntime is not installed: pip install 'viralbert-course\[serve\]'"
    ):
        OnnxModel.load(tmp_path)


def test_a_notebook_that_lacks_a_package_says_what_to_install(tiny_course):
    hidden = "import sys\nsys.modules['onnxscript'] = None"
    task = tiny_course(
        [PARAMETERS, f"{hidden}\nraise ModuleNotFoundError(\"No module named 'onnxscript.ir'\")"]
    )
    with pytest.raises(
        CourseError, match=r"code cell 2 of 2 .*'viralbert-course\[serve\]'\); the copy"
    ) as caught:
        run(task)
    assert "\n" not in str(caught.value)
    with pytest.raises(CourseError, match="No module named 'pandsa'; the copy"):
        run(tiny_course([PARAMETERS, "import pandsa"]))
