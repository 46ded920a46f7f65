"""The report: executed notebooks to a static site, to Markdown pages for the repository, and to
metrics and a manifest.

One preparation serves both forms: sentences with numbers become prose, alt texts go onto the
figures, and every page says which run it came from.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from viralbert.course import manuals, reference
from viralbert.course.catalogue import CourseError, Notebook
from viralbert.course.first_page import reading_minutes, way
from viralbert.course.runner import Run, check_sources
from viralbert.course.site import NOT_RUN, build_site, has_reference
from viralbert.course.site import sources as site_sources
from viralbert_utils.base.files import locked, remove_unfinished, whole_folder, write_whole
from viralbert_utils.base.variables import RECORD_MIME

_LINK = re.compile(r"\]\((\d\d_\w+)\.ipynb(#[^)\s]*|)")
# A progress bar, where ipywidgets is installed: it moves only while a kernel runs.
_WIDGET = "application/vnd.jupyter.widget-view+json"
_REDRAWN = re.compile(r"^.*\r(?!\n).*\n?", re.MULTILINE)
_FIRST_PAGE = Path("site", "index.html")
_MARK = Path("site", ".made_from")  # what the site was made of, and what was written beside it
HEADLINE = ("<!-- headline: written by `make reports` -->", "<!-- /headline -->")


@dataclass
class Page:
    """An executed notebook with what a report needs of it."""

    name: str
    node: nbformat.NotebookNode
    records: dict[str, Any]
    stamp: dict[str, Any]
    seconds: float

    @property
    def title(self) -> str:
        """Text of the first heading."""
        return _title(self.node)


def _title(node: nbformat.NotebookNode) -> str:
    return next(
        line.lstrip("# ").strip()
        for line in node.cells[0].source.splitlines()
        if line.startswith("# ")
    )


def read_page(path: Path) -> Page:
    """An executed notebook, its recorded values, and its stamp."""
    node = nbformat.read(path, as_version=4)
    seconds = float(node.metadata.get("papermill", {}).get("duration") or 0.0)
    records = read_records(node)
    return Page(path.stem, node, records, dict(node.metadata.get("viralbert_run", {})), seconds)


def read_records(node: nbformat.NotebookNode) -> dict[str, Any]:
    """Values that the notebook recorded, by name.

    Raises:
        CourseError: Two records carry one name.
    """
    records: dict[str, Any] = {}
    for cell in node.cells:
        for output in cell.get("outputs", []):
            entry = output.get("data", {}).get(RECORD_MIME)
            if entry is not None:
                if entry["name"] in records:
                    raise CourseError(f"the value {entry['name']!r} is recorded twice")
                records[entry["name"]] = entry["value"]
    return records


def prepare(
    page: Page, banner: str, origin: str, missing: Collection[str] = ()
) -> nbformat.NotebookNode:
    """A copy of the executed notebook that is ready to be rendered.

    Args:
        page: An executed notebook.
        banner: Stands in bold under the title; none if empty.
        origin: The line on where the numbers come from.
        missing: Names of lessons without a page; links to them lead to the first page, which says
            how to run them.

    Raises:
        CourseError: A figure without alt text, or two in one cell, or a sentence with numbers that
            the run did not show.
    """
    node = copy.deepcopy(page.node)
    for name in ("papermill", "widgets"):
        node.metadata.pop(name, None)
    for index, cell in enumerate(node.cells):
        where = f"{page.name}, cell {index + 1}"
        if cell.cell_type == "code" and cell.source.startswith("lesson.say("):
            cell = node.cells[index] = _prose(cell, where)  # noqa: PLW2901
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(
                lambda link: f"]({NOT_RUN}" if link[1] in missing else link[0], cell.source
            )
            continue
        _fold(cell)
        cell.outputs = _printed_at_once(
            output
            for output in cell.get("outputs", [])
            if not {RECORD_MIME, _WIDGET} & set(output.get("data", {}))
        )
        images = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        if len(images) > 1:
            raise CourseError(
                f"{where}: {len(images)} figures in one cell; give each a cell of its own"
            )
        for output in images:
            alt = output.metadata.get("image/png", {}).get("alt")
            if not alt:
                raise CourseError(
                    f"{where}: a figure without alt text; use lesson.show(figure, alt=...)"
                )
            cell.metadata.setdefault("mystnb", {})["image"] = {"alt": alt}
            output.data.pop("text/plain", None)
    title, _, rest = node.cells[0].source.partition("\n")
    lines = [title, "", *([f"> **{banner}**", ""] if banner else []), f"*{origin}*", "", rest]
    node.cells[0].source = "\n".join(lines)
    return node


def _printed_at_once(outputs: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs without the lines that a progress bar drew again and again; what was printed in
    pieces, which differ from run to run, is in one."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        is_next = joined and "stream" == joined[-1].output_type == output.output_type
        if is_next and joined[-1].name == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = _REDRAWN.sub("", output.text)
    return [o for o in joined if o.output_type != "stream" or o.text.strip()]


def _fold(cell: nbformat.NotebookNode) -> None:
    """Note what stands on the fold of a cell; of a solution, the result is folded too."""
    tags = set(cell.metadata.get("tags", []))
    if "solution" in tags:
        tags = tags - {"hide-input"} | {"hide-cell"}
        cell.metadata["tags"] = sorted(tags)
    if tags & {"hide-input", "hide-cell"}:
        words = "Solution and result" if "solution" in tags else caption(cell)
        cell.metadata["mystnb"] = {"code_prompt_show": words, "code_prompt_hide": words}


def _prose(cell: nbformat.NotebookNode, where: str) -> nbformat.NotebookNode:
    """The paragraphs that a cell of `lesson.say` has shown, as a cell of Markdown."""
    said = [
        output.data["text/markdown"]
        for output in cell.get("outputs", [])
        if "text/markdown" in output.get("data", {})
    ]
    if not said:
        raise CourseError(f"{where}: the sentence was not shown; run the lesson again")
    return nbformat.v4.new_markdown_cell("\n\n".join(said), id=cell.id)


def caption(cell: nbformat.NotebookNode) -> str:
    """What stands on the fold of a hidden cell: the comment in its first line."""
    first, _, _ = cell.source.partition("\n")
    return first.lstrip("# ").rstrip(".") if first.startswith("#") else "Code"


def origin(page: Page) -> str:
    """One line on where a page's numbers come from."""
    stamp = page.stamp
    parameters = stamp["fingerprint"]["parameters"]
    parts = [f"profile `{stamp['profile']}`"]
    parts += [f"{name} `{parameters[name]}`" for name in ("data", "encoder") if name in parameters]
    memory = page.records.get("run.peak_memory_mib")
    spent = f"{page.seconds:.0f} seconds" + (f" and {memory:,} MiB of memory" if memory else "")
    return (
        f"From a run with {', '.join(parts)}, on {stamp['environment']['device']}. It took {spent}."
    )


