"""A greedy soup over real models and real dev scores, against the loop of the paper written out."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from searches import HOW, MERGE, MakeTrials, MakeWork, commit_folder

from raysberta.evaluation.score import dev_scores
from raysberta.merging.merge import merge
from raysberta.merging.settings import Greedy
from raysberta.models.describe import describe, write_description
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.storage.artifacts import Artifact, Store
from raysberta.tuning import stage
from raysberta.tuning.facts import Trial
from raysberta.tuning.greedy import greedy
from raysberta.tuning.trials import Trials, run_trial
from raysberta.work import Work


@pytest.fixture
def noisy(good: Path, tmp_path: Path) -> list[Path]:
    """The good model with more and more noise."""
    found = []
    for seed, noise in enumerate((0.04, 0.01, 0.02)):
        model, folder = load_encoder(good), tmp_path / f"noisy{seed}"
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn(parameter.shape, generator=draw))
        save(model, load_tokenizer(good), folder)
        write_description(folder, describe(good))
        found.append(folder)
    return found


def test_it_is_the_papers_loop(
    trials: MakeTrials, noisy: list[Path], spoiled: Path, inputs: Mapping[str, Artifact], store: Store, tmp_path: Path
) -> None:
    folders = [*noisy, spoiled]
    names = [f"n{place}" for place in range(len(folders))]
    given = {**inputs, **{name: commit_folder(store, name, folder) for name, folder in zip(names, folders, strict=True)}}
    work = trials({**MERGE, "of": names, "weights": (1.0,) * 4, "method": "linear"}, {"weights.0": (1.0,)}).work
    of = Trials(Work(work.settings, given, work.draft, node=work.node), ("Home",))
    best, made = greedy(4, lambda wanted: [run_trial(of, values) for values in wanted])

    def mean_of(kept: list[int]) -> float:
        target = tmp_path / f"soup{'_'.join(map(str, kept))}"
        if not target.exists():
            parts = [folders[place] for place in sorted(kept)]
            merge(parts if len(parts) > 1 else parts * 2, target, [1 / max(len(parts), 2)] * max(len(parts), 2), "linear")
        return dev_scores(target, inputs["tasks"], ("Home",), HOW)["Home"]

    order = sorted(range(4), key=lambda place: -mean_of([place]))
    kept: list[int] = []
    for place in order:
        if not kept or mean_of([*kept, place]) >= mean_of(kept):
            kept.append(place)
    assert [place for place in range(4) if best.values[f"weights.{place}"]] == sorted(kept)
    assert best.score == pytest.approx(mean_of(kept), abs=1e-6) and len(made) == 7
    assert best.score == max(trial.score for trial in made[:4]) or len(kept) > 1


def test_the_stage_tells_every_trial(ray_local: None, work: MakeWork, inputs: Mapping[str, Artifact]) -> None:
    asked = work({**MERGE, "weights": (1.0, 1.0), "method": "linear"}, {"weights.0": (1.0,)})
    phase = asked.settings.phase.model_copy(update={"search": None})
    settings = asked.settings.model_copy(update={"phase": phase, "choose": Greedy(kind="greedy")})
    found = stage.run(Work(settings, inputs, asked.draft, node=asked.node))
    assert found.best == {"weights.0": 0.0, "weights.1": 1.0}, "of the good model alone"
    assert [tuple(trial.values.values()) for trial in found.trials] == [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    assert found.trials[1].score > found.trials[2].score and not Path(asked.draft.checkpoints).exists()


def test_equal_scores_are_kept_and_worse_ones_are_not() -> None:
    """Planted: 2 and 0 together are as good as 2 alone, 1 makes it worse."""
    scores = {(0,): 0.5, (1,): 0.4, (2,): 0.9, (0, 2): 0.9, (0, 1, 2): 0.89}
    asked: list[int] = []

    def score(wanted: list[dict[str, float]]) -> list[Trial]:
        asked.append(len(wanted))
        members = [tuple(place for place in range(3) if values[f"weights.{place}"]) for values in wanted]
        return [
            Trial(values=v, score=scores[m], own=scores[m], general=None, scores={}, seconds=0, steps=None)
            for v, m in zip(wanted, members, strict=True)
        ]

    best, made = greedy(3, score)  # type: ignore[arg-type]
    assert best.values == {"weights.0": 1.0, "weights.1": 0.0, "weights.2": 1.0} and best.score == 0.9
    assert asked == [3, 1, 1] and [trial.score for trial in made] == [0.5, 0.4, 0.9, 0.9, 0.89]
