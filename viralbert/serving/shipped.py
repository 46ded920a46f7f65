"""The model that comes with the package: packed small, put together on first use.

`viralbert/model/` holds what training has changed: the layers of the embedded encoder in float16,
the word vectors that moved as eight-bit differences with a scale for each row, heads, thresholds,
and the model's card. The word vectors themselves come with the package `natasha`, so the folder
stays small (`pack`). The first use adds both up and keeps the result in the cache, as a model to
train on and, where ONNX Runtime is installed, in its exported eight-bit form (`folder`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from viralbert_utils.base.cache import build_once, cache_folder
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import SUMS, check_sums, own_path, sha256, whole_folder, write_sums
from viralbert_utils.base.variables import DEVICE

PACKED = Path(__file__).parents[1] / "model"
WEIGHTS, SETTINGS, CARD = "weights.safetensors", "classifier.json", "MODEL_CARD.md"
WORDS, POOLER = "encoder.embeddings.word_embeddings.weight", "encoder.pooler."
EXPORTER = ("onnx", "onnxruntime", "onnxscript")  # what the exported form needs
# Word vectors that training has moved by less, as a share of their length, are packed unmoved.
LEAST_MOVE = 0.02
WHAT = "the shipped model (250 MB)"
# Raised when the code below, or the export, builds something else from the same packed folder.
VERSION = 1
_log = logging.getLogger("viralbert.shipped")


def folder(device: str | None = None, precision: str = "auto", packed: Path = PACKED) -> Path:
    """The folder of the shipped model, put together on first use; other processes wait meanwhile.

    Args:
        device: Where it is to compute, as of `Predictor.load`. On a CPU the exported eight-bit form
            answers, on any other device the model as it was trained.
        precision: A precision other than `auto` asks for the model as it was trained.
        packed: What `pack` wrote.

    Raises:
        DataError: The packed files are missing or damaged, or there is no room in the cache folder.
    """
    if not (packed / SUMS).is_file():
        raise DataError(
            f"{packed} holds no model: install the project again, or name a model of your own "
            "(--model FOLDER)"
        )
    target = cache_folder() / f"viralbert-{_key(packed)}"
    wants_export = (device or os.environ.get(DEVICE) or "cpu") == "cpu" and precision == "auto"
    is_exported = (target / "int8" / SUMS).is_file()
    needed = ("onnxruntime",) if is_exported else EXPORTER
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    if wants_export and lacking:
        _log.info("without %s the shipped model answers in torch, slower", ", ".join(lacking))
    form = target / ("int8" if wants_export and not lacking else "model")
    if not (form / SUMS).is_file():
        check_sums(packed)
        build_once(target / "model", partial(_put_together, packed), WHAT)
    if form.name == "int8":
        build_once(form, partial(_export, target / "model"), WHAT)
    return form


def _key(packed: Path) -> str:
    """Names the cached folder: other weights, another encoder or newer code are another one."""
    from viralbert_utils.encoders.recipe import Recipe

    parts = f"{VERSION} {Recipe().key} {sha256(packed / SUMS)}"
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


def _put_together(packed: Path, target: Path) -> None:
    with _step("the shipped model is put together, once (about half a minute)"):
        unpack(packed, target)


def _export(model: Path, target: Path) -> None:
    from viralbert.serving.export import export

    with _step("and exported in eight bits, once (about half a minute)"):
        export(model, target, int8=True)


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Say what takes so long, on the standard error: the answers go to the standard output."""
    from tqdm import tqdm

    with tqdm(total=1, desc=what, file=sys.stderr, bar_format="{desc}: {elapsed} s") as bar:
        yield
        bar.update()


