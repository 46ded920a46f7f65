"""The notebooks of the course: what each declares, reads, leaves and imports."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT
from viralbert_utils.data.contracts import CONTRACTS

if TYPE_CHECKING:
    import nbformat

NOTEBOOKS = ROOT / "notebooks"
HOME = Path(__file__).resolve().parents[2]
PACKAGES = ("viralbert_utils", "viralbert")  # lie in HOME


class CourseError(DataError):
    """A run that cannot go on; the message names the notebook, the cell and what to do."""


@dataclass(frozen=True)
class Notebook:
    """A source notebook."""

    path: Path

    @property
    def name(self) -> str:
        """`01_data_preparation`."""
        return self.path.stem

    @property
    def number(self) -> str:
        """`01`."""
        return self.name[:2]

    @cached_property
    def node(self) -> nbformat.NotebookNode:
        """The notebook as nbformat reads and checks it."""
        import nbformat  # a second of imports, and most questions need the content alone

        return nbformat.read(self.path, as_version=4)

    @cached_property
    def content(self) -> dict[str, Any]:
        """The notebook as plain JSON, the source of each cell as one text.

        Raises:
            CourseError: The file is no notebook.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            for cell in content["cells"]:
                cell["source"] = "".join(cell["source"])
        except (ValueError, KeyError, TypeError) as error:
            raise CourseError(
                f"{self.path.name} is no notebook that can be read ({type(error).__name__}: "
                f"{error}); save it again in Jupyter, or take it from the repository"
            ) from None
        return content

    @property
    def reads(self) -> list[str]:
        """Declared inputs."""
        return self._declared("reads")

    @property
    def leaves(self) -> list[str]:
        """Declared outputs."""
        return self._declared("leaves")

    def _declared(self, what: str) -> list[str]:
        items = list(self.content["metadata"].get("viralbert", {}).get(what, []))
        for item in items:
            kind, _, name = item.partition(":")
            if not (kind == "run" and name) and not (
                what == "reads" and kind == "data" and name in CONTRACTS
            ):
                sets = ", ".join(CONTRACTS)
                raise CourseError(
                    f"{self.path.name}: {what} {item!r}; expected run:<path> or, to read, "
                    f"data:<one of {sets}>"
                )
        return items

    @cached_property
    def parameters(self) -> dict[str, tuple[str, Any]]:
        """Parameter -> (type as written, default).

        Raises:
            CourseError: There is not exactly one cell tagged `parameters`, or a line is no `name:
                type = literal`.
        """
        cells = [
            cell
            for cell in self.content["cells"]
            if "parameters" in cell["metadata"].get("tags", [])
        ]
        if len(cells) != 1:
            raise CourseError(
                f"{self.path.name}: expected exactly one cell tagged 'parameters', found "
                f"{len(cells)}"
            )
        defaults = {}
        for statement in ast.parse(cells[0]["source"]).body:
            try:
                if not isinstance(statement, ast.AnnAssign) or statement.value is None:
                    raise ValueError
                defaults[ast.unparse(statement.target)] = (
                    ast.unparse(statement.annotation),
                    ast.literal_eval(statement.value),
                )
            except ValueError:
                raise CourseError(
                    f"{self.path.name}, parameters cell: expected lines like 'epochs: int = 3  # "
                    "passes', "
                    f"found {ast.unparse(statement)!r} (derived values go into the next cell)"
                ) from None
        return defaults


def notebooks(folder: Path = NOTEBOOKS) -> list[Notebook]:
    """All numbered notebooks in order.

    Raises:
        CourseError: None is there, or two carry the same number.
    """
    lessons = [Notebook(path) for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))]
    if not lessons:
        raise CourseError(f"no notebooks like 01_name.ipynb in {folder}")
    numbers = [notebook.number for notebook in lessons]
    for number in numbers:
        if numbers.count(number) > 1:
            raise CourseError(f"two notebooks carry the number {number} in {folder}")
    return lessons


def source_hash(content: Mapping[str, Any]) -> str:
    """sha256 of a notebook's cells, outputs apart."""
    cells = [
        [cell["cell_type"], cell["source"], sorted(cell["metadata"].get("tags", []))]
        for cell in content["cells"]
    ]
    declared = content["metadata"].get("viralbert", {})
    return hashlib.sha256(json.dumps([cells, declared], ensure_ascii=False).encode()).hexdigest()[
        :16
    ]


def code_trees(notebook: Notebook) -> Iterator[ast.Module]:
    """The code cells of a notebook, parsed.

    Raises:
        CourseError: A cell is no Python; the message names its number and line.
    """
    cells = [cell for cell in notebook.content["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        # Magics are no Python; what they import does not matter here.
        plain = re.sub(r"^(\s*)[%!].*$", r"\1pass", cell["source"], flags=re.M)
        try:
            yield ast.parse(plain)
        except SyntaxError as error:
            where = f"code cell {number} of {len(cells)}, line {error.lineno}"
            raise CourseError(f"{notebook.name}, {where}: {error.msg}") from None


def imported_modules(notebook: Notebook) -> list[Path]:
    """Files of the course's packages that a notebook uses, directly or through one another, sorted
    by name."""
    pending = {name for tree in code_trees(notebook) for name in _imports(tree)}
    files: set[Path] = set()
    while pending:
        for path in _files_of(pending.pop()):
            if path not in files:
                # A table or a script beside a module, under its name, is a part of it.
                tables = (path.with_suffix(suffix) for suffix in (".csv", ".yaml", ".js"))
                files |= {path, *(table for table in tables if table.is_file())}
                pending |= _imports_of(path.read_text(encoding="utf-8"))
    return sorted(files)


@cache
def parsed(source: str) -> ast.Module:
    """A module, parsed once however many lessons use it."""
    return ast.parse(source)


@cache
def _imports_of(source: str) -> set[str]:
    return _imports(parsed(source))


def _imports(tree: ast.AST) -> set[str]:
    """Dotted names of what is imported from the course's packages: modules, or names in modules."""
    names = set()
    for statement in ast.walk(tree):
        if isinstance(statement, ast.ImportFrom) and statement.module:
            names |= {f"{statement.module}.{alias.name}" for alias in statement.names}
        elif isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
    return {name for name in names if name.partition(".")[0] in PACKAGES}


def _files_of(name: str) -> Iterator[Path]:
    """The files that importing a dotted name executes: each package on the way, then the module."""
    path = HOME
    for part in name.split("."):
        path /= part
        package, module = path / "__init__.py", path.with_name(f"{part}.py")
        if not package.is_file():
            if module.is_file():
                yield module
            return
        yield package
