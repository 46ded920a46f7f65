"""Tokenizer and encoder from the hub, from a folder, or the embedded one.

All three sources give the same types of the transformers library, so everything after loading is
the same code. Lesson 02 compares the poolings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from viralbert_utils.base import devices, hub, tokens
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import check_plain, own_path
from viralbert_utils.base.tokens import encode as encode
from viralbert_utils.encoders.embedded import embedded_folder

_BIDIRECTIONAL = (
    "BertModel",
    "DistilBertModel",
    "RobertaModel",
    "XLMRobertaModel",
    "ElectraModel",
    "DebertaV2Model",
)


def load_encoder(
    name: str = "embedded", device: torch.device | str | None = None
) -> tuple[Any, Any]:
    """Tokenizer and encoder, in evaluation mode, float32.

    Args:
        name: `embedded` (built on this machine on first use), a folder with a transformers model,
            or a hub name such as `cointegrated/rubert-tiny2`.
        device: Where the encoder is put; `devices.default` if not given.

    Returns:
        `(tokenizer, model)`; calling the model gives `last_hidden_state` `(n_texts, n_tokens,
        hidden_size)`.

    Raises:
        DataError: No such folder and the hub cannot be reached, a broken folder, or a model that is
            no encoder.
    """
    from transformers import AutoModel

    tokenizer = load_tokenizer(name)
    model, about = _load(AutoModel, name, dtype=torch.float32, output_loading_info=True)
    # The pooler is a part of BERT that nothing here uses, and that many folders leave out. Anything
    # else that is missing would stand there at random.
    missing = sorted(key for key in about["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise DataError(
            f"encoder {name!r} lacks {len(missing)} weights ({missing[0]}, ...); copy or save it "
            "again"
        )
    if (
        model.config.is_encoder_decoder
        or not hasattr(model.config, "hidden_size")
        or _is_causal(model)
    ):
        raise DataError(
            f"{name!r} is a {type(model).__name__}, not an encoder: expected a model of the BERT "
            "family, which reads a text in both directions and gives a vector for each token"
        )
    return tokenizer, model.eval().to(device or devices.default())


def load_tokenizer(name: str = "embedded") -> Any:
    """The tokenizer of an encoder alone; name and errors as in `load_encoder`."""
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, name)


def _load(kind: Any, name: str, **options: Any) -> Any:
    folder = own_path(name)
    if name == "embedded":
        folder = embedded_folder()
    elif folder.is_dir():
        if not (folder / "config.json").is_file():
            raise DataError(
                f"encoder folder {name!r} has no config.json: expected a model saved by "
                "transformers"
            )
        check_plain(folder)
    try:
        _check_places(folder)
        return hub.from_pretrained(kind, str(folder) if folder.is_dir() else name, **options)
    except DataError as error:
        raise DataError(f"encoder {name!r} could not be loaded: {error}") from None
    except Exception as error:  # network, missing or broken files: a family of errors, two remedies
        problem = f"{type(error).__name__}: {error}"
        if name == "embedded":
            raise DataError(
                f"the embedded encoder is damaged ({problem}); delete {folder}, it is built again"
            ) from error
        if folder.is_dir():
            raise DataError(
                f"encoder folder {name!r} is damaged ({problem}); copy, save or train it again"
            ) from error
        if (
            "/" in name and folder.parent.is_dir()
        ):  # the hub was asked because an owner there may be called so
            raise DataError(
                f"encoder {name!r} could not be loaded: no such folder in {str(folder.parent)!r}, "
                f"and from the hub {problem}; give a folder that is there"
            ) from error
        raise DataError(
            f"encoder {name!r} could not be loaded: no such folder, and from the hub {problem}; "
            "use encoder='embedded' or download it where there is a network (viralbert download), "
            "and give its folder (on the command line the option is --encoder)"
        ) from error


def _check_places(folder: Path) -> None:
    """Refuse a folder whose weights lie elsewhere, where none of its checksums reaches.

    Raises:
        ValueError: A name leads out of the folder, or the list of names is none.
    """
    for path in folder.glob("*.index.json"):
        for name in set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()):
            if Path(name).name != name:
                raise ValueError(
                    f"{path.name}: expected the name of a file beside it, found {name!r}"
                )


def _is_causal(model: Any) -> bool:
    """Whether the first token's vector ignores what follows it, as in GPT and other decoders."""
    first, second = torch.tensor([[5, 6, 7]]), torch.tensor([[5, 6, 8]])
    model.eval()
    with torch.inference_mode():
        one, other = (
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            for ids in (first, second)
        )
    # Layers that pass their input on (the embedded encoder before training) ignore the rest,
    # attention or not.
    return torch.equal(one[:, 0], other[:, 0]) and type(model).__name__ not in _BIDIRECTIONAL


def n_positions(encoder: Any) -> int:
    """How many tokens of a text an encoder has places for, special ones included."""
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return int(getattr(encoder.config, "max_position_embeddings", 10**9))
    # RoBERTa counts its positions from behind that of padding.
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def mask_for(encoder: Any, attention_mask: Tensor) -> Tensor:
    """The mask as an encoder takes it without looking into it.

    Given `(n_texts, n_tokens)`, transformers asks in each pass whether there is any padding at all.
    On a CPU that is worth it; a GPU has to finish everything before it can answer. With the mask
    spelt out nothing is asked.

    Args:
        encoder: From `load_encoder`.
        attention_mask: `(n_texts, n_tokens)`, 1 for tokens, 0 for padding.

    Returns:
        The same on a CPU; else `(n_texts, 1, n_tokens, n_tokens)`, true where a token may look, if
        the encoder computes attention by PyTorch's own function and every layer looks at the whole
        text.
    """
    layers = getattr(encoder.config, "layer_types", None) or ["full_attention"]
    plain = encoder.config._attn_implementation == "sdpa" and set(layers) == {"full_attention"}
    if attention_mask.device.type == "cpu" or not plain:
        return attention_mask
    return attention_mask.bool()[:, None, None].expand(-1, 1, attention_mask.shape[1], -1)


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask of a padded batch: two `(n_texts, n_tokens)` tensors."""
    ids, mask = tokens.pad(rows, pad_id)
    return torch.from_numpy(ids), torch.from_numpy(mask)
