"""A fast tokenizer's vocabulary as plain lists, and back: a model built anew, never tokens added on top of one.

Unigram (XLM-R, mE5), BPE (RoBERTa, GPT-2) and WordPiece (BERT) are understood. Normaliser, pre-tokenizer, decoder and the
post-processor's template stay as they are; ids are rewritten wherever the file names them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from raysberta.errors import InputError

Kind = Literal["unigram", "bpe", "wordpiece"]
CONTINUING = "##"
"""How WordPiece writes a piece that does not begin a word."""


@dataclass(frozen=True)
class Pieces:
    """A vocabulary by id. Tokens that the tokenizer adds on top (`<mask>` of XLM-R) stand at their ids as well."""

    kind: Kind
    texts: list[str]
    scores: list[float]
    """Log probabilities of a Unigram; empty for others."""
    merges: list[tuple[str, str]]
    """Of BPE, by falling priority; empty for others."""
    special: frozenset[str]
    """Texts that are matched whole before the model sees them."""

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, ids: list[int]) -> "Pieces":
        """These pieces, in this order; of the merges those whose three parts are all there."""
        texts = [self.texts[piece] for piece in ids]
        there = set(texts)
        merges = [(left, right) for left, right in self.merges if left in there and right in there and left + right in there]
        return replace(self, texts=texts, scores=[self.scores[piece] for piece in ids] if self.scores else [], merges=merges)


def read(tokenizer: PreTrainedTokenizerFast) -> Pieces:
    """The pieces of a tokenizer.

    Raises:
        InputError: its model is none of these kinds, or its ids have gaps.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    special = {token["content"] for token in state["added_tokens"]}
    kind: Kind
    if model["type"] == "Unigram":
        kind = "unigram"
        by_id = {number: text for number, (text, _) in enumerate(model["vocab"])}
        scores = [score for _, score in model["vocab"]]
    elif model["type"] == "BPE" and not model.get("end_of_word_suffix") and not model.get("continuing_subword_prefix"):
        kind = "bpe"
        by_id = {number: text for text, number in model["vocab"].items()}
        scores = []
    elif model["type"] == "WordPiece" and model["continuing_subword_prefix"] == CONTINUING:
        kind = "wordpiece"
        by_id = {number: text for text, number in model["vocab"].items()}
        scores = []
    else:
        raise InputError(
            f"the tokenizer is {model['type']}; right would be Unigram, byte-level BPE or WordPiece, or a vocabulary left as it is"
        )
    by_id.update({token["id"]: token["content"] for token in state["added_tokens"]})
    if sorted(by_id) != list(range(len(by_id))):
        raise InputError("the tokenizer's ids have gaps; right would be ids from 0 without any")
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model.get("merges", [])]
    padded = scores + [0.0] * (len(by_id) - len(scores)) if scores else []
    return Pieces(kind, [by_id[number] for number in range(len(by_id))], padded, merges, frozenset(special))


def cut_greedily(text: str, number_of: Mapping[str, int]) -> tuple[int, ...]:
    """Ids of the WordPieces that spell a piece, itself one or to be one: always the longest that fits; none where a letter is missing."""
    at, found = (len(CONTINUING) if text.startswith(CONTINUING) else 0), list[int]()
    while at < len(text):
        before = CONTINUING if at else ""
        end = next((end for end in range(len(text), at, -1) if before + text[at:end] in number_of), None)
        if end is None:
            return ()
        found.append(number_of[before + text[at:end]])
        at = end
    return tuple(found)


def rebuild(tokenizer: PreTrainedTokenizerFast, pieces: Pieces) -> PreTrainedTokenizerFast:
    """The tokenizer with other pieces: each id is the place in `pieces.texts`. All special tokens must be among them."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    number_of = {text: number for number, text in enumerate(pieces.texts)}
    model = state["model"]
    if pieces.kind == "unigram":
        unknown = None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
        model["vocab"] = [[text, score] for text, score in zip(pieces.texts, pieces.scores, strict=True)]
        model["unk_id"] = None if unknown is None else number_of[unknown]
    else:
        model["vocab"] = number_of
    if pieces.kind == "bpe":
        model["merges"] = [list(merge) for merge in pieces.merges]
    for token in state["added_tokens"]:
        token["id"] = number_of[token["content"]]
    state["added_tokens"].sort(key=lambda token: token["id"])
    _renumber(state["post_processor"], number_of)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state, ensure_ascii=False)),
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        padding_side=tokenizer.padding_side,
        **tokenizer.special_tokens_map,
    )


def _renumber(processor: dict[str, Any] | None, number_of: dict[str, int]) -> None:
    """Rewrite the ids that a post-processor holds beside the tokens' texts."""
    if processor is None:
        return
    if processor["type"] == "Sequence":
        for part in processor["processors"]:
            _renumber(part, number_of)
    elif processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [number_of[text] for text in token["tokens"]]
    elif processor["type"] in ("RobertaProcessing", "BertProcessing"):
        for side in ("sep", "cls"):
            processor[side] = [processor[side][0], number_of[processor[side][0]]]
