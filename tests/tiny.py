"""Encoders that have learnt nothing and take no time, for tests of what is around them."""

from typing import Any

from transformers import BertConfig, BertModel


def config(
    n_words: int = 16, n_positions: int = 32, width: int = 16, n_layers: int = 1, **more: Any
) -> dict[str, Any]:
    """The sizes of a tiny BERT, by the names of the transformers library; `more` goes before."""
    sizes = {
        "vocab_size": n_words,
        "max_position_embeddings": n_positions,
        "hidden_size": width,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
    }
    return sizes | more


def bert(*sizes: int, pooler: bool = False, **more: Any) -> BertModel:
    """A BERT of the sizes of `config`, with weights as the random state draws them."""
    return BertModel(BertConfig(**config(*sizes, **more)), add_pooling_layer=pooler)
