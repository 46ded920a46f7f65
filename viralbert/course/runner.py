"""Running the notebooks, and only those that something has changed for.

Profiles, and one strict call around papermill.

A notebook says in its metadata what it reads and leaves (`viralbert: {reads: [...], leaves:
[...]}`): `data:emotions` is a set of the data source, `run:tables/emotions` what an earlier
notebook left in the run's folder.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from viralbert import packages
from viralbert.course import catalogue
from viralbert.course.catalogue import (
    CourseError,
    Notebook,
    imported_modules,
    notebooks,
    source_hash,
)
from viralbert.places import check_data, check_encoder
from viralbert.plain_yaml import read_yaml
from viralbert_utils.base.files import ROOT, locked, own_path, sha256, write_whole
from viralbert_utils.base.variables import DEVICE, PRECISION
from viralbert_utils.data.contracts import CONTRACTS

if TYPE_CHECKING:
    import nbformat

KERNEL = "python3"
SOCKETS, RUNNING = (
    "vb-",
    "run.lock",
)  # how folders for sockets begin, and what their run holds in them
KEYWORDS = ("sample", "hub", "embedded")  # values of data and encoder that are no folders


_EXIT_AT_ONCE = 'globals().update(dict.fromkeys(("exit", "quit"), __import__("sys").exit))'


@dataclass
class Run:
    """What to run, with which parameters, and where to: everything that a `viralbert run` is told.

    Attributes:
        profile: Name of a file in `profiles/`.
        data: `sample`, `hub` or a folder; the profile's if empty.
        encoder: Hub name, folder or `embedded`; the profile's if empty.
        only: Numbers of notebooks; all if empty. What they read from is brought up to date first.
        settings: `03.epochs=2` each: one parameter of one notebook.
        root: The repository.
        device: Where kernels compute (`devices.default`); the environment decides if empty.
        precision: Kind of numbers (`devices.precision`); the environment decides if `auto`.
    """

    profile: str = "sample"
    data: str = ""
    encoder: str = ""
    only: Sequence[str] = ()
    settings: Sequence[str] = ()
    root: Path = ROOT
    device: str = ""
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Take device and precision from the environment where nothing else is said."""
        self.device = self.device or os.environ.get(DEVICE, "")
        if self.precision == "auto":
            self.precision = os.environ.get(PRECISION, "auto")

    @property
    def name(self) -> str:
        """`sample`, or a name of its own when the run was told otherwise.

        So it never overwrites the plain run.
        """
        parts = [self.profile]
        for kind, value in (("data", self.data), ("encoder", self.encoder)):
            if value and value not in KEYWORDS and (folder := own_path(value).resolve()).is_dir():
                # Two folders of one name are two sources.
                parts.append(
                    f"{kind}-{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"
                )
            elif value:
                parts.append(f"{kind}-{value}")
        asked = {"device": self.device, "precision": self.precision}
        parts += [f"{kind}-{value}" for kind, value in asked.items() if value not in ("", "auto")]
        if self.settings:
            parts.append(hashlib.sha256(" ".join(sorted(self.settings)).encode()).hexdigest()[:8])
        return "-".join(re.sub(r"[^\w.-]+", "_", part) for part in parts)

    @property
    def folder(self) -> Path:
        """Where executed notebooks and what they leave are kept."""
        return self.root / "runs" / self.name

    @property
    def report(self) -> Path:
        """`reports/` for the whole plain sample run, else a folder of the run.

        A report of some lessons in the place of the whole one would take the others' pages away.
        """
        whole = self.name == "sample" and all(
            self.executed(notebook).is_file() for notebook in self.notebooks
        )
        return self.root / "reports" if whole else self.folder / "report"

    @cached_property
    def notebooks(self) -> list[Notebook]:
        """All notebooks of the course."""
        return notebooks(self.root / "notebooks")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The profile as read.

        Raises:
            CourseError: There is no such profile, or it is not of the known form.
        """
        path = self.root / "profiles" / f"{self.profile}.yaml"
        if not path.is_file():
            names = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
            raise CourseError(f"no profile {self.profile!r}; there are: {names}")
        config = read_yaml(path.read_text(encoding="utf-8"), path.name)
        expected = {"description", "banner", "offline", "cell_timeout_s", "common", "notebooks"}
        if not isinstance(config, dict) or set(config) != expected:
            raise CourseError(
                f"{path.name}: expected the keys {sorted(expected)}, found {sorted(config or {})}"
            )
        unknown = set(config["notebooks"] or {}) - {notebook.name for notebook in self.notebooks}
        if unknown:
            raise CourseError(f"{path.name}: no notebook named {', '.join(sorted(unknown))}")
        return config

    def parameters(self, notebook: Notebook) -> dict[str, Any]:
        """What papermill passes to a notebook, checked against what the notebook declares.

        Raises:
            CourseError: An unknown parameter, or a value of another type than the default's.
        """
        shared = dict(self.config["common"] or {})
        given = {
            name: value for name, value in (("data", self.data), ("encoder", self.encoder)) if value
        }
        given["run_dir"] = self.folder.relative_to(self.root).as_posix()
        overrides = dict((self.config["notebooks"] or {}).get(notebook.name) or {})
        # What the user says goes before what the profile says, the narrower before the wider.
        values = {k: v for k, v in shared.items() if k in notebook.parameters} | overrides
        values |= {k: v for k, v in given.items() if k in notebook.parameters}
        for setting in self.settings:
            number, name, value = _parse_setting(setting, self.notebooks)
            if number == notebook.number:
                values[name] = value
        # Paths are given relative to where the command runs; notebooks run in their own folder.
        for name, value in values.items():
            if (
                not value
                or value in KEYWORDS
                or not (name in ("data", "encoder") or name.endswith("_file"))
            ):
                continue
            path = own_path(str(value))
            if path.is_file() if name.endswith("_file") else path.is_dir():
                values[name] = os.path.relpath(path, notebook.path.parent)
        for name in list(values):
            if name not in notebook.parameters:
                close = difflib.get_close_matches(name, notebook.parameters, 1)
                raise CourseError(
                    f"{notebook.name} has no parameter "
                    f"{name!r}{f' (did you mean {close[0]!r}?)' if close else ''}; "
                    f"it has {', '.join(notebook.parameters)}"
                )
            kind = notebook.parameters[name][0]
            value = values[name] = _number(values[name], kind)
            if not _fits(value, kind):
                raise CourseError(
                    f"{notebook.name}: parameter {name} is {kind}, got {value!r} "
                    f"({type(value).__name__})"
                )
        return values

    def selected(self) -> list[Notebook]:
        """The notebooks to bring up to date: those asked for and those they read from, in order.

        Raises:
            CourseError: A number that no notebook carries.
        """
        wanted = {str(number).zfill(2) for number in self.only} or {
            n.number for n in self.notebooks
        }
        unknown = wanted - {n.number for n in self.notebooks}
        if unknown:
            raise CourseError(
                f"no notebook {', '.join(sorted(unknown))}; there are "
                f"{', '.join(n.name for n in self.notebooks)}"
            )
        for notebook in reversed(self.notebooks):
            if notebook.number in wanted:
                wanted |= {n.number for n in self.notebooks if set(n.leaves) & set(notebook.reads)}
        return [notebook for notebook in self.notebooks if notebook.number in wanted]

    def fingerprint(self, notebook: Notebook) -> dict[str, Any]:
        """Everything on which a notebook's output depends.

        That is its source, its parameters, the modules it uses, and what it reads.
        """
        defaults = {name: default for name, (_, default) in notebook.parameters.items()}
        parameters = defaults | self.parameters(notebook)
        return {
            "source": source_hash(notebook.content),
            "parameters": parameters,
            "modules": {
                path.relative_to(catalogue.HOME).as_posix(): sha256(path)[:16]
                for path in imported_modules(notebook)
            },
            "reads": dict(self._digests(notebook, parameters)),
        }

    def _digests(self, notebook: Notebook, parameters: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Name and sha256 of every file that a notebook reads."""
        here = notebook.path.parent
        source = str(parameters.get("data", "sample"))
        source = source if source in KEYWORDS else str(here / own_path(source))
        for kind, _, name in (item.partition(":") for item in notebook.reads):
            yield from self._left(name) if kind == "run" else _in_tables(name, source)
        if any(item.startswith("data:") for item in notebook.reads):
            yield from _in_second_annotation(source)
        for name, value in parameters.items():
            if value and value not in KEYWORDS and (name == "encoder" or name.endswith("_file")):
                yield from self._given(name, here, own_path(str(value)))

    def _given(self, name: str, here: Path, given: Path) -> Iterator[tuple[str, str]]:
        """Name and sha256 of the files that a parameter names."""
        path = here / given
        if name == "encoder":
            for file in sorted(path.rglob("*")) if path.is_dir() else []:
                if file.is_file():
                    yield f"encoder:{file.relative_to(path).as_posix()}", sha256(file)
            return
        # As in `lesson.find`: a file that comes with the course is named from the repository's
        # root.
        path = path if path.is_file() else self.root / given
        if path.is_file():
            yield f"{name}:{path.name}", sha256(path)

    def _left(self, name: str) -> Iterator[tuple[str, str]]:
        """Name and sha256 of the files that an item such as `tables/emotions` stands for."""
        left = self.folder / name
        for path in sorted(left.rglob("*")) if left.is_dir() else [left]:
            if path.is_file():
                yield f"run:{path.relative_to(self.folder).as_posix()}", sha256(path)

    def leavings(self, notebook: Notebook) -> dict[str, str]:
        """What a notebook left, file by file, as it stands now."""
        return dict(
            pair for item in notebook.leaves for pair in self._left(item.removeprefix("run:"))
        )

    def executed(self, notebook: Notebook) -> Path:
        """Where the executed copy of a notebook stands."""
        return self.folder / notebook.path.name

    def is_fresh(self, notebook: Notebook) -> bool:
        """Whether the executed copy was made from exactly what is there now.

        What the notebook left must still be there, too.
        """
        path = self.executed(notebook)
        if not path.is_file():
            return False
        stamp = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("viralbert_run", {})
        # A later run that failed half-way may have left other files behind the finished copy.
        return stamp.get("left") == self.leavings(notebook) and stamp.get(
            "fingerprint"
        ) == self.fingerprint(notebook)


