"""Resolve the dependencies of pyproject.toml into requirements.lock (for Python 3.11 to 3.13) and
environment.yml.

Needs `uv` on the path. CUDA packages are left out of the lock: the build of torch that gets
installed brings exactly those that belong to it, and the CPU build none.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = (
    "# Written by `make lock` from pyproject.toml: every package, for Python 3.11-3.13. Do not "
    "edit.\n"
)

# Why each direct dependency is here; environment.yml shows it beside the pin.
REASONS = {
    "accelerate": "transformers' Trainer, with which the training loop is compared",
    "cleanlab": "label noise: what the audit's ranking is checked against",
    "datasets": "hub data sets, and folders of the same format",
    "datasketch": "MinHash: near-duplicate texts in linear time",
    "fastapi": "the service",
    "filelock": "a second process waits before it writes where one is writing",
    "ftfy": "repairs text that was read in a wrong encoding",
    "furo": "theme of the report site: readable on a phone, no request to any host",
    "httpx": "asks the service in tests",
    "hypothesis": "property tests",
    "ipykernel": "the kernel that runs the notebooks",
    "jupyterlab": "where the lessons are read and changed",
    "latex2mathml": "formulas as MathML: no script, works offline",
    "matplotlib": "figures",
    "mypy": "types",
    "myst-nb": "executed notebooks to pages",
    "nbconvert": "executed notebooks to Markdown for the repository's visitors",
    "natasha": "carries the word vectors of the embedded encoder",
    "nbformat": "reads recorded values from executed notebooks",
    "numpy": "arrays",
    "onnx": "the exchange format of models",
    "onnxruntime": "runs exported models, int8 among them",
    "onnxscript": "torch writes ONNX with it",
    "opentimelineio": "moments as a timeline for video editors",
    "pandas": "tables",
    "pandas-stubs": "types of pandas",
    "papermill": "runs notebooks headlessly with parameters",
    "playwright": "opens the built pages in Chromium (Debian's package)",
    "prometheus-client": "counters and times of the service",
    "pysubs2": "subtitle formats beside SubRip and WebVTT",
    "pytest": "tests",
    "pytest-xdist": "tests on two processors",
    "python-multipart": "subtitle files sent to the service",
    "pyyaml": "profiles",
    "ray": "archives of subtitle files over several processes or machines",
    "ruff": "lint and format, modules and notebooks",
    "safetensors": "weights without pickle",
    "schemathesis": "requests made from the service's own description",
    "scikit-learn": "baselines, metrics",
    "scipy": "sparse matrices, statistics",
    "seaborn": "heat maps",
    "sentencepiece": "tokenizers of XLM-RoBERTa and of the translation model",
    "sphinx": "builds the report site",
    "threadpoolctl": "small fits on one core, where several would wait for each other",
    "torch": "the models; CPU and CUDA builds both work",
    "torchjd": "gradient surgeries beside PCGrad, and what ours is checked against",
    "tqdm": "progress bars",
    "transformers": "encoders, tokenizers, translation",
    "types-pyyaml": "types of PyYAML",
    "uvicorn": "the server under the service",
}


def canonical(name: str) -> str:
    """`PyYAML` and `pyyaml` name one package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct_dependencies() -> dict[str, str]:
    """Everything that pyproject.toml asks for: name -> its own extras, as `[name]`, or nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    found = [re.match(r"([\w.-]+)(\[.*?\])?", requirement) for requirement in wanted]
    return dict(sorted((canonical(match[1]), match[2] or "") for match in found))


def read_lock() -> dict[str, str]:
    """Package name -> pinned version."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return {
        canonical(m[1]): m[2] for line in lines if (m := re.match(r"([\w.-]+)==([^\s;]+)", line))
    }


def environment_yml() -> str:
    """The conda environment: Python from conda, the direct dependencies by pip with the pins of the
    lock."""
    lock = read_lock()
    reasons = {
        f"{name}{extras}=={lock[name]}": REASONS[name]
        for name, extras in direct_dependencies().items()
    }
    width = max(map(len, reasons))
    pins = [f"      - {pin:{width}}  # {reason}" for pin, reason in reasons.items()]
    return "\n".join(
        [
            "# conda env create -f environment.yml && conda activate viralbert && pip install "
            "--no-deps -e .",
            "# Written by `make lock`: the direct dependencies, the pins of requirements.lock, "
            "and why each is here.",
            "name: viralbert",
            "channels:",
            "  - conda-forge",
            "dependencies:",
            "  - python=3.11  # the oldest version that all packages support; 3.12 and 3.13 work "
            "too",
            "  - pip          # the rest comes from the package index, so that conda and `make` "
            "install the same files",
            "  - pip:",
            *pins,
            "",
        ]
    )


def main() -> None:
    """Write both files."""
    command = (
        "uv pip compile --universal --python-version 3.11 --fork-strategy fewest --all-extras "
        "--no-header --no-annotate"
    )
    result = subprocess.run(
        [*command.split(), "pyproject.toml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.exit(result.stderr)
    kept = [
        line
        for line in result.stdout.splitlines()
        if line and not re.match(r"nvidia-|cuda-|triton|#|-", line)
    ]
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(kept) + "\n", encoding="utf-8")
    (ROOT / "environment.yml").write_text(environment_yml(), encoding="utf-8")


if __name__ == "__main__":
    main()
