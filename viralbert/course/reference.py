"""The API reference of the site: one page for each room of the packages, generated from the
docstrings, and links between the lessons and the code that they use.

Only `load` imports what it describes. The rest reads source files; Sphinx imports modules when
the site is built.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat

from viralbert.course import catalogue
from viralbert.course.catalogue import Notebook, code_trees, parsed

NOT_RUN = "index.html#not-part-of-this-run"
_LESSONS = re.compile(r"\blessons?\s+\d\d(?:(?:,|\s+and|\s+to)\s+\d\d)*", re.I)
_CODE = re.compile(r"(?<!`)`(?!`)([^`]+)`(?!`)")


def rooms() -> dict[str, list[str]]:
    """The rooms of both packages by their dotted names, and the modules in each."""
    modules_of: dict[str, list[str]] = {}
    for package in catalogue.PACKAGES:
        for path in sorted((catalogue.HOME / package).rglob("*.py")):
            if path.name != "__main__.py":
                room = ".".join(path.parent.relative_to(catalogue.HOME).parts)
                modules = modules_of.setdefault(room, [])
                if path.name != "__init__.py":
                    modules.append(f"{room}.{path.stem}")
    return modules_of


def source_files() -> list[Path]:
    """Everything that the reference is generated from."""
    return [
        path
        for package in catalogue.PACKAGES
        for path in sorted((catalogue.HOME / package).rglob("*.py"))
    ]


def path_of(module: str) -> Path:
    """The file of a module."""
    return catalogue.HOME.joinpath(*module.split(".")).with_suffix(".py")


def room_page(room: str, modules: Iterable[str]) -> str:
    """The page of a room in reStructuredText: autodoc fills it with the docstrings."""
    title = room.rpartition(".")[2]
    lines = [title, "=" * len(title), "", f"``import {room}``", ""]
    lines += [f".. automodule:: {room}", "   :no-members:", ""]
    for module in modules:
        name = module.rpartition(".")[2]
        lines += [name, "-" * len(name), "", f"``from {room} import {name}``", ""]
        lines += [f".. automodule:: {module}", ""]
    return "\n".join(lines)


def code_of(notebook: Notebook) -> dict[str, list[str]]:
    """What a notebook uses of the course's packages.

    Returns:
        The modules in alphabetical order, each with the public functions and classes of it that
        the notebook names.
    """
    used: dict[str, set[str]] = {}
    trees = list(code_trees(notebook))
    modules: dict[str, str] = {}  # the name in the notebook -> the dotted name
    for statement in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(statement, ast.ImportFrom) and statement.module:
            if statement.module.partition(".")[0] not in catalogue.PACKAGES:
                continue
            for alias in statement.names:
                whole = f"{statement.module}.{alias.name}"
                if path_of(whole).is_file():
                    modules[alias.asname or alias.name] = whole
                    used.setdefault(whole, set())
                else:
                    _add(used, statement.module, alias.name)
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            if module:
                _add(used, module, node.attr)
    return {module: sorted(names) for module, names in sorted(used.items())}


def _add(used: dict[str, set[str]], module: str, name: str) -> None:
    """Add a name to the module that defines it, which may be another than the one that has it."""
    if not path_of(module).is_file():
        return
    used.setdefault(module, set())
    for statement in parsed(path_of(module).read_text(encoding="utf-8")).body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)) and statement.name == name:
            used[module].add(name)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            shared = {alias.name for alias in statement.names if alias.asname in (None, name)}
            if name in shared:
                _add(used, statement.module, name)


def with_links(
    node: nbformat.NotebookNode,
    code: Mapping[str, list[str]],
    link: Callable[[str, str], str],
    manuals: Iterable[str],
) -> nbformat.NotebookNode:
    """A copy of a lesson that ends with links to the code that it uses and to the manuals.

    Args:
        node: The lesson.
        code: From `code_of`.
        link: Makes a link of a module and the name of a function in it; of the module itself if
            the name is empty.
        manuals: Links to the manuals that name the lesson.
    """
    lines = ["## Code of this lesson", ""] if code else []
    for module, names in code.items():
        functions = ", ".join(link(module, name) for name in names)
        lines.append(f"- {link(module, '')}{': ' if functions else ''}{functions}")
    if named := ", ".join(manuals):
        lines += ["", f"Manuals: {named}."]
    longer = copy.copy(node)
    if lines:
        longer.cells = [*node.cells, nbformat.v4.new_markdown_cell("\n".join(lines))]
    return longer


def site_link(module: str, name: str) -> str:
    """A link of a lesson's page to the reference."""
    if name:
        return f"{{py:obj}}`{name} <{module}.{name}>`"
    return f"{{py:mod}}`{module}`"


