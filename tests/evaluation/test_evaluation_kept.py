"""A score is read back as it was kept."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from raysberta.evaluation.kept import Score, keep, kept


def test_a_score_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    place = f"file://{tmp_path}/scores/one.arrow"
    assert kept(place) is None
    draws = np.random.default_rng(1).random(100)
    score = Score(
        0.1 + 0.2, {"scores": {"test": [{"main_score": 1 / 3, "язык": None}]}}, 1.5, "Retrieval", pa.table({"value": draws}), draws
    )
    keep(place, score)
    found = kept(place)
    assert found is not None and found.items is not None and found.draws is not None
    assert (found.score, found.result, found.seconds, found.type) == (score.score, score.result, 1.5, "Retrieval")
    assert found.items.equals(score.items, check_metadata=True) and np.array_equal(found.draws, draws)
    keep(place, Score(0.5, {}, 0.0, "STS", None, None))
    without = kept(place)
    assert without == Score(0.5, {}, 0.0, "STS", None, None), "a task whose items mteb does not tell"
