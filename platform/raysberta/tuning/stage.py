"""The stages `temperature` and `merge`: Ray Tune over a short list of values, each tried on its own, all of them.

Every listed value is tried, so the table of trials is complete and the choice does not depend on an order; with a handful of
values of one setting nothing that models the score can do better. Ray Tune spreads the trials; the results are kept in the
stage's own metrics.
"""

import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from ray import tune
from ray.tune.logger import JsonLoggerCallback

from raysberta.artifacts import Artifact, Draft
from raysberta.errors import InputError
from raysberta.evaluation.guard import readable_tasks
from raysberta.merging.merge import merge as merge_folders
from raysberta.recipe import Recipe
from raysberta.training.examples import Examples, prepared
from raysberta.tuning.trials import Trial, best_trial, merge_scope, merge_trial, temperature_trial

log = logging.getLogger(__name__)

VERSION: int = 1
EXAMPLES = ("mining", "mining_synthetic")
# One line a trial comes from here; no tables, no logs beyond what Tune reads back, no handler that swallows the pipeline's own signals.
QUIET = {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1"}


def temperature(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """Find the contrastive temperature by short trainings on the real examples; without a search it is the recipe's."""
    values, encoder = recipe.tuning.temperature.values, inputs["mlm_merged"]
    if not values:
        draft.metrics.update(best=recipe.contrastive.temperature, trials=[])
        log.info("no temperatures to try: %g", recipe.contrastive.temperature)
        return
    readable_tasks(recipe)
    examples = prepared(recipe, encoder.folder("model"), [inputs[name] for name in EXAMPLES])
    draft.rows_in = len(examples)
    run = partial(_temperature_trial, recipe, encoder, examples, inputs["benchmark"])
    trials = _search(recipe, draft, "temperature", values, recipe.tuning.temperature.concurrent, run)
    draft.rows_out = len(trials)
    draft.metrics.update(best=best_trial(trials, "temperature")["temperature"], trials=trials, steps=recipe.tuning.temperature.steps)
    log.info("temperature %g", draft.metrics["best"])


def merge(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """Merge the fine-tuned model with the one before, at the weight whose merge scores best on the dev halves."""
    settings = recipe.tuning.merge
    newer, older = inputs["contrastive"], inputs["mlm_merged"]
    trials: list[Trial] = []
    if settings.values:
        run = partial(_merge_trial, recipe, newer, older, inputs["benchmark"])
        trials = _search(recipe, draft, "weight", settings.values, settings.concurrent, run)
    weight = best_trial(trials, "weight")["weight"] if trials else settings.default
    with draft.folder("model") as folder:
        done = merge_folders(newer.folder("model"), older.folder("model"), folder, weight, merge_scope(recipe))
    draft.rows_in = draft.rows_out = done.tensors
    draft.metrics.update(best=weight, trials=trials, scope=merge_scope(recipe), **done.metrics())
    log.info("weight %g of the older: %d of %d tensors merged, %d of them linearly", weight, done.merged, done.tensors, done.linear)


def _temperature_trial(recipe: Recipe, encoder: Artifact, examples: Examples, benchmark: Artifact, value: float) -> Trial:
    return temperature_trial(recipe, encoder.folder("model"), examples, benchmark, value)


def _merge_trial(recipe: Recipe, newer: Artifact, older: Artifact, benchmark: Artifact, value: float) -> Trial:
    return merge_trial(recipe, newer.folder("model"), older.folder("model"), benchmark, value)


class _Progress(tune.Callback):
    """A line for each trial that is done."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune."""
        done, value = trial.last_result, trial.config["value"]
        scores = ", ".join(f"{task} {100 * score:.2f}" for task, score in done["scores"].items())
        log.info("%s %g: mean %.2f (%s) in %.0f s", self.name, value, 100 * done["score"], scores, done["seconds"])


def _search(
    recipe: Recipe, draft: Draft, name: str, values: Sequence[float], concurrent: int, run: Callable[[float], Trial]
) -> list[Trial]:
    """Try every value; the trials by rising value.

    Raises:
        InputError: the guard refuses a task, or a trial found its input to be wrong.
        RuntimeError: a trial broke; the message names it and its error.
    """
    readable_tasks(recipe)
    os.environ.update(QUIET)
    wanted = sorted(set(values))
    needs = recipe.resources.tuning
    with tempfile.TemporaryDirectory(prefix="raysberta-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, run=run, cpus=needs.cpus), {"cpu": needs.cpus, "gpu": needs.gpus}),
            param_space={"value": tune.grid_search(wanted)},
            tune_config=tune.TuneConfig(metric="score", mode="max", max_concurrent_trials=concurrent, reuse_actors=True),
            run_config=tune.RunConfig(
                name=f"{name}-{draft.uri.rsplit('/', 1)[1]}-{uuid.uuid4().hex[:8]}",
                storage_path=scratch,
                failure_config=tune.FailureConfig(fail_fast=True),
                callbacks=[_Progress(name), JsonLoggerCallback()],
                verbose=0,
            ),
        )
        grid = tuner.fit()
        results = [grid[place] for place in range(len(grid))]
    for result in results:
        if result.error is not None:
            cause = getattr(result.error, "cause", None) or result.error
            if isinstance(cause, InputError):
                raise cause
            value = (result.config or {})["value"]
            raise RuntimeError(f"trial {name}={value:g} failed: {type(cause).__name__}: {cause}") from result.error
    trials = sorted((result.metrics["trial"] for result in results if result.metrics), key=lambda trial: trial[name])
    if [trial[name] for trial in trials] != wanted:
        raise RuntimeError(f"search of {name}: {len(trials)} of {len(wanted)} trials came back")
    return trials


def _trial(config: dict[str, float], run: Callable[[float], Trial], cpus: float) -> dict[str, Any]:
    """One trial, in a process that Tune keeps for the next one."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", force=True)
    logging.getLogger("raysberta").setLevel(logging.INFO)
    torch.set_num_threads(max(1, int(cpus)))
    trial = run(config["value"])
    return {"trial": trial, **{name: trial[name] for name in ("score", "scores", "seconds")}}
