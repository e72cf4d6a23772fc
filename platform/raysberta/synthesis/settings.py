"""Pairs that models write, and the filter that keeps the consistent ones."""

from typing import Annotated, Literal

from pydantic import Field

from raysberta.graph import DocumentsRef, EncoderRef, GeneratorRef, Language, NaturalNumber, Positive, Section, Share

VERSION: int = 3
"""Of the results; bumped when the same settings and inputs give another result."""


class _Writing(Section):
    by: GeneratorRef
    """The model that writes, an entry of `models`."""
    about: tuple[str, ...] = ()
    """Take passages of these sources only; of all where empty."""
    passages: Positive = 300
    """How many training passages to write for, chosen by hash of their id."""
    max_passage_characters: Positive = 600
    """Longer passages are cut at a sentence end before this."""
    max_new_tokens: Positive = 48
    """Greatest length of an answer."""
    kept_if_found_by: EncoderRef | None = None
    """Keep a pair when this encoder finds its passage again by its query; no such filter where null."""
    found_within: Positive = 2
    """Found means: among so many best of the pool (E5, nomic: 2)."""
    pool: Positive = 1_000_000
    """Greatest number of training passages of the language in that pool, chosen by hash of their id (nomic: 1 million)."""
    find_tokens: Positive = 128
    """Longer texts are cut for the encoder that finds."""
    failure_budget: Share = 0.2
    """Greatest share of failed answers before the stage fails."""


class LlmPairs(_Writing):
    """Queries and paraphrases by a decoder LLM: vLLM through ray.data.llm, transformers where vLLM cannot run."""

    kind: Literal["llm"]
    language: Language = "en"
    """Write for passages of this language."""
    tasks: tuple[Literal["query", "paraphrase"], ...] = ("query", "paraphrase")
    """What to write for each passage."""
    temperature: NaturalNumber = 0.3
    """Sampling temperature; 0 is greedy. Small models leave the passage behind at higher ones."""
    max_model_length: Positive = 1024
    """Context that the engine reserves, in tokens."""
    batch_size: Positive = 32
    """Prompts a batch."""


class Seq2SeqPairs(_Writing):
    """Questions by an encoder-decoder model (ruT5 and any AutoModelForSeq2SeqLM), in Ray Data actors; vLLM serves no T5."""

    kind: Literal["seq2seq"]
    language: Language = "ru"
    """Write for passages of this language."""
    prompt: str = "{passage}"
    """What the encoder reads; {passage} stands for the passage."""
    max_passage_tokens: Positive = 256
    """Longer passages are cut."""
    beams: Positive = 1
    """Beam width; 1 is greedy."""
    batch_size: Positive = 16
    """Passages a batch."""


Written = Annotated[LlmPairs | Seq2SeqPairs, Field(discriminator="kind")]


class WrittenPairs(Section):
    """A node of kind `written`."""

    documents: DocumentsRef
    """Where passages come from."""
    how: Written
    """What is written, and what stays."""
