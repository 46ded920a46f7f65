"""Encoders that have learnt nothing and take no time, for tests of what is around them."""

from typing import Any

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordPiece
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast


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


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows one word, `а`."""
    words = {word: i for i, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "а"])}
    core = Tokenizer(WordPiece(words, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
