"""The one prefix table."""

from typing import get_args

import mteb
import pytest
from pydantic import ValidationError

from raysberta.graph import Section
from raysberta.prefixes import E5, NAMED, NOMIC, NONE, NamedPrefixes, Prefixes, Side
from raysberta.schema import Task


class Asked(Section):
    prefixes: NamedPrefixes | None = None


def test_each_task_and_side() -> None:
    assert (NOMIC.of("retrieval", "query"), NOMIC.of("retrieval", "document")) == ("search_query: ", "search_document: ")
    assert NOMIC.of("paraphrase", "query") == NOMIC.of("paraphrase", "document") == "classification: "
    assert NOMIC.of("topic", "query") == NOMIC.of("topic", "document") == "clustering: "
    assert (E5.of("topic", "document"), E5.of("retrieval", "document")) == ("query: ", "passage: ")
    assert {NONE.of(task, side) for task in get_args(Task) for side in get_args(Side)} == {""}


def test_classes_have_a_prefix_of_their_own_where_one_is_given() -> None:
    assert NOMIC.of("classification", "query") == NOMIC.of("paraphrase", "query")
    own = Prefixes(paraphrase="paraphrase: ", classification="categorize: ")
    assert (own.of("classification", "document"), own.of("paraphrase", "document")) == ("categorize: ", "paraphrase: ")
    prompts, named = own.mteb_prompts(), own.named_prompts()
    assert prompts["Classification"] == prompts["MultilabelClassification"] == named["classification"] == "categorize: "
    assert prompts["STS"] == prompts["PairClassification"] == named["paraphrase"] == "paraphrase: "


def test_mteb_knows_every_prompt_name() -> None:
    types = {task.metadata.type for task in mteb.get_tasks(languages=["eng", "rus"])}
    for name in NOMIC.mteb_prompts():
        kind = name.split("-")[0]
        assert kind in types or kind in ("query", "document"), f"mteb would ignore {name}"


def test_prompts_under_either_name_are_those_of_the_tasks() -> None:
    for prefixes in (NOMIC, E5, NONE):
        prompts, named = prefixes.mteb_prompts(), prefixes.named_prompts()
        assert prompts["query"] == prompts["Retrieval-query"] == named["search_query"] == prefixes.of("retrieval", "query")
        assert prompts["document"] == prompts["Reranking-document"] == named["search_document"] == prefixes.of("retrieval", "document")
        assert prompts["STS"] == prompts["BitextMining"] == named["classification"] == prefixes.of("paraphrase", "query")
        assert prompts["Clustering"] == named["clustering"] == prefixes.of("topic", "document")


@pytest.mark.parametrize("name", NAMED)
def test_prefixes_go_by_name(name: str) -> None:
    assert Asked.model_validate({"prefixes": name}).prefixes == NAMED[name]


def test_prefixes_are_written_out_or_null() -> None:
    assert Asked().prefixes is None
    own = Asked.model_validate({"prefixes": {"topic": "theme: "}}).prefixes
    assert own == Prefixes(topic="theme: ") and own.of("retrieval", "query") == "search_query: "
    assert Asked(prefixes=E5).prefixes is E5


@pytest.mark.parametrize(
    ("wrong", "says"),
    [("mE5", "right would be e5, nomic, none"), (3, "valid dictionary"), ({"query": "q: "}, "not permitted"), (["e5"], "valid dictionary")],
)
def test_other_prefixes_are_refused(wrong: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Asked.model_validate({"prefixes": wrong})