def report(run: Run) -> Path:
    """Write the report of a run: `site/`, `README.md` and a Markdown page a notebook,
    `metrics.json`, `manifest.json`.

    The folder is the old report until the new one is complete, whatever happens meanwhile.

    Returns:
        The site's first page.

    Raises:
        CourseError: Nothing was executed yet, or a page cannot be prepared or built.
    """
    with locked(run.folder):
        return _report(run)


def _report(run: Run) -> Path:
    paths = [
        run.executed(notebook) for notebook in run.notebooks if run.executed(notebook).is_file()
    ]
    if not paths:
        check_sources(run, run.selected())
        raise CourseError(
            f"nothing was executed for the run {run.name!r} yet; run `{run_command(run)}` first"
        )
    made_from = _made_from(run, paths)
    if _is_up_to_date(run, made_from):
        return run.report / _FIRST_PAGE
    pages = [read_page(path) for path in paths]
    missing = [notebook.name for notebook in _missing(run, pages)]
    prepared = {
        page.name: prepare(page, run.config["banner"], origin(page), missing) for page in pages
    }
    hidden = ("run.", "headline.")
    metrics = {
        page.name: {k: v for k, v in page.records.items() if not k.startswith(hidden)}
        for page in pages
    }
    first = first_page_text(run, pages, prepared)
    with whole_folder(run.report) as new:
        if run.report.is_dir():
            shutil.copytree(run.report, new, symlinks=True, dirs_exist_ok=True)
        remove_unfinished(new)
        write_whole(new / "metrics.json", _json(metrics | {"headline": headlines(pages)}))
        write_whole(new / "manifest.json", _json(manifest(run, pages)))
        _write_markdown(new, run, prepared, first.markdown)
        # The site takes longest, so it is kept when nothing that it is made of has changed.
        mark = new / _MARK
        unchanged = mark.is_file() and mark.read_text(encoding="utf-8").split()[:1] == [made_from]
        if not unchanged or not (new / _FIRST_PAGE).is_file():
            shutil.rmtree(new / "site", ignore_errors=True)
            executed = {page.name: page.node for page in pages}
            build_site(run, prepared, first.site, new / "site", executed)
        write_whole(mark, f"{made_from} {_written(new)}\n")
    if run.report == run.root / "reports":
        remove_unfinished(run.root, "README.md")
        update_readme(run.root / "README.md", headline_table(headlines(pages), "reports/{}.md"))
    return run.report / _FIRST_PAGE


