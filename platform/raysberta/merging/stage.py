"""The stage that merges models."""

import logging
from dataclasses import asdict

from raysberta.errors import InputError
from raysberta.merging.facts import MergeFacts
from raysberta.merging.merge import merge_of
from raysberta.merging.settings import MergePhase
from raysberta.tuning.choice import with_values
from raysberta.tuning.facts import SearchFacts
from raysberta.work import Work

log = logging.getLogger(__name__)


def run(work: Work[MergePhase]) -> MergeFacts:
    """Write the folder `model`: the merge, at the weights that a search found where there was one.

    Raises:
        InputError: naming the phase, and what of the models does not match.
    """
    choice = work.settings.choice
    chosen = work.inputs[choice].told(SearchFacts).best if choice is not None else {}
    try:
        phase = with_values(work.settings.phase, chosen)
        shares = phase.shares()
        with work.draft.folder("model") as folder:
            done = merge_of(phase, work.inputs, folder)
    except InputError as error:
        raise InputError(f"phases.{work.node}: {error}") from error
    work.draft.rows_in = work.draft.rows_out = done.tensors
    weights = ", ".join(f"{name} {share:g}" for name, share in zip(phase.of, shares, strict=True))
    log.info("%s: %d of %d tensors merged, %d of them linearly: %s", work.node, done.merged, done.tensors, done.linear, weights)
    return MergeFacts(shares=list(shares), **asdict(done), chosen=dict(chosen))