def _in_tables(name: str, source: str) -> Iterator[tuple[str, str]]:
    """Name and sha256 of the tables of a data set."""
    # It brings pandas, for which no error of a setting must wait.
    from viralbert_utils.data import sources

    if source == "hub":
        yield f"data:{name}", f"hub:{CONTRACTS[name].hub}"
    elif sources.has(name, source):
        for path in sources.find_files(name, source).values():
            yield f"data:{name}/{path.name}", sha256(path)


def _in_second_annotation(source: str) -> Iterator[tuple[str, str]]:
    """Name and sha256 of the second annotation, if the source has one."""
    from viralbert_utils.data import sources

    path = (sources.SAMPLE if source == "sample" else Path(source)) / "second_annotation.csv"
    if path.is_file():
        yield f"data:{path.name}", sha256(path)


def _parse_setting(setting: str, known: Iterable[Notebook]) -> tuple[str, str, Any]:
    match = re.fullmatch(r"(\d\d)(?:_\w+)?\.(\w+)=(.*)", setting)
    if not match:
        raise CourseError(f"expected a setting like 03.epochs=2, got {setting!r}")
    if match[1] not in {notebook.number for notebook in known}:
        raise CourseError(f"setting {setting!r}: there is no notebook {match[1]}")
    return match[1], match[2], read_yaml(match[3], f"setting {setting[:70]!r}")


