"""Which sources a phase has by its recipe, what the plan of all variants shares, and the table."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from raysberta.errors import InputError
from raysberta.parsing import load
from raysberta.pipeline.ablation_command import main, table
from raysberta.pipeline.leave_one_out import everything, judged, sources, variants
from raysberta.pipeline.plan import plan
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import Store
from raysberta.training.facts import DevPoint

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"
EVERY = ROOT / "tests" / "every_section.yaml"


def smoke(*changes: str) -> Recipe:
    return load(SMOKE, changes)


def test_sources_follow_from_the_recipe() -> None:
    assert sources(smoke(), "tuned") == [
        "dictionary/term_definition",
        "dictionary/definition_usage",
        "docstrings/summary_body",
        "docstrings/name_summary",
    ]
    whole = sources(smoke(), "general")
    assert whole[-2:] == ["synthetic/llm_query", "synthetic/llm_paraphrase"] and "interface/translation" in whole
    assert "docstrings/name_summary" not in sources(smoke("pairs.limits={docstrings/name_summary: 0}"), "tuned")
    given = sources(load(EVERY), "tuned")
    assert "labelled/dataset" in given and "synthetic/seq2seq_question" in given


def test_the_phase_is_made_as_the_recipe_has_it_but_for_its_search() -> None:
    phase = everything(smoke(), "tuned", 2).phases["tuned"]
    assert phase.search is None and phase.steps == 2  # type: ignore[union-attr]
    assert phase.dev_tasks == tuple(smoke().tasks)  # type: ignore[union-attr]
    assert everything(smoke(), "general").phases["general"].dev_tasks == ("DictionaryRetrieval", "InterfaceBitext")  # type: ignore[union-attr]


def test_all_variants_share_all_but_the_phase(tmp_path: Path) -> None:
    recipe = everything(smoke(), "tuned", 2)
    keys = sources(recipe, "tuned")
    found = variants(recipe, "tuned", keys)
    assert list(found) == keys and found[keys[0]].name == "smoke-without=dictionary_term_definition"
    assert found[keys[0]].phases["tuned"].source_weights == {keys[0]: 0.0}  # type: ignore[union-attr]
    made = plan([recipe, *found.values()], Store(str(tmp_path)), ["tuned"])
    names = [item.node.name for item in made.nodes]
    assert names.count("tuned") == 1 + len(keys)
    assert all(names.count(name) == 1 for name in names if name != "tuned")
    assert not [item for item in made.nodes if item.node.kind in ("search", "score", "benchmark")], (
        "dev halves by the phase itself, no more"
    )


def test_sources_that_are_out_already_are_not_left_out_again() -> None:
    recipe = everything(smoke("phases.tuned.source_weights={dictionary/term_definition: 0}"), "tuned")
    assert next(iter(variants(recipe, "tuned", sources(recipe, "tuned")))) == "dictionary/definition_usage"


def test_names_of_variants_differ() -> None:
    recipe = everything(smoke(), "tuned")
    found = variants(recipe, "tuned", ["a b/x", "a?b/x", "c" * 200, "c" * 201])
    assert len({each.name for each in found.values()}) == 4
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_.=-]{0,119}", each.name) for each in found.values())


@pytest.mark.parametrize(
    ("phase", "changes", "says"),
    [
        ("merged", (), "--phase merged: no contrastive phase is called so; right would be general, tuned"),
        ("tuned", ("phases.tuned.sampling=mixed",), "phases.tuned.sampling: mixed batches have no source"),
    ],
)
def test_what_does_not_fit_is_refused(phase: str, changes: tuple[str, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        everything(smoke(*changes), phase)


def test_one_source_alone_is_refused() -> None:
    with pytest.raises(InputError, match="trains on a/b alone"):
        variants(everything(smoke(), "tuned"), "tuned", ["a/b"])


def test_the_source_that_is_missed_most_comes_first() -> None:
    def point(own: float, general: float | None = None) -> DevPoint:
        return DevPoint(step=2, own=own, general=general, scores={"Words": own}, seconds=1.0)

    without = {"a/x": point(0.52), "b/y": point(0.3), "c/z": point(0.5)}
    found = judged(point(0.5), without, {"a/x": 7, "b/y": 1000, "c/z": 3})
    assert [(left.source, left.rows, round(left.own_difference or 0.0, 6), left.general_difference) for left in found] == [
        ("b/y", 1000, -0.2, None),
        ("c/z", 3, 0.0, None),
        ("a/x", 7, 0.02, None),
    ]
    both = judged(point(0.5, 0.5), {"a/x": point(0.49, 0.5), "b/y": point(0.5, 0.4)}, {})
    assert [left.source for left in both] == ["b/y", "a/x"], "general tasks count as well"
    out = io.StringIO()
    Console(file=out, width=120).print(table("tuned", point(0.5), found))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.getvalue().splitlines() if line.startswith("│")]
    assert cells[0] == ["b/y", "1,000", "30.00", "-20.00", "", "", "30.00"] and cells[-1] == ["nothing", "", "50.00", "", "", "", "50.00"]


def test_the_job_plans_without_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--recipe", str(SMOKE), "--set", f"storage={tmp_path}", "--set", "limits.min_free_gib=0"]
    assert main("", [*small, "--phase", "tuned", "--steps", "2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "smoke-without=docstrings_name_summary" in "".join(out.split()) or out.count("contrastive") == 6
    assert main("", [*small, "--phase", "tuned", "--steps", "0", "--dry-run"]) == 2
    assert main("", [*small, "--phase", "adapted", "--dry-run"]) == 2
    assert "right would be general, tuned" in capsys.readouterr().err
    assert main("", [*small, "--vary", "seed=1,2", "--phase", "tuned"]) == 2
