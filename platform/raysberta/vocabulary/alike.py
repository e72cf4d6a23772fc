"""What pieces mean to an encoder of several languages: word vectors for WECHSEL's mixtures that ask for no dictionary and no corpus.

Each piece is embedded as if its text were a sentence, and what all pieces have in common is taken away, so that a cosine tells words of one
meaning from others, in whatever languages they are; a part of a word, or a name, comes to lie near what is spelled like it in the other
script. The mixtures are those of wechsel.py, whose static vectors need a dictionary to be brought together (docs/decisions.md).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from raysberta.retrieval.embed import Embedder
from raysberta.vocabulary.pieces import CONTINUING, read
from raysberta.vocabulary.scripts import readable

LEAST = 2
"""Characters: a letter by itself means nothing."""
TOKENS = 16
"""Of a piece at most, prefix included."""


def meanings(embedder: Embedder, vocabularies: Sequence[PreTrainedTokenizerFast]) -> list[Tensor]:
    """Vectors float32 [pieces, D] of each vocabulary in one space, of unit length; 0 for pieces without a text, see `piece_texts`.

    Args:
        embedder: Reads what the pieces are of.
        vocabularies: Tokenizers.
    """
    texts = [piece_texts(tokenizer) for tokenizer in vocabularies]
    distinct = sorted({text for each in texts for text in each if text})
    if not distinct:
        return [torch.zeros(len(each), embedder.model.dimension) for each in texts]
    prefix = embedder.description.prefixes.of("paraphrase", "query")
    vectors = torch.from_numpy(embedder.encode([prefix + text for text in distinct]))
    rows = torch.cat([F.normalize(vectors - vectors.mean(0), dim=-1), torch.zeros(1, vectors.shape[1])])
    place = {text: number for number, text in enumerate(distinct)}
    return [rows[[place.get(text, -1) for text in each]] for each in texts]


def piece_texts(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What each piece says, by id; "" where that is less than LEAST characters, or begins with no letter or digit, as BERT's [unused1]."""
    pieces = read(tokenizer)
    shown = [text.removeprefix(CONTINUING) for text in pieces.texts] if pieces.kind == "wordpiece" else readable(pieces)
    said = [text.replace("▁", " ").strip() for text in shown]
    special = {*pieces.special, *tokenizer.all_special_tokens}
    return [
        text if len(text) >= LEAST and text[0].isalnum() and piece not in special else ""
        for piece, text in zip(pieces.texts, said, strict=True)
    ]
