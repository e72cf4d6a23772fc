"""The one prefix table."""

import mteb

from raysberta.prefixes import E5, Prefixes


def test_each_task_and_side() -> None:
    table = Prefixes()
    assert (table.of("retrieval", "query"), table.of("retrieval", "document")) == ("search_query: ", "search_document: ")
    assert table.of("paraphrase", "query") == table.of("paraphrase", "document") == "classification: "
    assert table.of("topic", "query") == table.of("topic", "document") == "clustering: "
    assert (E5.of("topic", "document"), E5.of("retrieval", "document")) == ("query: ", "passage: ")


def test_mteb_knows_every_prompt_name() -> None:
    types = {task.metadata.type for task in mteb.get_tasks(languages=["eng", "rus"])}
    for name in Prefixes().mteb_prompts():
        kind = name.split("-")[0]
        assert kind in types or kind in ("query", "document"), f"mteb would ignore {name}"
