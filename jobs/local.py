"""A local Ray for this checkout: run a job on it and stop it again, or keep one up to look at its dashboard."""

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "platform"))

from raysberta.errors import InputError  # noqa: E402
from raysberta.parsing import load_all  # noqa: E402
from raysberta.pipeline import local  # noqa: E402
from raysberta.pipeline.command import check_inputs  # noqa: E402
from raysberta.pipeline.environment import check  # noqa: E402
from raysberta.pipeline.optional import with_what_is_there  # noqa: E402
from raysberta.pipeline.plan import plan  # noqa: E402
from raysberta.pipeline.view import view_here  # noqa: E402
from raysberta.storage.location import is_uri  # noqa: E402


def main() -> int:
    """Parse, act, report; 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "up", "down"])
    parser.add_argument("--job", default="full_pipeline", help="the job of jobs/ to run (default: full_pipeline)")
    parser.add_argument(
        "--recipe", action="append", default=[], help="a recipe, a YAML file (default: recipes/laptop.yaml); several make one plan"
    )
    for name in ("set", "vary", "until"):
        parser.add_argument(f"--{name}", action="append", default=[], help="as the job has it")
    arguments = parser.parse_args()
    runs = ROOT / "runs"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if arguments.action == "down":
            print("stopped" if local.stop(runs) else "no Ray of this checkout is running")
            shutil.rmtree(runs / "ray", ignore_errors=True)
            return 0
        if arguments.action == "up":
            cluster = local.running(runs) or local.start(runs, kept=True)
            print(f"dashboard: {cluster.dashboard} (token: {runs / 'ray' / 'token'}); `make down` stops it")
            return 0
        return run(runs, arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(runs: Path, arguments: argparse.Namespace) -> int:
    """Check first, so that bad input starts nothing; then submit to the Ray that is up, or to one for this run only."""
    check()
    if not (ROOT / "jobs" / f"{arguments.job}.py").is_file():
        jobs = ", ".join(sorted(file.stem for file in (ROOT / "jobs").glob("*.py")))
        raise InputError(f"--job {arguments.job}: no such job; there are {jobs}")
    paths = arguments.recipe or ["recipes/laptop.yaml"]
    recipes = load_all(paths, arguments.set, arguments.vary)
    storage = _here(recipes[0].storage)
    located = [
        with_what_is_there(recipe.model_copy(update={"storage": storage, "data": _here(recipe.data)}), fetch=True) for recipe in recipes
    ]
    if len({recipe.data for recipe in located}) > 1:
        raise InputError("data: recipes of one plan share one; right would be --set data=<folder or URI>")
    plan(located, check_inputs(located), arguments.until)
    words = [part for path in paths for part in ("--recipe", os.path.relpath(path, ROOT))]
    words += [part for override in [*arguments.set, f"storage={storage}", f"data={located[0].data}"] for part in ("--set", override)]
    words += [part for name in ("vary", "until") for value in getattr(arguments, name) for part in (f"--{name}", value)]
    cluster = local.running(runs)
    ours = cluster is None
    cluster = cluster or local.start(runs, kept=False)
    print(f"dashboard: {cluster.dashboard} (token: {runs / 'ray' / 'token'})", flush=True)
    try:
        code, last = local.submit(ROOT, runs, cluster, arguments.job, words, view_here())
    finally:
        if ours:
            local.stop(runs)
            shutil.rmtree(runs / "ray", ignore_errors=True)
    if last:
        print(last, flush=True)
    return code


def _here(place: str) -> str:
    """A place that a submitted job finds too: a folder absolute."""
    return place if is_uri(place) else os.path.abspath(ROOT / place)


if __name__ == "__main__":
    sys.exit(main())