def _made_from(run: Run, paths: list[Path]) -> str:
    """One digest of all that a report is made of: notebooks, code, manuals, and how it is run."""
    settings = [run.name, run.profile, make_command(run), run.config]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in [*paths, *site_sources(run.root)]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _written(folder: Path) -> str:
    """One digest of what a report consists of beside its site, and of the names of its pages."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and path != folder / _MARK:
            digest.update(name.as_posix().encode())
            digest.update(b"" if name.parts[0] == "site" else path.read_bytes())
    return digest.hexdigest()


def _is_up_to_date(run: Run, made_from: str) -> bool:
    """Whether the report is the one that would be written, and nobody has changed it since."""
    mark = run.report / _MARK
    return mark.is_file() and mark.read_text(encoding="utf-8").split() == [
        made_from,
        _written(run.report),
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def headlines(pages: list[Page]) -> list[dict[str, Any]]:
    """What the notebooks recorded with `lesson.headline`, in order."""
    return [
        {"lesson": page.name} | value
        for page in pages
        for name, value in page.records.items()
        if name.startswith("headline.")
    ]


def headline_table(rows: list[dict[str, Any]], link: str = "{}.ipynb") -> str:
    """The headline figures as a Markdown table; `link` makes an address of a lesson's name."""
    lines = [
        "| what was measured | result [95 % interval] | beside it | lesson |",
        "|---|---|---|---|",
    ]
    for row in rows:
        figure = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        lines.append(
            f"| {row['what']} | {figure} | {row['beside']} | "
            f"[{row['lesson'][:2]}]({link.format(row['lesson'])}) |"
        )
    return "\n".join(lines)


def update_readme(path: Path, table: str) -> None:
    """Put the headline table between its two marks.

    Raises:
        CourseError: The marks are not there.
    """
    text = path.read_text(encoding="utf-8")
    start, end = text.find(HEADLINE[0]), text.find(HEADLINE[1])
    if min(start, end) < 0:
        raise CourseError(f"{path.name}: the marks {HEADLINE[0]!r} and {HEADLINE[1]!r} are missing")
    write_whole(path, f"{text[: start + len(HEADLINE[0])]}\n{table}\n{text[end:]}")


def manifest(run: Run, pages: list[Page]) -> dict[str, Any]:
    """What made the report: settings, versions, and for each notebook its fingerprint, seconds and
    peak memory."""
    return {
        "run": run.name,
        "profile": run.profile,
        "environment": pages[0].stamp["environment"],
        "notebooks": {
            page.name: {
                "seconds": round(page.seconds),
                "peak_memory_mib": page.records.get("run.peak_memory_mib"),
                **page.stamp["fingerprint"],
            }
            for page in pages
        },
    }


@dataclass
class FirstPage:
    """The report's first page in Markdown, for the site and for the repository.

    Links between lessons end in `.ipynb`, as in the notebooks.
    """

    site: str
    markdown: str


def first_page_text(
    run: Run, pages: list[Page], prepared: Mapping[str, nbformat.NotebookNode]
) -> FirstPage:
    """What the course is, the way through it, what to do with it, its figures, and what ran."""
    banner = [f"> **{run.config['banner']}**", ""] if run.config["banner"] else []
    missing = _missing(run, pages)
    stale = [n.name for n in run.notebooks if n not in missing and not run.is_fresh(n)]
    drawn, listed = way(
        run.notebooks,
        {page.name: page.title for page in pages},
        {name: reading_minutes(node) for name, node in prepared.items()},
    )
    guides = [
        f"[{manuals.title(guide)}]({manuals.FOLDER}/{guide.name})"
        for guide in manuals.manuals(run.root)
    ]
    before = [
        "# ViralBERT course: the report",
        "",
        *banner,
        f"*{run.config['description']}*",
        "",
        "This course teaches how to build and judge models of Russian text: whether a short text "
        "goes viral, which of 28 emotions it carries, and where the moment of a video is. Each "
        "lesson is a notebook that asks one question and answers it with numbers of its own run.",
        "",
        "## The way through the lessons",
        "",
        "A line leads from a lesson to those that use its files. The times are for reading; "
        "exercises come on top.",
        "",
    ]
    after = [
        "",
        *([f"Changed since, not executed again: {', '.join(stale)}.", ""] if stale else []),
        "## What you can do with it",
        "",
        "```sh",
        "make reports                           # run all lessons and write these pages",
        'viralbert predict "Мама, я поступила!" # virality and emotions of a text',
        "viralbert moments film.srt             # the moments of a video, from its subtitles",
        "```",
        "",
        *([f"The manuals tell more: {' · '.join(guides)}.", ""] if guides else []),
        *(_headline_section(pages)),
        *(_how_to_run(run, missing) if missing else []),
        *_what_ran(run, pages),
    ]
    return FirstPage("\n".join([*before, drawn, *after]), "\n".join([*before, listed, *after]))