def _number(value: Any, kind: str) -> Any:
    """YAML reads 2e-5 as text; where a float is expected, it is one."""
    if (
        kind == "float"
        and isinstance(value, str)
        and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value)
    ):
        return float(value)
    return value


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return "None" in kind
    name = re.split(r"[\[|\s]", kind)[0]
    types: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "str": (str,),
        "bool": (bool,),
        "list": (list,),
        "dict": (dict,),
    }
    if name not in types:
        raise CourseError(f"parameter type {kind!r} is not known; use {', '.join(types)}")
    return isinstance(value, types[name]) and (name == "bool" or not isinstance(value, bool))


@dataclass
class RunOutcome:
    """What a run did.

    Attributes:
        executed: Names of the notebooks that were executed.
        skipped: Names of those that were up to date.
    """

    executed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def run(course_run: Run) -> RunOutcome:
    """Bring the selected notebooks up to date, in order.

    Each finished one is kept, whatever happens after it. A second run of the same folder waits for
    the first, and then finds its notebooks up to date.

    Raises:
        CourseError: See `execute`; also a notebook that does not leave what it declares.
        DataError: The data source lacks what a notebook reads, or there is no such device here.
    """
    selected = course_run.selected()
    for notebook in selected:
        course_run.parameters(
            notebook
        )  # a typo in the last notebook's parameters must not cost the first one's minutes
    check_sources(course_run, selected)
    with locked(course_run.folder):
        return _bring_up_to_date(course_run, selected)


