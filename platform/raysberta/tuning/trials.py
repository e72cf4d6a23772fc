"""What one trial of a search does; no Ray here.

A trial is the phase itself with other numbers: a short training, or a merge, aside; its model is scored on the dev halves of the
recipe's tasks and nothing else, which the guard of the evaluation room sees to.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysberta.evaluation.means import two_means
from raysberta.evaluation.score import dev_scores
from raysberta.merging.merge import merge_of
from raysberta.merging.settings import Greedy, Merge
from raysberta.retrieval.mapped import Mapped
from raysberta.retrieval.vectors import Vectors
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import filesystem, join
from raysberta.training.arrays import Tokens, is_whole
from raysberta.training.batches import TextPlan
from raysberta.training.contrastive import plan_of, train_contrastive
from raysberta.training.engine import NotFinite
from raysberta.training.examples import Examples
from raysberta.training.loop import StepMetrics
from raysberta.training.mlm import train_mlm
from raysberta.training.prepare import prepare_examples, prepare_texts, text_units
from raysberta.training.settings import Contrastive, Mlm
from raysberta.training.survey import Known
from raysberta.tuning.choice import with_values
from raysberta.tuning.facts import Trial
from raysberta.tuning.finished import key_of
from raysberta.tuning.node import SearchTrials
from raysberta.tuning.settings import Search
from raysberta.work import Work

log = logging.getLogger(__name__)

Phase = Mlm | Contrastive | Merge
OnRung = Callable[[Trial], None]
"""Called with what a trial in training scores so far."""
Data = Examples | Tokens
LIMITS = {"contrastive": ("query_tokens", "document_tokens", "negatives"), "mlm": ("max_tokens",)}
"""The numbers of a phase that decide what its texts become: trials that agree in them share the prepared data."""


@dataclass(frozen=True)
class Trials:
    """What all trials of a search share. Picklable."""

    work: Work[SearchTrials]
    tasks: tuple[str, ...]
    """Those whose dev halves are read."""
    general: tuple[str, ...] = ()
    """Names of the general tasks."""
    vectors: Vectors | None = None
    """Those of the phase's teacher, where it has one."""
    known: Known | None = None
    """Where the vector of each text is."""

    @property
    def search(self) -> Search:
        """What is tried, and how.

        Raises:
            ValueError: the phase has no search.
        """
        search = self.work.settings.phase.search
        if search is None:
            raise ValueError(f"{self.work.node}: the phase has no search")
        return search

    @property
    def general_weight(self) -> float:
        """How much the general tasks count in what is maximised."""
        choose = self.work.settings.choose
        return choose.general_weight if isinstance(choose, Greedy) else self.search.general_weight

    @property
    def held_out(self) -> Artifact:
        """The held-out tasks.

        Raises:
            ValueError: the node has none.
        """
        tasks = self.work.settings.tasks
        if tasks is None:
            raise ValueError(f"{self.work.node}: no held-out tasks")
        return self.work.inputs[tasks]

    @property
    def home(self) -> str:
        """Folder or URI of what the search goes on from."""
        return self.work.draft.checkpoints

    def phase(self, values: Mapping[str, float]) -> Phase:
        """The phase with other numbers.

        Raises:
            InputError: the phase has no such number, or does not allow the value.
        """
        return with_values(self.work.settings.phase, values)


def run_trial(trials: Trials, values: Mapping[str, float], on_rung: OnRung | None = None) -> Trial:
    """Make the model of some values, aside, and score it. All trials of a search see the same data in the same order.

    Args:
        trials: What is tried.
        values: By name of the phase's numbers.
        on_rung: Called `search.rungs` - 1 times during a training, evenly spaced; the last score is the returned one.

    Raises:
        InputError: the values do not fit the phase, the phase does not fit its inputs, or a task may not be read.
    """
    begun = time.monotonic()
    phase, settings = trials.phase(values), trials.work.settings

    def told(scores: dict[str, float], steps: int | None) -> Trial:
        means = two_means(scores, trials.general)
        given: dict[str, Any] = {"own": means.own, "general": means.general, "scores": scores, "steps": steps}
        seconds = round(time.monotonic() - begun, 2)
        return Trial(values=dict(values), score=means.weighted(trials.general_weight), seconds=seconds, **given)

    def scored(model: Path, steps: int | None) -> Trial:
        return told(dev_scores(model, trials.held_out, trials.tasks, settings.how), steps)

    def rung(folder: Path, step: int) -> None:
        found = scored(folder / "model", step)
        shutil.rmtree(folder)  # before the report: a trial that is ended there leaves nothing behind
        if on_rung is not None:
            on_rung(found)

    with tempfile.TemporaryDirectory(prefix=f"raysberta-{trials.work.node}-trial-") as aside:
        model = Path(aside) / "model"
        if isinstance(phase, Merge):
            merge_of(phase, trials.work.inputs, model)
            return scored(model, None)
        done: list[StepMetrics] = []
        try:
            _train(trials, phase, model, done, rung if on_rung is not None else None)
        except NotFinite as error:
            log.warning("%s: %s: %s", trials.work.node, shown(values), error)
            return told(dict.fromkeys(trials.tasks, 0.0), len(done))
        return scored(model, len(done))


