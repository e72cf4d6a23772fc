"""The stage that fetches a model from outside."""

import logging
import os
import time

from raysberta.models.facts import ModelFacts
from raysberta.models.fetch import digests
from raysberta.models.fetch import fetch as fetched
from raysberta.models.load import parameters
from raysberta.models.outside import origin
from raysberta.models.settings import Model
from raysberta.work import Work

log = logging.getLogger(__name__)


def fetch(work: Work[Model]) -> ModelFacts:
    """Write the folder `model`: of an encoder with its description and its head for masked words, of others as they come.

    Raises:
        InputError: nothing usable is there.
    """
    network = os.environ.get("HF_HUB_OFFLINE") == "0"  # set for workers by the job that may fetch
    begun = time.monotonic()
    with work.draft.folder("model") as folder:
        fetched(work.settings, folder, work.node, network)
        files = digests(folder)
        count = parameters(folder) if work.settings.kind == "encoder" else None
        size = sum((folder / name).stat().st_size for name in files)
    work.draft.rows_out = 1
    log.info("%s: %s, %.0f MB, %.0f s", work.node, origin(work.settings), size / 1e6, time.monotonic() - begun)
    return ModelFacts(origin=origin(work.settings), files=files, parameters=count)
