"""A model's folder to the folder that is published, and a check that it gives the model's own vectors."""

import json
import shutil
from pathlib import Path
from typing import cast

from safetensors.torch import load_file, save_file
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedModel

from raysberta.models import head
from raysberta.models.describe import check_loads, describe
from raysberta.models.folder import OF_STATES, SHARDS, dimension, parts_of
from raysberta.models.language_head import WEIGHT
from raysberta.publishing.facts import Exported
from raysberta.publishing.serving import not_served
from raysberta.retrieval.embed import Embedder

FILES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


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
        not_served=not_served(target),
    )


def join_language_head(folder: Path) -> None:
    """Make a folder's decoder and head one checkpoint of a language model, in two files; nothing where no head lies there.

    Names and architecture are those of the language model, which transformers reads as decoder or as both. vLLM, which has no place for a
    head in a decoder, finds there one that it leaves out.
    """
    weights, own = folder / "model.safetensors", folder / head.FILE
    if not own.is_file() or WEIGHT not in head.tensors_in(own):
        return
    config = AutoConfig.from_pretrained(folder)
    writer = cast(type[PreTrainedModel], MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])
    save_file(
        {f"{writer.base_model_prefix}.{name}": part for name, part in load_file(weights).items()}, folder / FILES[0], {"format": "pt"}
    )
    weights.unlink()
    own.rename(folder / FILES[1])
    config.architectures = [writer.__name__]
    config.save_pretrained(folder)
    names = {name: place.name for shard in FILES for name, place in head.tensors_in(folder / shard).items()}
    size = sum((folder / shard).stat().st_size for shard in FILES)
    index = {"metadata": {"total_size": size}, "weight_map": names}
    (folder / SHARDS).write_text(json.dumps(index, indent=2), encoding="utf-8")
