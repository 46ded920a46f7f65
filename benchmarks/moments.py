"""Moments of a two-hour video, from the command line to written files; scoring windows instead.

    .venv/bin/python benchmarks/moments.py <data folder> [predictor folder]

The data folder holds `subtitles/*.srt`, which are joined. The predictor is that of the sample run
(lesson 06) unless another is named. Beside seconds by the clock stand those of the processor, which
other work on the machine disturbs less.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from viralbert.moments.subtitles import Cue, read_subtitles, write_subtitles
from viralbert_utils.base.files import ROOT

N_WINDOWS = 200


def joined(folder: Path, hours: float, target: Path) -> None:
    """Write a subtitle file of so many hours: the real ones, one after another, from the start
    again if they end."""
    cues: list[Cue] = []
    offset = 0.0
    while offset < hours * 3600:
        for path in sorted(folder.glob("*.srt")):
            own = read_subtitles(path).cues
            cues += [Cue(cue.start + offset, cue.end + offset, cue.text) for cue in own]
            offset = cues[-1].end + 1
    write_subtitles([cue for cue in cues if cue.end <= hours * 3600], target)


def run(arguments: list[str]) -> tuple[float, float, str]:
    """Seconds, peak memory in MiB and output of a fresh Python process."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([sys.executable, *arguments], stdout=output, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read().decode()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), text


def parts(file: Path, model: str, folder: Path) -> dict[str, float]:
    """Seconds of each part of `viralbert moments`, in this process; and the counts."""
    times = [time.perf_counter()]
    from viralbert.moments import outputs, ranking
    from viralbert.moments.units import split_units
    from viralbert.serving.predictor import ViralBERT

    bert = ViralBERT.load(model)
    times.append(time.perf_counter())
    cues = read_subtitles(file).cues
    units = split_units(cues)
    times.append(time.perf_counter())
    scores = bert.scores([unit.text for unit in units])
    times.append(time.perf_counter())
    found = ranking.choose(units, scores)
    times.append(time.perf_counter())
    outputs.write_all(found, cues, folder)
    times.append(time.perf_counter())
    names = ("loading", "reading", "scoring", "choice", "writing")
    seconds = {name: b - a for name, a, b in zip(names, times[:-1], times[1:], strict=True)}
    return seconds | {"cues": len(cues), "units": len(units), "moments": len(found.moments)}


def seconds_of(action: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a call."""
    start = clock()
    action()
    return clock() - start


def windows_instead(file: Path, bert: Any) -> None:
    """Print what scoring each window would cost, from some that are scored whole."""
    import numpy as np

    from viralbert.moments import ranking
    from viralbert.moments.limits import Limits
    from viralbert.moments.units import split_units

    units = split_units(read_subtitles(file).cues)
    texts = [unit.text for unit in units]
    first, last = ranking._windows(*ranking._times(units)[:2], Limits())
    drawn = np.random.default_rng(0).choice(len(first), N_WINDOWS, replace=False)
    windows = [" ".join(texts[first[w] : last[w] + 1]) for w in drawn]
    longest = min(512, bert.model.encoder.config.max_position_embeddings)
    whole = replace(bert, settings={**bert.settings, "max_length": longest})
    each_unit = seconds_of(lambda: bert.scores(texts))
    each_window = seconds_of(lambda: whole.scores(windows)) / N_WINDOWS * len(first)
    print(
        f"scoring {len(texts):,} units {each_unit:.1f} s; {len(first):,} windows, of at most "
        f"{longest} tokens: "
        f"{each_window:.0f} s, estimated from {N_WINDOWS} of them; ratio "
        f"{each_window / each_unit:.0f}"
    )


def main(source: str, model: str) -> None:
    """Print everything."""
    from viralbert.serving.predictor import ViralBERT

    with tempfile.TemporaryDirectory() as scratch:
        files = {hours: Path(scratch) / f"{hours}h.srt" for hours in (2, 3)}
        for hours, file in files.items():
            joined(Path(source) / "subtitles", hours, file)
        for hours, file in files.items():
            command = [
                "-m",
                "viralbert.cli",
                "moments",
                str(file),
                "-o",
                f"{scratch}/out",
                "--model",
                model,
            ]
            seconds, memory, _ = run(command)
            print(
                f"{hours} hours, from command line to written files: {seconds:.1f} s, at most "
                f"{memory:.0f} MiB"
            )
        found = json.loads(run([__file__, "--parts", str(files[2]), model, f"{scratch}/parts"])[2])
        print(
            "2 hours, a fresh process again: "
            + ", ".join(f"{n} {v:.3g} s" for n, v in list(found.items())[:5])
        )
        print(", ".join(f"{int(value):,} {name}" for name, value in list(found.items())[5:]))
        bert = ViralBERT.load(model, "cpu")
        windows_instead(files[2], bert)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--parts"]:
        print(json.dumps(parts(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))))
    else:
        folder, *rest = sys.argv[1:]
        main(folder, (rest or [str(ROOT / "runs/sample/viralbert")])[0])
