"""A model's folder to the folder that is published, and a check that it gives the model's own vectors."""

import shutil
from pathlib import Path

from raysberta.models import head
from raysberta.models.describe import check_loads, describe
from raysberta.models.folder import OF_STATES, dimension, parts_of
from raysberta.models.language_head import join_language_head
from raysberta.publishing.facts import Exported
from raysberta.retrieval.embed import Embedder


def export(source: Path, target: Path) -> Exported:
    """Copy a model so that SentenceTransformer(target) loads it, and compare its vectors with the encoder's own.

    The head for masked words stays behind: no user of vectors needs it. A language-model head goes along, so that
    `AutoModelForCausalLM.from_pretrained(target)` writes with it.

    Args:
        source: The folder of a model that describes itself.
        target: An empty folder.

    Raises:
        RuntimeError: some prompt gives other vectors than the encoder with the same prefix.
    """
    shutil.copytree(source, target, dirs_exist_ok=True)
    join_language_head(target)
    (target / head.FILE).unlink(missing_ok=True)
    own = Embedder(source, precision="fp32", device="cpu")
    difference, parameters = check_loads(target, own.encode)
    return Exported(
        dimension=dimension(target),
        max_tokens=describe(target).max_tokens,
        parameters=parameters,
        difference=difference,
        own_parts=any(part.kind in OF_STATES for part in parts_of(target)),
    )