def check_sources(course_run: Run, selected: Sequence[Notebook]) -> None:
    """Refuse data and encoders that are not there, before a kernel starts for them.

    Raises:
        DataError: See `check_data` and `check_encoder`.
    """
    named: dict[tuple[str, str], Path] = {}
    for notebook in selected:
        for name, value in course_run.parameters(notebook).items():
            if name in ("data", "encoder") and value and value not in KEYWORDS:
                named.setdefault((name, str(value)), notebook.path.parent)
    for (name, value), folder in named.items():
        if name == "data":
            check_data(value, folder)
        else:
            check_encoder(value, folder, course_run.config["offline"])


def _bring_up_to_date(course_run: Run, selected: Sequence[Notebook]) -> RunOutcome:
    outcome = RunOutcome()
    for notebook in selected:
        if course_run.is_fresh(notebook):
            outcome.skipped.append(notebook.name)
            continue
        stamp = _stamp(course_run, notebook)
        execute(
            notebook,
            course_run.parameters(notebook),
            course_run.executed(notebook),
            course_run.config["cell_timeout_s"],
            offline=course_run.config["offline"],
            stamp=stamp,
        )
        for item in notebook.leaves:
            if not (course_run.folder / item.removeprefix("run:")).exists():
                course_run.executed(notebook).unlink()
                raise CourseError(
                    f"{notebook.name} declares that it leaves {item!r} in {course_run.folder}, but "
                    "did not"
                )
        _note_what_is_left(course_run, notebook)
        outcome.executed.append(notebook.name)
    return outcome


def _stamp(course_run: Run, notebook: Notebook) -> dict[str, Any]:
    """Say where kernels shall compute, which they inherit, and note what a copy is made from.

    Only when a notebook is about to run, because torch takes a second to import.
    """
    from viralbert.environment import environment
    from viralbert_utils.base import devices

    devices.choose(course_run.device, course_run.precision)
    fingerprint = course_run.fingerprint(notebook)
    return {"fingerprint": fingerprint, "profile": course_run.profile, "environment": environment()}


