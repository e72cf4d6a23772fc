"""The training phases on Ray: tasks make what they train on; Ray Train trains, with restarts and checkpoints on the run's storage.

Prepared data live beside the attempts, as checkpoints do (ray_train.py). The process that leads holds numbers of rows and texts
(examples.py, survey.py), no texts.
"""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from raysberta.models.describe import describe
from raysberta.retrieval.mapped import Mapped
from raysberta.retrieval.vectors import View
from raysberta.spread import results
from raysberta.storage.location import join
from raysberta.training.arrays import Tokens
from raysberta.training.contrastive import objectives_of, plan_of, train_contrastive
from raysberta.training.distil import train_distil
from raysberta.training.examples import COLUMNS, Examples
from raysberta.training.facts import DistilFacts, TrainingFacts
from raysberta.training.fidelity import fidelity
from raysberta.training.generation import Dialogues, perplexity, reading_of_dialogues
from raysberta.training.lessons import teach, teach_examples
from raysberta.training.mlm import train_mlm
from raysberta.training.prepare import (
    SIDES,
    cleared,
    compare_texts,
    prepare_examples,
    prepare_texts,
    read_rows,
    store_texts,
    text_units,
)
from raysberta.training.ray_train import Fit, fit_on_ray, halves_of, train_on_worker
from raysberta.training.settings import Contrastive, ContrastivePhase, Distil, DistilPhase, Mlm, MlmPhase
from raysberta.training.survey import reading_of, row_groups
from raysberta.training.teacher import Lessons
from raysberta.tuning.choice import with_values
from raysberta.tuning.facts import SearchFacts
from raysberta.work import Work

log = logging.getLogger(__name__)

LEAST_COMPARED = 3
DATA, WRITTEN = "data", "written"
"""The folders, beside the attempts, of what a phase trains on, and of what it learns to write."""

AnyPhase = MlmPhase | ContrastivePhase | DistilPhase


def mlm(work: Work[MlmPhase]) -> TrainingFacts:
    """The training texts of pairs, and a model, to the folder `model`.

    Raises:
        InputError: there is no text, or it does not fit the model.
    """
    best = _best(work)
    phase, draft = with_values(work.settings.phase, best), work.draft
    model, data = work.inputs[phase.from_], join(draft.checkpoints, DATA)
    tokens = prepare_texts(phase, model, text_units(phase, work.inputs), data, partial(results, workers=work.workers))
    draft.rows_in = draft.rows_out = len(tokens)
    count = tokens.count
    log.info("%s: %d distinct texts, %d tokens", work.node, len(tokens), count)
    result, curve = fit_on_ray(_mlm_worker, Fit(phase, model, work, data, halves_of(work)))
    return TrainingFacts(**result, dev_curve=curve, tokens=count, rows={"texts": len(tokens)}, chosen=best)


def contrastive(work: Work[ContrastivePhase]) -> TrainingFacts:
    """Examples, and a model, to the folder `model`.

    Raises:
        InputError: there are no examples, they do not fit the model, or settings name sources that are not there.
    """
    best = _best(work)
    phase, draft, each = with_values(work.settings.phase, best), work.draft, partial(results, workers=work.workers)
    model, data = work.inputs[phase.from_], join(draft.checkpoints, DATA)
    mined = [work.inputs[name] for name in phase.examples]
    vectors, at = teach_examples(work, phase, mined) if phase.distil is not None else (None, None)
    examples = prepare_examples(phase, model, mined, data, each, at)
    plan_of(examples, phase, work.seed)
    objectives_of(examples, phase)
    draft.rows_in = draft.rows_out = len(examples)
    count = examples.tokens.count
    rows = {name: int((examples.source == number).sum()) for number, name in enumerate(examples.sources)}
    log.info("%s: %d rows, %d distinct texts, temperature %g", work.node, len(examples), len(examples.tokens), phase.temperature)
    if phase.generation is not None:
        units = [unit for name in phase.generation.examples for unit in row_groups(work.inputs[name], "examples", COLUMNS)]
        read_rows(units, reading_of_dialogues(phase.generation), model, join(draft.checkpoints, WRITTEN), each)
    result, curve = fit_on_ray(_contrastive_worker, Fit(phase, model, work, data, halves_of(work), vectors))
    return TrainingFacts(**result, dev_curve=curve, tokens=count, rows=rows, chosen=best)


