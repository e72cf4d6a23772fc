"""The grammar of a recipe: number types, languages, references, and what of a section is identity."""

import json
import pickle
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from raysberta import graph
from raysberta.graph import (
    EXECUTION,
    MOST,
    EncoderRef,
    Integer,
    Language,
    Natural,
    NaturalNumber,
    NodeRef,
    Number,
    PairsRef,
    Positive,
    PositiveNumber,
    Ref,
    Section,
    Share,
    identity,
    references,
)


class Inner(Section):
    weight: Number = 1.0
    pairs: tuple[PairsRef, ...] = ()


class Outer(Section):
    from_: EncoderRef = Field(alias="from")
    inner: Inner = Inner()
    named: dict[str, Inner] = {}  # noqa: RUF012
    maybe: EncoderRef | None = None
    speed: Annotated[int, EXECUTION] = 1
    helper: Annotated[EncoderRef | None, EXECUTION] = None


class Numbers(Section):
    integer: Integer = 0
    positive: Positive = 1
    natural: Natural = 0
    number: Number = 0.0
    positive_number: PositiveNumber = 1.0
    natural_number: NaturalNumber = 0.0
    share: Share = 0.5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[
            (name, wrong)
            for name in Numbers.model_fields
            for wrong in (True, "3", None, float("inf"), float("-inf"), float("nan"), [1], 10**400)
        ],
        *[(name, wrong) for name in ("integer", "positive", "natural") for wrong in (1.5, 1.0, 10**20, MOST + 1)],
        *[(name, 0) for name in ("positive", "positive_number")],
        *[(name, -1) for name in ("positive", "natural", "positive_number", "natural_number", "share")],
        *[("integer", -MOST - 1), ("share", 1.01)],
    ],
)
def test_what_is_no_such_number(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Numbers.model_validate({field: value})


def test_whole_numbers_may_stand_for_others_and_are_then_the_same() -> None:
    assert Numbers.model_validate({"number": 1, "share": 1, "integer": -MOST}) == Numbers(number=1.0, share=1.0, integer=-MOST)
    one, other = Numbers.model_validate({"number": 1}), Numbers.model_validate({"number": 1.0})
    assert json.dumps(identity(one, {})) == json.dumps(identity(other, {}))


class Spoken(Section):
    language: Language


@pytest.mark.parametrize("code", ["xx", "xx1", "rus", "RU", "Ru", "", "r", "r\n", " ru", "ёё", "r\0"])
def test_what_is_no_language(code: str) -> None:
    with pytest.raises(ValidationError, match="two-letter code of a language"):
        Spoken(language=code)


@pytest.mark.parametrize("code", ["ru", "en", "zh", "no", "tt"])
def test_what_is_a_language(code: str) -> None:
    assert Spoken(language=code).language == code


def test_sections_are_frozen_and_closed() -> None:
    section = Numbers()
    with pytest.raises(ValidationError, match="frozen"):
        section.integer = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra"):
        Numbers.model_validate({"other": 1})
    assert Numbers.model_fields["integer"].description is None
    assert Section.model_config["use_attribute_docstrings"]


def an_outer(**more: Any) -> Outer:
    return Outer.model_validate({"from": "base", "inner": {"pairs": ["natural", "asked"]}, "named": {"b": {"pairs": ["other"]}}, **more})


def test_references_are_found_wherever_they_stand_with_the_keys_of_the_recipe() -> None:
    found = dict(references(an_outer(maybe="second", helper="third")))
    assert found == {
        "from": "base",
        "inner.pairs.0": "natural",
        "inner.pairs.1": "asked",
        "named.b.pairs.0": "other",
        "maybe": "second",
        "helper": "third",
    }
    assert isinstance(found["from"], EncoderRef) and isinstance(found["named.b.pairs.0"], PairsRef)
    assert dict(references(Numbers())) == {}
    assert dict(references({"a": [PairsRef("p")]}, "at")) == {"at.a.0": "p"}


def test_references_keep_their_class_and_are_texts_elsewhere() -> None:
    outer = an_outer()
    assert type(outer.from_) is EncoderRef and type(pickle.loads(pickle.dumps(outer)).from_) is EncoderRef
    assert type(outer.model_dump()["from_"]) is str
    assert type(Outer.model_validate(outer.model_dump()).inner.pairs[0]) is PairsRef
    for wrong in ("", 3, None, ["base"]):
        with pytest.raises(ValidationError):
            Outer.model_validate({"from": wrong})


def test_every_kind_of_reference_says_what_it_asks_for() -> None:
    kinds = [kind for kind in vars(graph).values() if isinstance(kind, type) and issubclass(kind, Ref) and kind is not Ref]
    assert len(kinds) >= 12 and all(kind.makes for kind in kinds)
    assert frozenset().union(*(kind.makes for kind in kinds if kind is not NodeRef)) == NodeRef.makes


def test_identity_has_ids_instead_of_names() -> None:
    ids = {"base": "model/1", "natural": "natural/2", "asked": "written/3", "other": "written/4"}
    assert identity(an_outer(), ids) == {
        "from_": "model/1",
        "inner": {"weight": 1.0, "pairs": ["natural/2", "written/3"]},
        "named": {"b": {"weight": 1.0, "pairs": ["written/4"]}},
        "maybe": None,
    }
    renamed = an_outer(**{"from": "basis"})
    assert identity(renamed, {**ids, "basis": "model/1"}) == identity(an_outer(), ids)
    with pytest.raises(KeyError):
        identity(renamed, ids)


def test_identity_leaves_out_what_is_execution_and_the_name_behind_it() -> None:
    ids = {"base": "model/1", "natural": "natural/2", "asked": "written/3", "other": "written/4"}
    assert identity(an_outer(speed=9, helper="nowhere"), ids) == identity(an_outer(), ids)
    assert "speed" not in identity(an_outer(), ids)
    assert repr(EXECUTION) == "EXECUTION"


def test_identity_is_json() -> None:
    value = {"a": (1, 2.5, None, True, "x"), 3: Inner()}
    assert json.loads(json.dumps(identity(value, {}))) == {"a": [1, 2.5, None, True, "x"], "3": {"weight": 1.0, "pairs": []}}