def _note_what_is_left(course_run: Run, notebook: Notebook) -> None:
    """Write into the executed copy what the notebook has left, so that `Run.is_fresh` can tell."""
    import nbformat

    path = course_run.executed(notebook)
    finished = nbformat.read(path, as_version=4)
    finished.metadata["viralbert_run"]["left"] = course_run.leavings(notebook)
    write_whole(path, nbformat.writes(finished))


def execute(
    notebook: Notebook,
    parameters: dict[str, Any],
    output: Path,
    cell_timeout_s: int,
    *,
    offline: bool = True,
    stamp: dict[str, Any] | None = None,
) -> None:
    """Run one notebook with papermill, strictly.

    Args:
        notebook: Source; never written to.
        parameters: Must all be declared in the notebook's parameters cell.
        output: The executed copy, replaced only when the whole notebook has run.
        cell_timeout_s: Limit for each cell, in seconds.
        offline: Forbid the hub, so that a run that needs no network cannot start to need one
            unnoticed.
        stamp: Kept in the executed copy's metadata.

    Raises:
        CourseError: No parameters cell, an unknown parameter, no such kernel or one that does not
            start, a cell that raises, outlasts its limit, takes the kernel down or ends the
            notebook before its last cell. The copy up to the failing cell is kept in `failed/`
            beside the output.
    """
    from unittest.mock import patch

    import nbformat  # as papermill a second of imports, needed only when something runs
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    from viralbert.course import engine

    unknown = set(parameters) - set(notebook.parameters)
    if unknown:
        raise CourseError(
            f"{notebook.name} has no parameter {', '.join(sorted(unknown))}; it has "
            f"{', '.join(notebook.parameters)}"
        )
    kernel = notebook.content["metadata"].get("kernelspec", {}).get("name")
    if kernel != KERNEL:
        raise CourseError(
            f"{notebook.name} asks for the kernel {kernel!r}; the course runs on {KERNEL!r}: "
            "choose that one and save"
        )
    partial = output.parent / "failed" / output.name
    partial.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    variables = {"MPLBACKEND": "agg", "PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false"}
    if offline:
        variables |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    try:
        # The kernel's sockets have a folder of their own: numbered files in the notebooks' folder
        # would be those of all runs in this checkout. Its path is short, since a socket's path may
        # have no more than 104 bytes.
        with (
            patch.dict(os.environ, variables),
            _socket_folder() as sockets,
        ):
            papermill.execute_notebook(
                os.path.relpath(notebook.path),
                os.path.relpath(partial),
                parameters,
                engine_name=engine.NAME,
                kernel_name=KERNEL,
                cwd=str(notebook.path.parent),
                execution_timeout=cell_timeout_s,
                progress_bar={"desc": notebook.name, "unit": "cell"},
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
                # IPython's own only ask the kernel to end soon, and the next cells run meanwhile,
                # or do not.
                extra_arguments=[f"--IPKernelApp.exec_lines={_EXIT_AT_ONCE}"],
            )
    except PapermillExecutionError as error:
        problem = " ".join(f"{error.ename}: {error.evalue}".split())
        module = re.search("No module named '([^']+)'", problem)
        if error.ename == "ModuleNotFoundError" and module and packages.is_own(module[1]):
            problem += f" ({packages.missing(module[1])})"
        raise _failure(notebook, partial, error.exec_count, problem) from None
    except CellTimeoutError:
        problem = (
            f"took longer than the limit of {cell_timeout_s} s for a cell; a slow machine needs a "
            "higher `cell_timeout_s` in the file of the profile"
        )
        raise _failure(notebook, partial, None, problem) from None
    except DeadKernelError:
        raise _failure(notebook, partial, None, "the kernel died (out of memory?)") from None
    except NoSuchKernel as error:
        raise CourseError(
            f"{notebook.name}: no kernel {error.name!r} is installed; run `python -m ipykernel "
            "install --user`"
        ) from None
    except (
        RuntimeError,
        OSError,
    ) as error:  # jupyter_client's errors for a kernel that ends or says nothing
        if (
            isinstance(error, OSError)
            and error.filename
            and Path(error.filename).resolve() == partial.resolve()
        ):
            raise  # the copy could not be written
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise CourseError(
            f"{notebook.name}: its kernel could not be started ({problem}); try `python -m "
            "ipykernel --version`, and "
            "`python -m ipykernel install --user`"
        ) from None
    finished = nbformat.read(partial, as_version=4)
    _check_executed(notebook, finished, partial)
    finished.metadata["viralbert_run"] = stamp or {}
    write_whole(output, nbformat.writes(finished))
    partial.unlink()