def distil(work: Work[DistilPhase]) -> DistilFacts:
    """The training texts of pairs, examples and documents, a teacher, and a model, to the folder `model`.

    Raises:
        InputError: there is no text, or it does not fit the model.
    """
    phase, draft, each = work.settings.phase, work.draft, partial(results, workers=work.workers)
    model, teacher, data = work.inputs[phase.from_], work.inputs[phase.teacher], join(draft.checkpoints, DATA)
    student = describe(model.folder("model", weights=False), prefixes=phase.prefixes).prefixes
    reads = describe(teacher.folder("model", weights=False)).prefixes
    reading = reading_of({"query": phase.max_tokens, "document": phase.max_tokens}, student, [reads], sys.maxsize)
    units = text_units(phase, work.inputs)
    dev = [unit for name in phase.pairs for unit in row_groups(work.inputs[name], "pairs", SIDES, "dev")]
    cleared(data)
    # what no step reads is given no vector
    stored = store_texts(units, reading, model, data, each, None if phase.steps is None else phase.steps * phase.batch_size)
    compared = compare_texts(dev, reading, each)
    apart = [np.unique(np.asarray([mark for _, _, mark in of_unit], np.uint64)) for of_unit in compared]
    vectors, at, counts = teach(work, teacher, reads, [*units, *dev], reading, [*stored.marks, *apart], phase.max_tokens)
    lessons = Lessons(stored.tokens, at.rows(stored.others[:, -1]))
    lessons.save(data)
    draft.rows_in = draft.rows_out = len(lessons)
    tokens = lessons.tokens.count
    log.info("%s: %d distinct texts, %d tokens, vectors of %d dimensions", work.node, len(lessons), tokens, vectors.dimension)
    told = sorted(text for of_unit in compared for text in of_unit)
    view = View(vectors, at.rows(np.asarray([mark for _, _, mark in told], np.uint64)))
    seen = (tuple(text for _, text, _ in told), view) if len(told) >= LEAST_COMPARED else None
    result, curve = fit_on_ray(_distil_worker, Fit(phase, model, work, data, halves_of(work), vectors, seen))
    facts: dict[str, Any] = {**result, **counts, "dev_curve": curve, "chosen": {}}
    return DistilFacts(**facts, tokens=tokens, rows={"texts": len(lessons)})


def _best(work: Work[MlmPhase | ContrastivePhase]) -> dict[str, float]:
    """What the phase's search found; empty without one."""
    choice = work.settings.given.choice
    return work.inputs[choice].told(SearchFacts).best if choice is not None else {}


def _mlm_worker(config: dict[str, Any]) -> None:
    fit: Fit = config["fit"]
    phase = fit.phase
    assert isinstance(phase, Mlm)

    def run(output: Path | None, **running: Any) -> list[dict[str, float]]:
        return train_mlm(phase, fit.model.folder("model"), Tokens.load(fit.data), output, **running)

    train_on_worker(fit, run)


def _contrastive_worker(config: dict[str, Any]) -> None:
    fit: Fit = config["fit"]
    phase = fit.phase
    assert isinstance(phase, Contrastive)
    teacher = Mapped(fit.teacher) if fit.teacher is not None else None

    model, dialogues = fit.model.folder("model"), None
    if phase.generation is not None:
        written = Examples.load(join(fit.work.draft.checkpoints, WRITTEN))
        dialogues = Dialogues(written, model, phase.generation, fit.work.seed)

    def run(output: Path | None, **running: Any) -> list[dict[str, float]]:
        return train_contrastive(phase, model, Examples.load(fit.data), output, teacher, dialogues, **running)

    def told(output: Path) -> dict[str, Any]:
        found = perplexity((model, output), dialogues, phase) if dialogues is not None else None
        return {"generation": found.model_dump() if found is not None else None}

    train_on_worker(fit, run, told)


def _distil_worker(config: dict[str, Any]) -> None:
    fit: Fit = config["fit"]
    phase, model = fit.phase, fit.model.folder("model")
    assert isinstance(phase, Distil) and fit.teacher is not None
    teacher = Mapped(fit.teacher)

    def run(output: Path | None, **running: Any) -> list[dict[str, float]]:
        return train_distil(phase, model, Lessons.load(fit.data), teacher, output, **running)

    def told(output: Path) -> dict[str, Any]:
        if fit.compared is None:
            return {"fidelity": None}
        texts, vectors = fit.compared
        return {"fidelity": fidelity(model, output, texts, vectors[:], phase.max_tokens).model_dump()}

    train_on_worker(fit, run, told)