def prepare(trials: Trials, every: Iterable[Mapping[str, float]]) -> int:
    """See that all values fit, tokenise once what the trials train on, and write it where they find it.

    Args:
        trials: What will be tried.
        every: The values that will be; those that need other data have it prepared as well.

    Returns:
        Rows or texts that the phase itself trains on; 0 of a merge.

    Raises:
        InputError: the phase has no training text, or the values do not fit it.
    """
    base, others = trials.work.settings.phase, [trials.phase(values) for values in every]
    fs, home = filesystem(trials.home)
    fs.create_dir(home, recursive=True)
    if isinstance(base, Merge):
        return 0
    for phase in others:
        if not isinstance(phase, Merge):
            _made(trials, phase, _place(trials, phase))
    return len(_made(trials, base, _place(trials, base)))


def shown(values: Mapping[str, float]) -> str:
    """Values as a person reads them."""
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _train(
    trials: Trials, phase: Mlm | Contrastive, model: Path, done: list[StepMetrics], rung: Callable[[Path, int], None] | None
) -> None:
    """The short training of a trial, in this process; the metrics of its steps go to `done`."""
    search, seed, node = trials.search, trials.work.seed, trials.work.node
    encoder, data = trials.work.inputs[phase.from_].folder("model"), _data(trials, phase, model.with_name("data"))
    running: dict[str, Any] = {
        "seed": seed,
        "steps": search.steps,
        "name": node,
        "on_step": lambda metrics, _: done.append(metrics),
    }
    if rung is not None and search.rungs > 1:
        total = search.steps or phase.steps or _plan_steps(phase, data, seed)
        phase = phase.model_copy(update={"checkpoint_every": -(-total // search.rungs)})
        running.update(checkpoints=model.with_name("checkpoints"), on_checkpoint=rung)
    if isinstance(phase, Contrastive) and isinstance(data, Examples):
        teacher = Mapped(trials.vectors) if trials.vectors is not None else None
        train_contrastive(phase, encoder, data, model, teacher, **running)
    elif isinstance(phase, Mlm) and isinstance(data, Tokens):
        train_mlm(phase, encoder, data, model, **running)


def _plan_steps(phase: Mlm | Contrastive, data: Data, seed: int) -> int:
    """Steps of the phase's epochs."""
    if isinstance(phase, Contrastive) and isinstance(data, Examples):
        return plan_of(data, phase, seed).steps(phase.epochs)
    return TextPlan(len(data), phase.batch_size, seed).steps(phase.epochs)


def _data(trials: Trials, phase: Mlm | Contrastive, aside: Path) -> Data:
    """What a phase trains on: mapped where it was prepared, made aside where other limits were proposed than those."""
    place = _place(trials, phase)
    return _made(trials, phase, place if is_whole(place) else str(aside))


def _made(trials: Trials, phase: Mlm | Contrastive, place: str) -> Data:
    model = trials.work.inputs[phase.from_]
    if isinstance(phase, Contrastive):
        return prepare_examples(phase, model, [trials.work.inputs[name] for name in phase.examples], place, teacher=trials.known)
    return prepare_texts(phase, model, text_units(phase, trials.work.inputs), place)


def _place(trials: Trials, phase: Mlm | Contrastive) -> str:
    """The folder of a phase's data, named by the numbers that decide it."""
    return join(trials.home, f"data-{key_of({name: getattr(phase, name) for name in LIMITS[phase.kind]})}")
