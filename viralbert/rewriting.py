"""Texts rewritten by a sequence-to-sequence model, kept line by line as they come.

`viralbert translate` and `viralbert paraphrase` stand on it. An interrupted run goes on where it
stopped. What is kept belongs to one model with one way of generating: another one begins anew, and
a warning says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from viralbert_utils.base import devices, hub
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.texts import normalise

_MOST_TOKENS = 512  # of an input, for models that name no limit of their own
_log = logging.getLogger(__name__)


def load_model(name: str, what: str) -> tuple[Any, Any]:
    """Load tokenizer and model, from the hub or a folder.

    The model is in evaluation mode, on `devices.default`.

    Args:
        name: A hub name or a folder.
        what: What the model is for, for the message.

    Raises:
        DataError: It cannot be loaded; the message says what to do.
    """
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        with warnings.catch_warnings():  # of an optional package that would normalise punctuation
            warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
            tokenizer = hub.from_pretrained(AutoTokenizer, name)
        model = hub.from_pretrained(AutoModelForSeq2SeqLM, name).eval()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{what} model {name!r} could not be loaded ({error}); download it on a machine "
            "with network and give its folder as the model"
        ) from error
    return tokenizer, model.to(devices.default())


def rewrite(
    texts: Sequence[str],
    tokenizer: Any,
    model: Any,
    kept: Path,
    batch_size: int = 32,
    max_tokens: int = 256,
    what: str = "rewrite",
    **options: Any,
) -> list[list[str]]:
    """Rewrite texts in batches of like length.

    Args:
        texts: Equal ones are rewritten once.
        tokenizer: The first that `load_model` gives.
        model: The second that `load_model` gives.
        kept: JSONL file of finished texts, read at the start and appended to after each batch.
        batch_size: Texts rewritten at once.
        max_tokens: Longer texts are not rewritten (a cut text would keep labels of the part that is
            gone).
        what: Name of the progress bar.
        options: For `model.generate`; with `num_return_sequences` each text gives several.

    Returns:
        The new texts for each text, none of them empty; an empty list where there is none: the
        input is empty or too long, or all that came was empty.
    """
    import torch

    limit = int(getattr(model.config, "max_position_embeddings", 0) or _MOST_TOKENS)
    max_tokens = min(max_tokens, limit)
    maker = digest(tokenizer, model, {"max_tokens": max_tokens, **options})
    done = _read_kept(kept, maker)
    open_texts = sorted(
        {text for text in texts if normalise(text) and _key(text) not in done},
        key=lambda t: (len(t), t),
    )
    n_each = options.get("num_return_sequences", 1)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (
        kept.open("a", encoding="utf-8") as file,
        tqdm(total=len(open_texts), unit="text", desc=what) as bar,
    ):
        for batch in _batches(open_texts, batch_size):
            rewritten: dict[str, list[str]] = {text: [] for text in batch}
            fitting = [text for text in batch if len(tokenizer(text)["input_ids"]) <= max_tokens]
            if fitting:
                encoded = tokenizer(fitting, return_tensors="pt", padding=True)
                inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
                with torch.inference_mode():
                    generated = model.generate(
                        **{name: part.to(model.device) for name, part in inputs.items()},
                        max_length=None,
                        max_new_tokens=min(2 * max_tokens, limit - 1),
                        **options,
                    )
                decoded = tokenizer.batch_decode(generated, skip_special_tokens=True)
                for text, own in zip(fitting, _batches(decoded, n_each), strict=True):
                    rewritten[text] = [new.strip() for new in own if normalise(new)]
            for text, own in rewritten.items():
                done[_key(text)] = own
                entry = {"model": maker, "key": _key(text), "texts": own}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            bar.update(len(batch))
    return [done.get(_key(text), []) for text in texts]


def digest(tokenizer: Any, model: Any, options: Mapping[str, Any]) -> str:
    """A hash of all that decides on a new text: weights, vocabulary, settings of generation."""
    import torch

    weights = [
        [name, str(part.dtype), list(part.shape), str(torch.hash_tensor(part).item())]
        for name, part in model.state_dict().items()
    ]
    generation = model.generation_config.to_dict()
    generation.pop("transformers_version", None)
    parts = [weights, sorted(tokenizer.get_vocab().items()), generation, dict(options)]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _key(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _read_kept(path: Path, maker: str) -> dict[str, list[str]]:
    """What the same maker has left in a file; a warning counts what others have."""
    if not path.is_file():
        return {}
    done: dict[str, list[str]] = {}
    n_others = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a killed run may be cut; its text is rewritten again
        if isinstance(entry, dict) and entry.get("model") == maker:
            done[entry["key"]] = entry["texts"]
        else:
            n_others += 1
    if n_others:
        _log.warning(
            "%s has %d texts of another model or other settings: they stay there and are not used",
            path,
            n_others,
        )
    # A cut last line must not swallow the next entry.
    if not path.read_bytes().endswith(b"\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    return done


def _batches(items: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
