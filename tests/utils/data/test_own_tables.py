"""A table of one's own that lacks a column, or is none, is an error that says so."""

import importlib
import inspect
import pkgutil
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest

import viralbert_utils
from viralbert_utils.base.errors import DataError
from viralbert_utils.data import cleaning, combine, sources, splits, tables
from viralbert_utils.data.sources import Dataset
from viralbert_utils.lessons import cascade, hybrid, preparation, suspects


def test_a_table_of_ones_own_that_lacks_a_column_is_a_message(write_csv):
    table = pd.DataFrame({"a": ["да"], "b": [1]})
    tables.require_columns(table, ["b", "a"])
    with pytest.raises(DataError, match=r"^the table: no column 'c', 'd'; found a, b: add it, or"):
        tables.require_columns(table, ["c", "a", "d", "c"])
    with pytest.raises(DataError, match=r"^mine: no column 'c'; found none: add it"):
        tables.require_columns(pd.DataFrame(), ["c"], "mine")
    folder = write_csv("virality", text=["да"], label=[1], id=["v0001"])
    (folder / "second_annotation.csv").write_text("set,id\nvirality,v0001\n")
    with pytest.raises(
        DataError, match=r"second_annotation\.csv: no column 'label'; found set, id"
    ):
        sources.second_annotation(sources.load("virality", str(folder)))


ONE = pd.DataFrame({"text": ["да"]})
READERS = {
    "six_classes": (lambda: combine.six_classes(ONE), "emotions: no column 'labels'"),
    "six_classes, cedr": (
        lambda: combine.six_classes(ONE.assign(labels=[[1]]), ONE),
        "cedr: no column 'labels'",
    ),
    "native_and_added": (
        lambda: combine.native_and_added({"test": ONE}),
        "test: no column 'origin'",
    ),
    "by_label": (lambda: splits.by_label(ONE), "no column 'labels'"),
    "by_group": (lambda: splits.by_group(ONE, "film", "label"), "no column 'film', 'label'"),
    "by_time": (lambda: splits.by_time(ONE, "day"), "no column 'day'"),
    "split_set": (lambda: splits.split_set("reviews", {"all": ONE}), "no column 'film', 'label'"),
    "n_shared": (lambda: preparation.n_shared({"train": ONE}, "title"), "train: no column 'title'"),
    "clean": (
        lambda: cleaning.clean(Dataset("mine", "here", {"all": ONE}), names=("a",)),
        "mine/all: no column 'labels'",
    ),
    "clean, text": (
        lambda: cleaning.clean(Dataset("mine", "here", {"all": ONE}), text_column="title"),
        "mine/all: no column 'title'",
    ),
    "suspects": (
        lambda: suspects.suspects(ONE, np.eye(1), np.eye(1), np.ones(1), ("a",)),
        "no column 'id'",
    ),
    "write_sheet": (
        lambda: suspects.write_sheet(ONE.rename(columns={"text": "id"}), "x.csv"),
        "no column 'text'",
    ),
}


@pytest.mark.parametrize(("read", "message"), READERS.values(), ids=READERS)
def test_functions_on_a_table_of_ones_own_name_the_missing_column(read, message):
    with pytest.raises(DataError, match=message):
        read()


def test_corrections_need_the_tables_own_columns(tmp_path):
    (tmp_path / "sheet.csv").write_text("id,text,corrected\n1,да,joy\n")
    with pytest.raises(DataError, match="the table: no column 'id', 'labels'; found text"):
        suspects.read_corrections(tmp_path / "sheet.csv", ONE)


TABLES = pd.DataFrame({"text": ["а"], "labels": [[1]], "label": ["x"], "id": [1]})

HANDED_ON = {
    cascade.Cascade.scores,
    cascade.Rest.predict,  # a form that others fill
    hybrid.Hybrid.predict,
}  # what they get goes to another one of the class first


def functions_of_tables():
    """Every public function of the module with a parameter that is a table, or tables by split."""
    for found in pkgutil.walk_packages(viralbert_utils.__path__, "viralbert_utils."):
        module = importlib.import_module(found.name)
        name = found.name.rpartition(".")[2]
        if name in ("lesson", "plots", "charts", "interactive"):
            continue  # they show what a lesson has made, not what somebody brings
        owners = [
            module,
            *(
                c
                for c in vars(module).values()
                if isinstance(c, type) and c.__module__ == module.__name__
            ),
        ]
        for owner in owners:
            for function in vars(owner).values():
                if (
                    not inspect.isfunction(function)
                    or function in HANDED_ON
                    or function.__module__ != module.__name__
                    or (function.__name__.startswith("_"))
                ):
                    continue
                for parameter in inspect.signature(function).parameters.values():
                    if parameter.annotation in (
                        "pd.DataFrame",
                        "dict[str, pd.DataFrame]",
                        "Mapping[str, pd.DataFrame]",
                    ):
                        yield pytest.param(
                            function,
                            parameter,
                            id=f"{name}.{function.__qualname__}-{parameter.name}",
                        )


@pytest.mark.parametrize(("function", "parameter"), list(functions_of_tables()))
@pytest.mark.parametrize(
    "wrong", [[{"text": "а"}], {"text": ["а"], "labels": [[1]]}, "t.csv", None, np.zeros((2, 2))]
)
def test_what_is_no_table_is_an_error_that_says_so(function, parameter, wrong):
    given = {}
    for name, other in inspect.signature(function).parameters.items():
        if name == parameter.name:
            given[name] = wrong
        elif other.annotation == "pd.DataFrame":
            given[name] = TABLES
        elif other.default is other.empty and other.kind is not other.VAR_KEYWORD:
            given[name] = MagicMock()
    with pytest.raises(DataError, match=r"expected (a pandas\.DataFrame|tables by split)"):
        function(**given)