def _headline_section(pages: list[Page]) -> list[str]:
    return [
        "## Headline figures",
        "",
        "Each line is a system that was measured on texts or videos it had not seen. The brackets "
        "hold a 95 % interval: how far the figure could move with other texts or videos. It leaves "
        "out the luck of the training, and over a handful of videos it is too narrow (lesson 06). "
        "What stands beside it is what it has to beat: guessing, a simple system, or a rival. "
        "Macro-F1, ROC AUC, AP (average precision) and phi are 1 at best; guessing has 0.5 in ROC "
        "AUC, and phi is 0 where two things have nothing to do with each other.",
        "",
        headline_table(headlines(pages)),
        "",
    ]


def _what_ran(run: Run, pages: list[Page]) -> list[str]:
    environment = pages[0].stamp["environment"]
    status = ["| lesson | seconds | peak memory, MiB | data | encoder |", "|---|---|---|---|---|"]
    files: dict[str, str] = {}
    for page in pages:
        fingerprint = page.stamp["fingerprint"]
        parameters = fingerprint["parameters"]
        status.append(
            f"| [{page.name[:2]}]({page.name}.ipynb) | {page.seconds:.0f} | "
            f"{page.records.get('run.peak_memory_mib')} | "
            f"{parameters.get('data', '-')} | {parameters.get('encoder', '-')} |"
        )
        files |= {k: v for k, v in fingerprint["reads"].items() if k.startswith("data:")}
    return [
        "## What ran",
        "",
        "The numbers on these pages were computed by the run that is described here, and none was "
        "typed by hand. Two kinds are exceptions, and the page says so where one stands: a figure "
        "that is *quoted* from a publication, which is named, and one that was *recorded* in a "
        "longer run than this one, which the page describes.",
        "",
        f"Profile `{run.profile}`, device {environment['device']}.",
        "",
        *status,
        "",
        "| package | version |",
        "|---|---|",
        *[f"| {name} | {version} |" for name, version in environment.items() if name != "device"],
        "",
        "| data file | sha256, first 16 digits |",
        "|---|---|",
        *[
            f"| {name.removeprefix('data:')} | `{digest[:16]}` |"
            for name, digest in sorted(files.items())
        ],
        "",
    ]


def _missing(run: Run, pages: list[Page]) -> list[Notebook]:
    """The lessons of the course that this report has no page of."""
    return [
        notebook for notebook in run.notebooks if notebook.name not in {page.name for page in pages}
    ]


def _how_to_run(run: Run, missing: list[Notebook]) -> list[str]:
    """The section of the first page that links to lessons without a page lead to."""
    return [
        "## Not part of this run",
        "",
        f"`{make_command(run)}` runs all lessons; for one of them and what it reads from, there "
        "is a command each:",
        "",
        *[
            f"- **{_title(notebook.node)}**: `{make_command(run, notebook.number)}`"
            for notebook in missing
        ],
        "",
    ]


def run_command(run: Run) -> str:
    """The call of viralbert that executes a run, with its own settings."""
    values = [("--data", run.data), ("--encoder", run.encoder)]
    values += [("--only", ",".join(run.only))]
    values += [("--set", setting) for setting in run.settings]
    values += [("--device", run.device)]
    values += [("--precision", run.precision if run.precision != Run.precision else "")]
    words = ["viralbert", "run", "--profile", run.profile]
    return shlex.join([*words, *(word for pair in values if pair[1] for word in pair)])


def make_command(run: Run, only: str = "") -> str:
    """The call of make that brings a run up to date: all of it, or one lesson, with the run's own
    settings."""
    usual = {"PROFILE": Run.profile, "PRECISION": Run.precision}
    values = {
        "ONLY": only,
        "PROFILE": run.profile,
        "DATA": run.data,
        "ENCODER": run.encoder,
        "SET": " ".join(run.settings),
        "DEVICE": run.device,
        "PRECISION": run.precision,
    }
    assignments = [
        f"{name}={shlex.quote(value)}"
        for name, value in values.items()
        if value and value != usual.get(name)
    ]
    return " ".join(["make reports", *assignments])


