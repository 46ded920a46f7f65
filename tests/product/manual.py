"""What a manual shows as the output of a command is what a test has produced.

In a page of `docs/`, a comment stands before such a block and names the test:

    <!-- output of tests/product/test_translation.py::test_... -->

    ```text
    3 rows written to ...
    ```

The test hands over what the command has said. Numbers and runs of spaces may differ, since other
machines and models give others; all else must be the same. `VIRALBERT_UPDATE_MANUALS=1 pytest ...`
writes what was said into the page.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from viralbert_utils.base.files import ROOT

MARK = "<!-- output of {} -->"
_BLOCK = r"\n\n```text\n(.*?)\n```\n"


def blocks(page: Path) -> dict[str, str]:
    """The test that each marked block of a page names, and the block."""
    text = page.read_text(encoding="utf-8")
    return dict(re.findall(re.escape(MARK).replace(r"\{\}", "(.+?)") + _BLOCK, text, re.S))


def compare(page: str, test: str, said: str) -> None:
    """Compare what a command has said with the block of a page in `docs/` that names the test."""
    path = ROOT / "docs" / page
    said = "\n".join(line.rstrip() for line in said.strip("\n").splitlines())
    if os.environ.get("VIRALBERT_UPDATE_MANUALS"):
        pattern = re.escape(MARK.format(test)) + _BLOCK
        new = f"{MARK.format(test)}\n\n```text\n{said}\n```\n"
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(pattern, lambda _: new, text, flags=re.S), encoding="utf-8")
    shown = blocks(path)
    assert test in shown, f"{page} has no block of {test}"
    assert masked(shown[test]) == masked(said), (
        f"{page} shows another output; VIRALBERT_UPDATE_MANUALS=1 writes the one of this test"
    )


def masked(text: str) -> str:
    """Without what differs from run to run."""
    text = re.sub(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", "N", text)
    return re.sub(r"[ -]*N|  +", lambda match: " N" if "N" in match[0] else "  ", text)


def shortened(line: str, n: int = 2) -> str:
    """A line of JSON in which whatever holds more than `n` values ends with an ellipsis.

    The line itself has all its fields.
    """
    fields = (f"{json.dumps(key)}: {_short(value, n)}" for key, value in json.loads(line).items())
    return f"{{{', '.join(fields)}}}"


def _short(value: Any, n: int) -> str:
    if isinstance(value, dict):
        parts = [f"{json.dumps(k, ensure_ascii=False)}: {_short(v, n)}" for k, v in value.items()]
        if n < len(parts) and not isinstance(next(iter(value.values())), str):
            parts = [*parts[:n], "…"]
        return f"{{{', '.join(parts)}}}"
    if isinstance(value, list):
        return f"[{', '.join(_short(one, n) for one in value)}]"
    if isinstance(value, float):
        return f"{value:.3g}"
    return json.dumps(value, ensure_ascii=False)
