"""Whether a model was scored before under another name: a merge of weight 0 has the weights of the model that it leaves as it is.

The graph is made before any weight is chosen, so that two models are the same shows only once both are there: by their content.
"""

from raysberta.errors import InputError
from raysberta.evaluation.facts import ScoresFacts
from raysberta.evaluation.settings import VERSION, ModelScores
from raysberta.merging.facts import MergeFacts
from raysberta.storage.artifacts import Artifact, Store
from raysberta.work import Work

LOOKED_AT = 100
"""Scores of the storage, the newest ones."""


def as_merged(model: Artifact) -> str:
    """Id of the model that a merge left as it is, by the weights that it ended with; of a merge of several, or no merge, its own."""
    manifest = model.manifest
    if manifest.kind != "merge" or manifest.told(MergeFacts).shares[0] != 1:
        return manifest.id
    return str(manifest.settings["phase"]["of"][0])


def scored_before(work: Work[ModelScores], content: str) -> Artifact | None:
    """An artifact with the scores of a model of the same content, on the same tasks in the same way; None where there is none."""
    store, asked = Store(work.draft.storage), _asked(work)
    for manifest in store.earlier("score", LOOKED_AT):
        settings = {key: value for key, value in manifest.settings.items() if key != "model"}
        if manifest.identity.get("version") != VERSION or settings != asked:
            continue
        try:
            told = manifest.told(ScoresFacts)
        except InputError:
            continue
        if told.content == content and (found := store.find("score", manifest.fingerprint)) is not None:
            return found
    return None


def _asked(work: Work[ModelScores]) -> dict[str, object]:
    """The settings but the model, with references as manifests have them."""
    settings = work.settings
    return {
        "tasks": None if settings.tasks is None else work.inputs[settings.tasks].manifest.id,
        "benchmarks": [work.inputs[name].manifest.id for name in settings.benchmarks],
        "how": settings.how.model_dump(mode="json"),
    }