# nbconvert's Markdown with three changes: real alt texts, Markdown tables, folded cells where the
# tag asks for it; a solution is folded with its result.
_MARKDOWN = """{% extends 'markdown/index.md.j2' %}
{% block codecell %}{% if 'hide-cell' in cell.metadata.tags %}
<details><summary>{{ cell.metadata.mystnb.code_prompt_show | escape_html }}</summary>

{{ super() }}

</details>
{% else %}{{ super() }}{% endif %}{% endblock %}
{% block input_group %}{% if 'hide-input' in cell.metadata.tags %}
<details><summary>{{ cell.metadata.mystnb.code_prompt_show | escape_html }}</summary>

{{ super() }}

</details>
{% else %}{{ super() }}{% endif %}{% endblock %}
{% block data_png %}

{% set alt = cell.metadata.mystnb.image.alt | replace(']', ')') | replace('[', '(') -%}
![{{ alt }}]({{ output.metadata.filenames['image/png'] | path2url }})
{% endblock %}
{% block stream %}
```text
{{ output.text | trim | replace('```', "'''") }}
```
{% endblock %}
"""


def _write_markdown(
    folder: Path, run: Run, prepared: Mapping[str, nbformat.NotebookNode], first: str
) -> None:
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    priority = ["text/markdown", "image/png", "text/html", "text/plain"]
    config = Config({"NbConvertBase": {"display_data_priority": priority}})
    figures = folder / "figures"
    docs = Path(os.path.relpath(run.root / manuals.FOLDER, run.report)).as_posix()
    for old in [*folder.glob("[0-9][0-9]_*.md"), *figures.glob("*.png")]:
        old.unlink()
    for name, node in _with_links(run, prepared).items():
        exporter = MarkdownExporter(config=config, raw_template=_MARKDOWN)
        body, resources = exporter.from_notebook_node(
            node, {"unique_key": name, "output_files_dir": "figures"}
        )
        for number, (path, content) in enumerate(resources.get("outputs", {}).items(), 1):
            # Numbered by figure, not by cell, so that a new paragraph does not rename every file.
            renamed = f"figures/{name[:2]}_figure_{number}.png"
            body = body.replace(path, renamed)
            write_whole(folder / renamed, content)
        body = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", body)).strip() + "\n"
        body = _fold_further(body).replace(f"](../{manuals.FOLDER}/", f"]({docs}/")
        write_whole(folder / f"{name}.md", _to_markdown_links(body))
    first = first.replace(f"]({manuals.FOLDER}/", f"]({docs}/")
    write_whole(folder / "README.md", _to_markdown_links(first))


def _fold_further(body: str) -> str:
    """Fold what stands under headings `## Further: ...`, up to the next heading of that rank."""
    lines, is_open, in_code = [], False, False
    for line in body.splitlines():
        in_code ^= line.startswith("```")
        if is_open and not in_code and re.match(r"##? ", line):
            lines += ["</details>", ""]
            is_open = False
        lines.append(line)
        if not in_code and line.startswith("## Further: "):
            lines += ["", "<details><summary>Read this part</summary>"]
            is_open = True
    return "\n".join([*lines, *(["</details>"] if is_open else [])]) + "\n"


def _with_links(
    run: Run, prepared: Mapping[str, nbformat.NotebookNode]
) -> dict[str, nbformat.NotebookNode]:
    """The lessons with links to the files of the repository that they use."""

    def to_file(path: Path) -> str:
        return Path(os.path.relpath(path, run.report)).as_posix()

    def link(module: str, name: str) -> str:
        return f"`{name}`" if name else f"[{module}]({to_file(reference.path_of(module))})"

    guides = manuals.manuals(run.root)
    by_name = {notebook.name: notebook for notebook in run.notebooks}
    return {
        name: reference.with_links(
            node,
            reference.code_of(by_name[name]) if has_reference(run.root) else {},
            link,
            [
                f"[{manuals.title(guide)}]({to_file(guide)})"
                for guide in guides
                if name in manuals.lessons_of(guide)
            ],
        )
        for name, node in prepared.items()
    }


def _to_markdown_links(text: str) -> str:
    """Links between the pages of the site as links between the Markdown pages."""
    text = text.replace(f"]({NOT_RUN}", f"]({NOT_RUN.replace('index', 'README')}")
    return _LINK.sub(lambda link: f"]({link[1]}.md{link[2]}", text)