def unpack(packed: Path, target: Path) -> None:
    """Write the folder that `Predictor.load` reads, from a packed one.

    Raises:
        DataError: The packed weights belong to another encoder.
    """
    import torch
    from safetensors.torch import load_file

    from viralbert.serving.predictor import Predictor, load_calibration, stored_thresholds
    from viralbert_utils.base.hub import quiet
    from viralbert_utils.encoders.loading import load_encoder
    from viralbert_utils.encoders.recipe import Recipe
    from viralbert_utils.models.storage import from_settings

    settings = json.loads((packed / SETTINGS).read_text(encoding="utf-8"))
    recipe = settings.pop("embedded")
    if recipe != Recipe().key:
        raise DataError(
            f"{packed} was trained on the embedded encoder {recipe}, and here is "
            f"{Recipe().key}: install the project again, with the versions that it asks for"
        )
    with quiet():
        tokenizer, encoder = load_encoder("embedded", "cpu")
    model = from_settings(settings, encoder)
    weights = load_file(packed / WEIGHTS)
    rows, moves, scales = (weights.pop(f"words.{part}") for part in ("rows", "moves", "scales"))
    with torch.no_grad():
        words = encoder.get_input_embeddings().weight
        words[rows.long()] += moves.float() * scales.float()[:, None]
    missing = model.load_state_dict(
        {name: value.float() for name, value in weights.items()}, strict=False
    )
    # Nothing here uses BERT's pooler; `pack` leaves it out, and `save_classifier` writes zeros.
    lacking = [name for name in missing.missing_keys if not name.startswith(POOLER)]
    if missing.unexpected_keys or lacking != [WORDS]:
        raise DataError(f"the weights in {packed} do not fit its settings: {missing}")
    decisions = stored_thresholds(packed), load_calibration(packed)
    with whole_folder(target) as new:
        Predictor(model.eval(), tokenizer, settings, *decisions).save(new)
        shutil.copy(packed / CARD, new / CARD)


def pack(source: Path | str, target: Path | str, card: str) -> int:
    """Write what training has changed of the embedded encoder, and all that belongs to the model.

    Args:
        source: A folder of `Predictor.save`; its encoder is an embedded one that has been trained.
        target: Gets the packed model; what stands there is replaced.
        card: The text of the model's card.

    Returns:
        The size of the packed folder in bytes.

    Raises:
        DataError: The model is none of several tasks, or its encoder is no embedded one.
    """
    import torch
    from safetensors.torch import save_file

    from viralbert_utils.encoders.loading import load_encoder
    from viralbert_utils.encoders.recipe import Recipe
    from viralbert_utils.models.storage import load_classifier

    path = own_path(source)
    model, tokenizer, settings = load_classifier(path, "cpu")
    base_tokenizer, base = load_encoder("embedded", "cpu")
    if settings["kind"] != "multitask" or tokenizer.get_vocab() != base_tokenizer.get_vocab():
        raise DataError(
            f"{path}: expected a model of several tasks on the embedded encoder, found "
            f"{settings['kind']} with {len(tokenizer)} tokens"
        )
    state = {
        name: value for name, value in model.state_dict().items() if not name.startswith(POOLER)
    }
    words = base.get_input_embeddings().weight.detach()
    moved = state.pop(WORDS) - words
    rows = torch.nonzero(moved.norm(dim=1) > LEAST_MOVE * words.norm(dim=1)).flatten()
    scales = moved[rows].abs().amax(dim=1) / 127
    weights = {
        name: value.half() if name.startswith("encoder.") and value.is_floating_point() else value
        for name, value in state.items()
    }
    weights |= {
        "words.rows": rows.int(),
        "words.moves": (moved[rows] / scales[:, None]).round().to(torch.int8),
        "words.scales": scales,
    }
    with whole_folder(target) as new:
        save_file({name: value.contiguous() for name, value in weights.items()}, new / WEIGHTS)
        settings["embedded"] = Recipe().key
        (new / SETTINGS).write_text(
            json.dumps(settings, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
        shutil.copytree(path / "thresholds", new / "thresholds")
        if (calibration := path / "calibration.json").is_file():
            shutil.copy(calibration, new)
        (new / CARD).write_text(card, encoding="utf-8")
        write_sums(new)
    return sum(file.stat().st_size for file in own_path(target).rglob("*") if file.is_file())
