"""Numbers by name, put into settings of phases: types, nested places, and what is refused."""

import pytest

from raysberta.errors import InputError
from raysberta.graph import EncoderRef
from raysberta.merging.settings import Merge
from raysberta.training.settings import Contrastive, Lora, Mlm
from raysberta.tuning.choice import check_searchable, with_values

MERGE = {"kind": "merge", "of": ["a", "b"]}
SOUP = {"kind": "merge", "of": ["a", "b", "c"], "weights": [1.0, 1.0, 2.0], "method": "linear"}
TRAINING = {"from": "a", "examples": ["mined"], "kind": "contrastive"}


def contrastive(**more: object) -> Contrastive:
    return Contrastive.model_validate({**TRAINING, **more})


def test_numbers_take_the_type_of_their_field_and_the_rest_stays() -> None:
    before = contrastive(lora={"rank": 4}, source_weights={"web/lead": 2.0})
    after = with_values(
        before, {"temperature": 0.05, "steps": 6.0, "lora.rank": 8.0, "source_weights.wiki.ru/title": 0.5, "source_weights.web/lead": 3}
    )
    assert after.temperature == 0.05 and after.steps == 6 and type(after.steps) is int
    assert after.lora == Lora(rank=8) and type(after.lora.rank) is int
    assert after.source_weights == {"web/lead": 3.0, "wiki.ru/title": 0.5}
    untouched = {"temperature", "steps", "lora", "source_weights"}
    assert after.model_dump(exclude=untouched) == before.model_dump(exclude=untouched)
    assert before.temperature == 0.02 and before.steps is None
    assert type(after.from_) is EncoderRef and after.from_ == "a"


def test_a_weight_that_was_null_and_places_of_a_list() -> None:
    assert with_values(Merge.model_validate(MERGE), {"weight": 0.25}).shares() == (0.75, 0.25)
    soup = with_values(Merge.model_validate(SOUP), {"weights.1": 0.0, "weights.0": 2.0})
    assert soup.weights == (2.0, 0.0, 2.0) and soup.shares() == (0.5, 0.0, 0.5)


def test_values_are_put_in_together_before_they_are_checked() -> None:
    only = Merge.model_validate({**SOUP, "weights": [0.0, 0.0, 1.0]})
    assert with_values(only, {"weights.2": 0.0, "weights.0": 1.0}).shares() == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temprature": 0.1}, r"^temprature: no such number; there are steps, epochs, learning_rate"),
        ({"temperature": -1.0}, r"^temperature: Input should be greater than 0"),
        ({"steps": 6.5}, r"^steps: 6\.5 is no whole number"),
        ({"recompute": 1.0}, r"^recompute: decides no result"),
        ({"checkpoint_every": 10}, r"^checkpoint_every: decides no result"),
        ({"compile": 1.0}, r"^compile: is no number"),
        ({"zero_stage": 4}, r"^zero_stage: Input should be less than or equal to 3"),
        ({"schedule": 1.0}, r"^schedule: is no number"),
        ({"lora.rank": 8}, r"^lora: is null, so there is no lora\.rank"),
        ({"temperature.low": 0.1}, r"^temperature: has no parts, so there is no temperature\.low"),
        ({"dimensions.0": 64}, r"^dimensions\.0: no such place; there are none"),
        ({"search": 1.0}, r"^search: no such number"),
        ({"objectives.web/lead": 1.0}, r"^objectives\.web/lead: is no number"),
    ],
)
def test_what_cannot_be_is_named(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_values(contrastive(), values)


def test_nested_fields_are_named_whole() -> None:
    with pytest.raises(InputError, match=r"^lora\.rang: no such number; there are lora\.rank, lora\.alpha, lora\.dropout$"):
        with_values(contrastive(lora={}), {"lora.rang": 1})
    with pytest.raises(InputError, match=r"^lora\.dropout: Input should be less than 1"):
        with_values(contrastive(lora={}), {"lora.dropout": 1.0})
    with pytest.raises(InputError, match=r"^weights\.3: no such place; there are 0 to 2$"):
        with_values(Merge.model_validate(SOUP), {"weights.3": 1.0})
    with pytest.raises(InputError, match=r"^weights: all are 0"):
        with_values(Merge.model_validate(SOUP), {"weights.0": 0.0, "weights.1": 0.0, "weights.2": 0.0})


def test_a_search_is_checked_where_it_stands() -> None:
    over = {"temperature": [0.02, 0.04], "steps": [6]}
    check_searchable(contrastive(search={"over": over}), "phases.tuned")
    check_searchable(contrastive(), "phases.tuned")
    check_searchable(Merge.model_validate({**MERGE, "search": {"over": {"weight": [0.0, 0.5]}}}), "phases.merged")
    ranged = {"over": {"retromae.decoder_mask": {"low": 0.5, "high": 0.7}}, "how": "optuna", "trials": 3}
    check_searchable(Mlm.model_validate({"kind": "mlm", "from": "a", "retromae": {}, "search": ranged}), "phases.adapted")
    for search, message in (
        ({"over": {"temperature": [0.02, -0.04]}}, r"^phases\.tuned\.search\.over\.temperature: Input should be greater than 0"),
        ({"over": {"heat": [1.0]}}, r"^phases\.tuned\.search\.over\.heat: no such number"),
        ({"over": {"margin": {"low": 0.0, "high": 1.0}}, "how": "optuna", "trials": 2}, r"over\.margin: Input should be less than 1"),
        ({"over": {"steps": {"low": 2.0, "high": 9.0}}, "how": "optuna", "trials": 2}, r"over\.steps: takes whole numbers"),
    ):
        with pytest.raises(InputError, match=message):
            check_searchable(contrastive(search=search), "phases.tuned")
    with pytest.raises(InputError, match=r"^phases\.soup\.search\.over\.weights\.0: no such place"):
        check_searchable(Merge.model_validate({**MERGE, "search": {"over": {"weights.0": [1.0]}}}), "phases.soup")
