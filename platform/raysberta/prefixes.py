"""Which prefix a task puts before which text: the one place that mining, training, evaluation and the export ask.

As in ru-en-RoSBERTa (arXiv 2408.12503): retrieval has a query and a document prefix; paraphrase-like and thematic tasks put one
prefix on both sides.
mteb looks prompts up under its own names and drops unknown ones in silence, so the names it needs are derived here as well.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from raysberta.graph import Section
from raysberta.schema import Task

Side = Literal["query", "document"]


class Prefixes(Section):
    """The texts put before a text, by task and side. Each is literal, trailing blank included."""

    retrieval_query: str = "search_query: "
    """Before a question or term that is searched for."""
    retrieval_document: str = "search_document: "
    """Before a passage that is searched."""
    paraphrase: str = "classification: "
    """Before both sides of paraphrases, translations, entailment."""
    topic: str = "clustering: "
    """Before both sides of pairs that share a theme; and for clustering."""
    classification: str | None = None
    """Before both sides of pairs that share a class; and for classification. As before paraphrases where null."""

    def of(self, task: Task, side: Side) -> str:
        """The prefix of one side of a task."""
        if task == "retrieval":
            return self.retrieval_query if side == "query" else self.retrieval_document
        if task == "classification" and self.classification is not None:
            return self.classification
        return self.topic if task == "topic" else self.paraphrase

    def mteb_prompts(self) -> dict[str, str]:
        """Prompts under the names that mteb looks up for any task, registered or not: task types, and query/document."""
        return {
            "Retrieval-query": self.retrieval_query,
            "Retrieval-document": self.retrieval_document,
            "Reranking-query": self.retrieval_query,
            "Reranking-document": self.retrieval_document,
            "STS": self.paraphrase,
            "PairClassification": self.paraphrase,
            "BitextMining": self.paraphrase,
            "Classification": self.of("classification", "query"),
            "MultilabelClassification": self.of("classification", "query"),
            "Clustering": self.topic,
            "query": self.retrieval_query,
            "document": self.retrieval_document,
        }

    def named_prompts(self) -> dict[str, str]:
        """Prompts under the names that the published model carries: `prompt_name="search_query"` and so on."""
        apart = {} if self.classification is None else {"paraphrase": self.paraphrase}
        return {
            "search_query": self.retrieval_query,
            "search_document": self.retrieval_document,
            "classification": self.of("classification", "query"),
            **apart,
            "clustering": self.topic,
        }


E5 = Prefixes(retrieval_query="query: ", retrieval_document="passage: ", paraphrase="query: ", topic="query: ")
"""What multilingual-e5 was trained with, from its model card: symmetric tasks take "query: " on both sides."""

NOMIC = Prefixes()
"""What nomic-embed and ru-en-RoSBERTa were trained with."""

NONE = Prefixes(retrieval_query="", retrieval_document="", paraphrase="", topic="")
"""Nothing before any text."""

NAMED: Mapping[str, Prefixes] = {"e5": E5, "nomic": NOMIC, "none": NONE}


def _named(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    if given not in NAMED:
        raise ValueError(f"no prefixes are called {given!r}; right would be {', '.join(NAMED)}, or the texts themselves")
    return NAMED[given]


NamedPrefixes = Annotated[Prefixes, BeforeValidator(_named)]
"""Prefixes, or a name of them: e5, nomic, none."""
