"""The reference and the picture in docs/ are those of the code."""

import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections.abc import Iterator

import pytest

from raysberta import parsing  # noqa: F401 - now all settings classes are there
from raysberta.graph import Section
from raysberta.nodes import nodes_of
from raysberta.parsing import load
from raysberta.pipeline import stages  # noqa: F401
from raysberta.recipe import Recipe
from source_tree import ROOT

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import generate  # noqa: E402

COMPOSED = {
    *(
        "Documents",
        "NaturalPairs",
        "HeldOutTasks",
        "ModelScores",
        "WrittenPairs",
        "MergePhase",
        "MlmPhase",
        "AlignPhase",
        "DistilPhase",
        "ContrastivePhase",
    ),
    *("SearchTrials", "Release", "Prepared"),
}
"""What the recipe's composition gives to a stage: nobody writes it."""


def _classes(model: type[Section] = Section) -> Iterator[type[Section]]:
    for child in model.__subclasses__():
        if child.__module__.startswith("raysberta.") and not hasattr(child, "_recorded_as"):  # another test's copies
            yield child
            yield from _classes(child)


def test_the_reference_is_generated_from_the_settings() -> None:
    made = subprocess.run([sys.executable, DOCS / "generate.py", "--print"], capture_output=True, text=True, check=True).stdout
    assert (DOCS / "recipe.md").read_text(encoding="utf-8") == made, "run python docs/generate.py"


def test_the_reference_has_every_section_once() -> None:
    shown = [Recipe, *generate._headings()]
    assert len(shown) == len(set(shown))
    bases = {model for model in _classes() if list(_classes(model))}
    assert set(shown) == {model for model in _classes() if model.__name__ not in COMPOSED and model not in bases}
    headings = re.findall(r"^## (.*)$", generate.reference(), re.MULTILINE)
    assert len(headings) == len(set(headings)) == len(shown)


def test_headings_say_where_a_section_stands() -> None:
    headings = set(re.findall(r"^## (.*)$", generate.reference(), re.MULTILINE))
    assert headings >= {
        *("`(top level)`", "`sources.<name>` with `kind: files`", "`corpus`", "`corpus.quality_rules.<language>`", "`models.<name>`"),
        *("`models.<name>.prefixes`, `phases.<name>.prefixes`", "`examples.<name>.mine`", "`phases.<name>` with `kind: contrastive`"),
        *("`phases.<name>.search`", "`phases.<name>.search.over.<name>`", "`written.<name>` with `kind: seq2seq`", "`limits`"),
    }


@pytest.mark.parametrize("model", [Recipe, *generate._headings()], ids=lambda model: model.__name__)
def test_every_field_is_told_by_its_key_and_described(model: type[Section]) -> None:
    text = generate._section(model, ["here"])
    assert (model.__doc__ or "").strip() and "\n" not in text.split("\n")[2]
    for name, field in model.model_fields.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{field.alias or name}` |")]
        assert row.count("|") == 5, "a cell holds what ends it"
        assert field.description or name == "kind", f"{model.__name__}.{name} has no description"


def test_what_is_no_identity_is_marked() -> None:
    reference = generate.reference()
    for key in ("checkpoint_every", "concurrent", "recompute", "evaluation_sets"):
        rows = [line for line in reference.splitlines() if line.startswith(f"| `{key}` |")]
        assert rows and all(row.endswith("*Not identity.* |") for row in rows)
    assert not [line for line in reference.splitlines() if line.startswith("| `temperature` |") and "Not identity" in line]


def test_the_picture_is_the_laptop_recipes() -> None:
    text = generate.picture()
    assert (DOCS / "laptop.svg").read_text(encoding="utf-8") == text, "run python docs/generate.py"
    drawn = {element.text for element in xml.fromstring(text).iter() if element.tag.endswith("text")}
    assert nodes_of(load(ROOT / "recipes" / "laptop.yaml")).keys() <= drawn


def test_docs_name_no_file_that_is_not_there() -> None:
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
