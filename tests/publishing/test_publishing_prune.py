"""What the report says of layers that were left out."""

from pathlib import Path

from small_run import RECIPE, Run, facts

from raysberta.pruning.facts import PruneFacts, Removal
from raysberta.publishing import lineage, phases, sections

REMOVALS = [
    Removal(layer=2, similarities={1: 0.9123, 2: 0.9456, 3: 0.8}),
    Removal(layer=1, similarities={1: 0.8512, 3: 0.7}),
]
SIZES = {"layers_before": 4, "parameters_before": 2_000_000, "parameters_after": 1_500_000}
MEASURED = PruneFacts(kept=[0, 3], removals=REMOVALS, texts=512, similarity=0.8512, first_layers=0.4021, **SIZES)
NAMED = PruneFacts(kept=[0, 3], removals=[], texts=0, similarity=None, first_layers=None, **SIZES)


def told(folder: Path, given: PruneFacts, **settings: object) -> tuple[str, sections.Part]:
    """The line and the part of the report."""
    recipe = {**RECIPE, "phases": {**RECIPE["phases"], "thinned": {"kind": "prune", "from": "merged", **settings}}}
    found = lineage.read(Run(recipe, folder).fill({**facts(), "thinned": given}).manifests)
    node = found.get("thinned")
    assert node is not None
    (part,) = [part for part in sections.trained(found) if part.title == "thinned"]
    return phases.line(found, node), part


def test_every_removal_is_a_row_with_what_each_layer_would_have_cost(tmp_path: Path) -> None:
    line, part = told(tmp_path, MEASURED, keep=2)
    assert line.startswith("from `merged`, layers 0, 3 of 4 (counted from 0), dropped one by one by what their absence changes, ")
    assert "cosine with the whole model 0.8512 on 512 texts (0.4021 by the first 2), 2.0M parameters became 1.5M" in line
    assert part.kind == "prune" and part.table is not None
    assert part.table.head == ["dropped", "1", "2", "3"]
    assert part.table.rows == [["2", "0.9123", "0.9456", "0.8000"], ["1", "0.8512", "", "0.7000"]]


def test_named_layers_are_told_without_a_table(tmp_path: Path) -> None:
    line, part = told(tmp_path, NAMED, layers=[0, 3], pairs=[])
    assert line == "from `merged`, layers 0, 3 of 4 (counted from 0), named in the recipe, 2.0M parameters became 1.5M"
    assert part.table is None
