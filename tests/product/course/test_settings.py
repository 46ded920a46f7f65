"""Profiles and settings: checked before anything runs, and each run has a name of its own."""

import json

import pytest

from tests.product.course.lessons import PARAMETERS, executed
from viralbert.course.catalogue import CourseError
from viralbert.course.runner import Run, run
from viralbert_utils.base.errors import DataError

pytestmark = pytest.mark.usefixtures("in_repository")


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (
            {"notebooks": {"01_lesson": {"epoch": 1}}},
            r"no parameter 'epoch' \(did you mean 'epochs'\?\)",
        ),
        (
            {"notebooks": {"01_lesson": {"epochs": "many"}}},
            r"parameter epochs is int, got 'many' \(str\)",
        ),
        ({"notebooks": {"01_lesson": {"epochs": 1.5}}}, "parameter epochs is int, got 1.5"),
        ({"notebooks": {"01_lesson": {"epochs": True}}}, "parameter epochs is int, got True"),
        ({"notebooks": {"09_lesson": {}}}, "no notebook named 09_lesson"),
        ({"titel": "x"}, "expected the keys"),
    ],
)
def test_profiles_are_checked_before_anything_runs(tiny_course, profile, message):
    task = tiny_course([PARAMETERS, "1"], **profile)
    with pytest.raises(CourseError, match=message):
        run(task)
    assert not task.folder.exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("01.epoch=2", "did you mean 'epochs'"),
        ("epochs=2", r"expected a setting like 03\.epochs=2"),
        ("07.epochs=2", "there is no notebook 07"),
    ],
)
def test_settings_are_checked(tiny_course, setting, message):
    task = tiny_course([PARAMETERS, "1"])
    with pytest.raises(CourseError, match=message):
        run(Run(root=task.root, settings=[setting]))


def test_an_integer_is_a_float_and_settings_have_a_run_of_their_own(tiny_course):
    task = tiny_course([PARAMETERS, "print(rate)"])
    other = Run(root=task.root, settings=["01.rate=2"])
    run(other)
    assert other.folder != task.folder
    assert executed(other).cells[-1].outputs[0].text == "2\n"


HOSTILE = [
    "'",
    '"',
    "\\",
    "\\'",
    '\\"',
    "\n",
    "\r\n",
    "\t",
    "\0",
    "\x1b[2J",
    "'" * 3,
    '"' * 3,
    "%matplotlib",
    "'; import os; os.mkdir('ran'); '",
    "!touch ran",
    "{{ x }}",
    "${HOME}",
    "$(touch ran)",
    "`touch ran`",
    "\u2028",
    "\u202e",
    "\ufeff",
    "😂",
    "ё",
    "{'a': 1}",
    "None",
    "__import__('os').mkdir('ran')",
    "\\N{DEGREE SIGN}",
    "\\x41",
    "%s %d {0}",
    " ",
    "",
]


def test_a_notebook_gets_what_was_given_and_runs_nothing_of_it(tiny_course):
    values = {
        "texts": HOSTILE,
        "by_name": dict(zip(HOSTILE, HOSTILE, strict=True)),
        "numbers": [-0.0, 1e308, 2**70],
    }
    source = "texts: list = []  # a\nby_name: dict = {}  # b\nnumbers: list = []  # c"
    show = (
        "import json; print(json.dumps({'texts': texts, 'by_name': by_name, 'numbers': numbers}))"
    )
    task = tiny_course([source, show], notebooks={"01_lesson": values})
    run(task)
    assert json.loads(executed(task).cells[-1].outputs[0].text) == values
    assert not list(task.root.rglob("ran"))


def test_unknown_profile_and_number(tiny_course):
    task = tiny_course([PARAMETERS, "1"])
    with pytest.raises(CourseError, match="no profile 'smokee'; there are: sample"):
        run(Run("smokee", root=task.root))
    with pytest.raises(CourseError, match="no notebook 05; there are 01_lesson"):
        run(Run(root=task.root, only=["5"]))


def test_run_names_keep_other_runs_apart(tmp_path):
    for name in ("a/mine", "b/mine"):
        (tmp_path / name).mkdir(parents=True)
    names = [
        Run(data="a/mine").name,
        Run(data="b/mine").name,
        Run(encoder="a/mine").name,
        Run(data=".").name,
        Run().name,
    ]
    assert len(set(names)) == 5
    assert Run().name == "sample"
    assert Run(data="a/mine").name == Run(data=str(tmp_path / "a" / "mine")).name
    assert (
        Run("full", encoder="cointegrated/rubert-tiny2").name
        == "full-encoder-cointegrated_rubert-tiny2"
    )
    assert Run("smoke").report.parent.name == "smoke"


def test_a_folder_named_like_a_keyword_is_not_meant(tiny_course, tmp_path):
    task = tiny_course([PARAMETERS, "1"], common={"data": "sample"})
    (tmp_path / "sample").mkdir()
    assert task.parameters(task.notebooks[0])["data"] == "sample"


def test_scientific_notation_is_a_number(tiny_course):
    task = tiny_course([PARAMETERS, "1"])
    assert (
        Run(root=task.root, settings=["01.rate=2e-5"]).parameters(task.notebooks[0])["rate"] == 2e-5
    )
    with pytest.raises(DataError, match=r"is no YAML that can be read"):
        run(Run(root=task.root, settings=["01.rate=[1"]))


@pytest.mark.parametrize(
    "value", ["!!int '0x'", "[" * 5000, "!!timestamp 1", "!!python/object:os.system x", "{a: "]
)
def test_a_setting_that_is_no_yaml_is_one_line(tiny_course, value):
    task = tiny_course([PARAMETERS, "1"])
    with pytest.raises(DataError, match="is no YAML that can be read") as caught:
        Run(root=task.root, settings=[f"01.epochs={value}"]).parameters(task.notebooks[0])
    assert "\n" not in str(caught.value)
    (task.root / "profiles" / "sample.yaml").write_text(f"common: {value}")
    with pytest.raises(DataError, match=r"sample\.yaml is no YAML that can be read"):
        _ = Run(root=task.root).config
