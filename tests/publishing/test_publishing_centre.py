"""What the report says of a model that was centred."""

from pathlib import Path

from small_run import RECIPE, Run, facts

from raysberta.centring.facts import CentreFacts
from raysberta.publishing import lineage, phases, sections


def test_what_was_taken_away_and_what_that_did(tmp_path: Path) -> None:
    recipe = {**RECIPE, "phases": {**RECIPE["phases"], "centred": {"kind": "centre", "from": "merged", "share": 0.75}}}
    given = CentreFacts(texts=1024, cosine_before=0.8124, cosine_after=0.0519)
    found = lineage.read(Run(recipe, tmp_path).fill({**facts(), "centred": given}).manifests)
    node = found.get("centred")
    assert node is not None
    cosine = "mean cosine of two of them 0.812 before, 0.052 after"
    assert phases.line(found, node) == f"from `merged`, less 0.75 of the mean vector of 1,024 texts: {cosine}"
    (part,) = [part for part in sections.trained(found) if part.title == "centred"]
    assert part.kind == "centre"
