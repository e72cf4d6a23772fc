"""What a prune phase may say, and what it is told where it may not."""

import pytest
from pydantic import ValidationError

from raysberta.pruning.settings import Prune


def a_phase(**settings: object) -> Prune:
    return Prune.model_validate({"kind": "prune", "from": "base", **settings})


def test_either_how_many_or_which() -> None:
    assert a_phase(keep=6).keep == 6 and a_phase(keep=6).pairs == ("natural",)
    assert a_phase(layers=[0, 1, 9], pairs=[]).layers == (0, 1, 9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "keep and layers: right would be one of them, keep: 6 or layers: [0, 1, 2, 9, 10, 11]"),
        ({"keep": 2, "layers": [0, 1]}, "keep and layers: right would be one of them"),
        ({"layers": [2, 0, 2]}, "layers: [2, 0, 2] do not rise; right would be [0, 2]"),
        ({"keep": 2, "pairs": []}, "pairs: none to measure on; right would be pairs: [natural], or layers instead of keep"),
        ({"keep": 2, "texts": 1}, "greater than or equal to 2"),
        ({"keep": 0}, "greater than 0"),
        ({"layers": [-1, 2]}, "greater than or equal to 0"),
    ],
)
def test_what_does_not_fit_is_told(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        a_phase(**settings)
    assert said in str(refused.value)
