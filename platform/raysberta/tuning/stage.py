"""Searches on Ray Tune, and the choice of a merge's weights.

A search makes trials of a phase with other numbers, spread over the cluster, each scored on dev halves.

A grid tries every combination; optuna proposes, by TPE seeded as the run is. Whatever finishes is written down at once beside the
attempts, so that a search which is killed and run again makes only the trials that are missing: of a grid those alone are given to Tune;
optuna's proposals are the same again, and one that was tried before is answered from its file.
"""

import logging
import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler

from raysberta.errors import InputError
from raysberta.evaluation.facts import TasksFacts
from raysberta.evaluation.guard import readable_tasks
from raysberta.evaluation.means import Means
from raysberta.merging.settings import Greedy, Learned, Merge
from raysberta.progress import progress
from raysberta.storage.location import filesystem
from raysberta.training.lessons import teach_examples
from raysberta.training.settings import Contrastive
from raysberta.tuning.facts import Position, SearchFacts, Trial
from raysberta.tuning.finished import best_of, combinations, find, finished, keep, key_of
from raysberta.tuning.greedy import greedy
from raysberta.tuning.learned import learn_weights
from raysberta.tuning.node import SearchTrials
from raysberta.tuning.settings import Range, Search
from raysberta.tuning.trials import Trials, prepare, run_trial, shown
from raysberta.work import Work

log = logging.getLogger(__name__)

RESTARTS = 2
"""Times that a trial is begun again whose process died."""
HALVING = 2
"""Of the trials that reach a rung, ASHA lets the better 1 / HALVING go on."""
# One line a trial comes from here; no tables, no logs beyond what Tune reads back, no handler that swallows the pipeline's own signals.
QUIET = {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1"}


def run(work: Work[SearchTrials]) -> SearchFacts:
    """Choose as the settings say: by trials of a search, greedily, or by gradient.

    Raises:
        InputError: the guard refuses a task, values do not fit the phase, models do not match, or a trial found its input to be wrong.
        RuntimeError: a trial broke; the message names it and its error.
    """
    match work.settings.choose:
        case Greedy() as choose:
            return _greedy(_trials(work, choose.tasks))
        case Learned() as choose:
            return _learned(work, choose)
    phase = work.settings.phase
    trials = _trials(work, phase.search.tasks if phase.search is not None else ())
    if isinstance(phase, Contrastive) and phase.distil is not None:
        vectors, at = teach_examples(work, phase, [work.inputs[name] for name in phase.examples])
        trials = replace(trials, vectors=vectors, known=at)
    return _searched(trials)


def _trials(work: Work[SearchTrials], names: Sequence[str]) -> Trials:
    """With the tasks whose dev halves are read: those named, or all."""
    held_out = Trials(work, ()).held_out.told(TasksFacts).tasks
    general = tuple(name for name, task in held_out.items() if task.general)
    return Trials(work, readable_tasks(held_out, names), general)


def _greedy(trials: Trials) -> SearchFacts:
    """Every model alone, as many at once as there is room, then one merge after the other. Finished trials are written down at once."""
    work = trials.work
    if not isinstance(work.settings.phase, Merge):
        raise ValueError(f"{work.node}: only the weights of a merge are chosen greedily")
    one = ray.remote(_one).options(num_cpus=work.workers.cpus, num_gpus=work.workers.gpus, max_retries=RESTARTS)
    total = 2 * len(work.settings.phase.of) - 1
    done: list[Trial] = []

    def score(wanted: Sequence[Mapping[str, float]]) -> list[Trial]:
        found = []
        for ref in [one.remote(trials, values) for values in wanted]:
            found.append(ray.get(ref))
            done.append(found[-1])
            log.info("%s: %s: mean %.2f", work.node, shown(found[-1].values), 100 * found[-1].score)
            progress(work.node, "trials", len(done), total)
        return found

    best, made = greedy(len(work.settings.phase.of), score)
    work.draft.rows_in = work.draft.rows_out = len(made)
    log.info("%s: %s, dev mean %.2f, of %d trials", work.node, shown(best.values), 100 * best.score, len(made))
    fs, home = filesystem(trials.home)
    fs.delete_dir(home)
    return SearchFacts(best=best.values, trials=made)


def _one(trials: Trials, values: Mapping[str, float]) -> Trial:
    """One trial in a process of its own, or what is left of it from before."""
    torch.set_num_threads(max(1, int(trials.work.workers.cpus)))
    found = find(trials.home, values)
    if found is None:
        found = run_trial(trials, values)
        keep(trials.home, found)
    return found


def _learned(work: Work[SearchTrials], choose: Learned) -> SearchFacts:
    learning = ray.remote(_learn).options(num_cpus=work.workers.cpus, num_gpus=work.workers.gpus, max_retries=RESTARTS)
    positions: list[Position] = ray.get(learning.remote(work, choose))
    work.draft.rows_in, work.draft.rows_out = choose.probe, len(positions)
    last = positions[-1]
    best = {**{f"weights.{place}": weight for place, weight in enumerate(last.weights)}, "norm": last.norm}
    log.info("%s: %s after %d steps", work.node, shown(best), choose.steps)
    return SearchFacts(best=best, trials=[], positions=tuple(positions))


def _learn(work: Work[SearchTrials], choose: Learned) -> list[Position]:
    if not isinstance(work.settings.phase, Merge):
        raise ValueError(f"{work.node}: only the weights of a merge are learned")
    torch.set_num_threads(max(1, int(work.workers.cpus)))
    return learn_weights(work.settings.phase, choose, work.inputs, work.seed)


def _searched(trials: Trials) -> SearchFacts:
    work = trials.work
    wanted = combinations(trials.search) if trials.search.how == "grid" else []
    work.draft.rows_in = prepare(trials, wanted)
    known = {key_of(trial.values) for trial in finished(trials.home)}
    if known:
        log.info("%s: %d trials were finished before", work.node, len(known))
    missing = [values for values in wanted if key_of(values) not in known]
    if missing or not wanted:
        _try(trials, missing, len(wanted) - len(missing))
    done = finished(trials.home)
    best = best_of(done)
    work.draft.rows_out = len(done)
    log.info("%s: %s, dev %s, the best of %d trials", work.node, shown(best.values), Means(best.own, best.general), len(done))
    fs, home = filesystem(trials.home)
    fs.delete_dir(home)
    return SearchFacts(best=best.values, trials=done)


def _try(trials: Trials, missing: Sequence[Mapping[str, float]], before: int) -> None:
    """Run trials on Tune until each is written down.

    Args:
        trials: What is tried.
        missing: The combinations of a grid that no earlier attempt finished; none where optuna proposes.
        before: Trials of the grid that one did.
    """
    os.environ.update(QUIET)
    search, workers = trials.search, trials.work.workers
    total = before + len(missing) if missing else search.trials or 1
    with tempfile.TemporaryDirectory(prefix=f"raysberta-{trials.work.node}-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, trials=trials), {"cpu": workers.cpus, "gpu": workers.gpus}),
            param_space={"numbers": tune.grid_search([_by_place(values) for values in missing]) if missing else _space(search)},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                max_concurrent_trials=search.concurrent,
                reuse_actors=True,
                num_samples=1 if missing else total,
                search_alg=None if missing else _optuna(trials),
                scheduler=_halving(trials),
            ),
            run_config=tune.RunConfig(
                name=f"search-{uuid.uuid4().hex[:8]}",
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                stop=_WrongInput(),
                callbacks=[_Keeper(trials, before, total), JsonLoggerCallback()],
                verbose=0,
            ),
        )
        grid = tuner.fit()
        _check(trials, [grid[place] for place in range(len(grid))])


