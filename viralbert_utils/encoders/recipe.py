"""What the embedded encoder is made of: sizes, seed, and the trained layers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

LAYERS = Path(__file__).parent / "pretrained" / "layers.safetensors"
LAYERS_SHA256 = "202102679cd3e3b60d26dc1af96be7da682ba64e268b04c91f3a02c9acbfa9d2"


@dataclass(frozen=True)
class Recipe:
    """What the encoder is built from; another recipe is another folder.

    Attributes:
        n_words: Whole words in the vocabulary, the most frequent of Navec.
        n_pieces: Word beginnings, and as many continuations.
        n_layers: Transformer layers.
        n_heads: Attention heads; must divide 300.
        intermediate: Width of the feed-forward part.
        max_length: Positions.
        seed: Decides on everything that starts at random.
        version: Raised when the code below changes what it builds.
        pretrained: Take position vectors and layers from the file that comes with the project,
            which fits the default shape only; otherwise layers pass their input on until they are
            trained, and look at neighbours when they begin (`look_at_neighbours`).
    """

    n_words: int = 100_000
    n_pieces: int = 12_000
    n_layers: int = 2
    n_heads: int = 6
    intermediate: int = 1200
    max_length: int = 512
    seed: int = 0
    version: int = 3
    pretrained: bool = True

    @property
    def key(self) -> str:
        """Names the folder: a hash of the recipe, the word vectors' version and the layers."""
        layers = LAYERS_SHA256 if self.pretrained else ""
        parts = json.dumps([asdict(self), metadata.version("natasha"), layers], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:12]