@contextmanager
def _socket_folder() -> Iterator[Path]:
    """A folder for a kernel's sockets; those of runs that were killed go meanwhile.

    Each run holds a lock in its own, which the system releases when the process ends, whatever
    ended it. A folder without that lock file, or of somebody else, is left alone.
    """
    place = Path(
        tempfile.gettempdir() if len(tempfile.gettempdir()) <= 60 else "/tmp"
    )  # a socket's path is short
    with ExitStack() as stack:
        with locked(
            place / SOCKETS
        ):  # or another run might take a folder that has no lock yet for one of a killed run
            for old in place.glob(f"{SOCKETS}*/{RUNNING}"):
                if old.parent.is_symlink() or old.parent.lstat().st_uid != os.getuid():
                    continue
                with suppress(Timeout), FileLock(old, timeout=0):
                    shutil.rmtree(old.parent, ignore_errors=True)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=SOCKETS, dir=place))
            stack.enter_context(FileLock(Path(folder, RUNNING)))
        yield Path(folder)


def _check_executed(notebook: Notebook, finished: nbformat.NotebookNode, partial: Path) -> None:
    """Refuse a notebook that ended before its last cell.

    papermill takes `sys.exit(0)` for a good end.

    Raises:
        CourseError: A code cell has not run to its end; the message names it.
    """
    cells = [cell for cell in finished.cells if cell.cell_type == "code" and cell.source.strip()]
    for cell in cells:
        ended = any(output.get("ename") == "SystemExit" for output in cell.get("outputs", []))
        if ended or cell.execution_count is None:
            problem = "it ends the notebook (SystemExit)" if ended else "it was not executed"
            raise CourseError(
                f"{notebook.name}, {_named(cell, finished)}: {problem}; every code cell must run "
                "to its end: raise an "
                "error, or use `if`, where nothing is left to do; the copy up to that cell is "
                f"{os.path.relpath(partial)}"
            )


def _named(cell: nbformat.NotebookNode, node: nbformat.NotebookNode) -> str:
    """Name a code cell by its number and its first line.

    It is counted as the source shows it: papermill adds one cell for the parameters.
    """
    cells = _own_cells(node)
    source = cell.source.splitlines()
    first_line = next((line.strip() for line in source if line.strip()), "")
    number = next((i for i, other in enumerate(cells, 1) if other is cell), 0)
    return f"code cell {number} of {len(cells)} ({first_line[:70]!r})"


def _own_cells(node: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    cells = [cell for cell in node.cells if cell.cell_type == "code"]
    return [cell for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]


def _failure(
    notebook: Notebook, partial: Path, exec_count: int | None, message: str
) -> CourseError:
    import nbformat

    node = nbformat.read(partial, as_version=4)
    cells = _own_cells(node)
    if exec_count is not None:
        stopped = [i for i, cell in enumerate(cells) if cell.execution_count == exec_count]
    else:
        # In the end papermill marks every cell as completed; those behind a killed or stopped one
        # never started.
        stopped = [
            i
            for i, cell in enumerate(cells)
            if cell.metadata.get("papermill", {}).get("start_time")
        ]
    where = "before its first cell"
    if stopped:
        where = _named(cells[stopped[-1]], node)
    return CourseError(
        f"{notebook.name}, {where}: {message}; the copy up to that cell is "
        f"{os.path.relpath(partial)}"
    )