def _check(trials: Trials, results: Sequence[tune.Result]) -> None:
    """Raise what a trial found to be wrong with its input, or what broke it."""
    for result in results:
        wrong = (result.metrics or {}).get("input_error")
        if wrong is not None:
            raise InputError(wrong)
    for result in results:
        if result.error is not None:
            cause = getattr(result.error, "cause", None) or result.error
            values = _by_name(trials, (result.config or {})["numbers"])
            last = str(cause).strip().splitlines()[-1:]
            raise RuntimeError(f"trial {shown(values)} failed: {type(cause).__name__}: {''.join(last)}") from result.error


def _trial(config: dict[str, Any], trials: Trials) -> dict[str, Any]:
    """One trial, in a process that Tune keeps for the next one. Wrong input is a result: it would be as wrong at a second try."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", force=True)
    logging.getLogger("raysberta").setLevel(logging.INFO)
    torch.set_num_threads(max(1, int(trials.work.workers.cpus)))
    values = _by_name(trials, config["numbers"])
    try:
        found = find(trials.home, values)
        return _told(found or run_trial(trials, values, lambda trial: tune.report(_told(trial))))
    except InputError as error:
        return {"input_error": str(error), "score": 0.0}


def _told(trial: Trial) -> dict[str, Any]:
    return {"trial": trial.model_dump(), "score": trial.score}


class _Keeper(tune.Callback):
    """Writes each finished trial down, with a line for whoever watches. A trial that ASHA ends is finished too."""

    def __init__(self, trials: Trials, before: int, total: int) -> None:
        self.trials, self.done, self.total = trials, before, total

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune."""
        if "trial" not in trial.last_result:
            return
        found = Trial.model_validate(trial.last_result["trial"])
        keep(self.trials.home, found)
        self.done += 1
        node = self.trials.work.node
        scores = ", ".join(f"{task} {100 * score:.2f}" for task, score in found.scores.items())
        means = Means(found.own, found.general)
        log.info("%s: %s: %s (%s) in %.0f s", node, shown(found.values), means, scores, found.seconds)
        progress(node, "trials", self.done, self.total)


class _WrongInput(tune.Stopper):
    """Ends the search where a trial found its input to be wrong."""

    def __init__(self) -> None:
        self.found = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial ends."""
        self.found = self.found or "input_error" in result
        return self.found

    def stop_all(self) -> bool:
        """Whether all do."""
        return self.found


def _halving(trials: Trials) -> ASHAScheduler | None:
    """What ends the worse trainings early; none where each is scored once."""
    rungs = trials.search.rungs
    return None if rungs == 1 or isinstance(trials.work.settings.phase, Merge) else ASHAScheduler(max_t=rungs, reduction_factor=HALVING)


def _optuna(trials: Trials) -> Any:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(seed=trials.work.seed)


def _space(search: Search) -> dict[str, Any]:
    """What optuna draws from."""
    return _by_place({name: _domain(values) for name, values in search.over.items()})


def _domain(values: Sequence[float] | Range) -> Any:
    if not isinstance(values, Range):
        return tune.choice(sorted({float(value) for value in values}))
    if values.whole:
        low, above = int(values.low), int(values.high) + 1
        return tune.lograndint(low, above) if values.log else tune.randint(low, above)
    return tune.loguniform(values.low, values.high) if values.log else tune.uniform(values.low, values.high)


def _by_place(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their number: Tune takes a slash in a name for a level below."""
    return {str(place): value for place, value in enumerate(values.values())}


def _by_name(trials: Trials, numbers: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(numbers[str(place)]) for place, name in enumerate(trials.search.over)}
