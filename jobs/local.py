"""A local Ray for this checkout: run a job on it and stop it again, or keep one up to look at its dashboard."""

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "platform"))

from raysberta import local  # noqa: E402
from raysberta.command import check_inputs  # noqa: E402
from raysberta.environment import check  # noqa: E402
from raysberta.errors import InputError  # noqa: E402
from raysberta.recipe import load  # noqa: E402


def main() -> int:
    """Parse, act, report; 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "up", "down"])
    parser.add_argument("--job", default="full_pipeline", help="the job of jobs/ to run (default: full_pipeline)")
    parser.add_argument("--recipe", default="recipes/laptop.yaml", help="the recipe, a YAML file (default: recipes/laptop.yaml)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change one setting of the recipe; may be repeated")
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
        return run(runs, arguments.job, arguments.recipe, arguments.set)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(runs: Path, job: str, recipe: str, overrides: list[str]) -> int:
    """Check first, so that bad input starts nothing; then submit to the Ray that is up, or to one for this run only."""
    check()
    if not (ROOT / "jobs" / f"{job}.py").is_file():
        raise InputError(f"--job {job}: no such job; there are {', '.join(sorted(file.stem for file in (ROOT / 'jobs').glob('*.py')))}")
    wanted = load(recipe, tuple(overrides))
    storage = wanted.storage if "://" in wanted.storage else os.path.abspath(ROOT / wanted.storage)
    check_inputs(wanted.model_copy(update={"storage": storage}))
    settings = [part for override in [*overrides, f"storage={storage}"] for part in ("--set", override)]
    cluster = local.running(runs)
    ours = cluster is None
    cluster = cluster or local.start(runs, kept=False)
    print(f"dashboard: {cluster.dashboard} (token: {runs / 'ray' / 'token'})", flush=True)
    try:
        code, last = local.submit(ROOT, runs, cluster, job, ["--recipe", os.path.relpath(recipe, ROOT), *settings])
    finally:
        if ours:
            local.stop(runs)
            shutil.rmtree(runs / "ray", ignore_errors=True)
    if last:
        print(last, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