class Docstrings:
    """Docstrings as reStructuredText that leads to the lessons.

    Args:
        pages: Names of all lessons that have a page.
        code: Name of a lesson -> `code_of`.
    """

    def __init__(self, pages: Iterable[str], code: Mapping[str, Mapping[str, list[str]]]) -> None:
        """Note which lessons use what."""
        self.pages = {name[:2]: name for name in pages}
        self.users: dict[str, list[str]] = {}
        for lesson, modules in code.items():
            for module, names in modules.items():
                for name in ["", *names]:
                    self.users.setdefault(f"{module}.{name}".rstrip("."), []).append(lesson[:2])

    def plain(
        self, app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
    ) -> None:
        """Before napoleon reads it: code in single backticks, as Markdown has it."""
        lines[:] = _CODE.sub(r"``\1``", "\n".join(lines)).split("\n")

    def linked(
        self, app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
    ) -> None:
        """After napoleon: lessons as links, and which lessons use the module, function or class."""
        text = _LESSONS.sub(
            lambda words: re.sub(
                r"(?:[Ll]essons?\s+)?\d\d", lambda part: self._link(part[0]), words[0]
            ),
            "\n".join(lines),
        )
        # Nearly all classes are dataclasses, so their attributes are their parameters.
        lines[:] = text.replace(":ivar ", ":param ").split("\n")
        if users := self.users.get(name, []):
            numbers = ", ".join(map(self._link, users))
            lines += ["", f"*Used in lesson{'s' * (len(users) > 1)}* {numbers}.", ""]

    def signature(
        self, app: Any, what: str, name: str, obj: Any, options: Any, signature: Any, returns: Any
    ) -> tuple[Any, Any]:
        """A signature, if there is one, without the paths of the machine that builds the site."""
        return signature and re.sub(r"\w*Path\('[^']*'\)", "...", signature), returns

    def _link(self, words: str) -> str:
        """A link of words that end in the number of a lesson."""
        words, page = " ".join(words.split()), self.pages.get(words[-2:])
        return f":doc:`{words} </{page}>`" if page else f"`{words} <../{NOT_RUN}>`__"


def load() -> None:
    """Import what the reference shows, where its packages are installed.

    autodoc imports with `typing.TYPE_CHECKING` set, which a library may take as a reason for other
    annotations: FastAPI then cannot be imported. What is there already is left as it is.
    """
    for modules in rooms().values():
        for module in modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)


def not_installed() -> list[str]:
    """Packages that the modules import and that are not there, such as those of an extra; autodoc
    puts something in their place."""
    roots = set()
    for path in source_files():
        for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                roots.add(node.module.partition(".")[0])
    return sorted(root for root in roots if importlib.util.find_spec(root) is None)


def options() -> dict[str, Any]:
    """Sphinx's settings for the reference."""
    packages = f"({'|'.join(catalogue.PACKAGES)})"
    return {
        "autodoc_default_options": {
            "members": True,
            "member-order": "bysource",
            "exclude-members": "model_config",  # pydantic writes it, with a docstring in Markdown
        },
        "autodoc_typehints_format": "short",
        "autodoc_preserve_defaults": True,
        "autodoc_mock_imports": not_installed(),
        "add_module_names": False,
        "napoleon_numpy_docstring": False,
        "napoleon_use_ivar": True,
        "napoleon_attr_annotations": False,  # the signature has the types
        "html_use_index": False,
        "html_domain_indices": False,
        "python_maximum_signature_line_length": 88,
        "toc_object_entries_show_parents": "hide",
        # Types of other libraries and type variables have no page; what lessons name must be found.
        "nitpick_ignore_regex": [("py:class", ".*"), ("py:.*", rf"(?!{packages}\b).*")],
    }
