"""A plain encoder folder to a sentence-transformers folder: pooling, normalisation, prompts, and a check that the vectors agree.

The files are written in the layout that every version of sentence-transformers reads. Prompts are there under the names a person
uses (`search_query`) and under those that mteb looks up (`Retrieval-query`): mteb drops names it does not know in silence.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from raysberta.encoder.pool import Pooling
from raysberta.prefixes import Prefixes
from raysberta.retrieval.embed import Embedder

log = logging.getLogger(__name__)

PROBES = (
    "замок",
    "Замок — устройство, которое запирает дверь.",
    "Return the cumulative sum of the elements along a given axis.",
    "  Пробелы по краям, цифры 12 345,67 и знаки: «ёлка» — №5?  ",
)
LONG = "Длинный текст. " * 150
"""More than a text may have, to see that both cut alike; tried with one prompt, for it takes longest."""
TOLERANCE = 1e-5
WITHOUT_POOLER = ("bert", "roberta", "xlm-roberta")
"""Model types that would otherwise be given a random pooling layer on loading."""
POSITIONS_BEFORE_TEXT = {"roberta": 2, "xlm-roberta": 2}
"""Positions that these types number past the padding, so that fewer are left for the text."""


def export(source: Path, target: Path, pooling: Pooling, prefixes: Prefixes, max_tokens: int) -> dict[str, Any]:
    """Write `source` as a model that SentenceTransformer(target) loads, and compare its vectors with the encoder's own.

    Args:
        source: A Hugging Face encoder folder.
        target: An empty folder.
        pooling: "mean", "cls" or "last".
        prefixes: What the model was trained with.
        max_tokens: Longer texts are cut; less where the model has fewer positions.

    Returns:
        dimension, max_tokens, parameters and the greatest difference found.

    Raises:
        RuntimeError: some prompt gives other vectors than the encoder with the same prefix.
    """
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file():
            shutil.copyfile(file, target / file.name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    positions = config.get("max_position_embeddings", max_tokens) - POSITIONS_BEFORE_TEXT.get(config["model_type"], 0)
    longest = min(max_tokens, positions)
    _write_layout(target, config, pooling, prefixes, longest)
    _readable_tokenizer(target / "tokenizer_config.json", longest)
    difference, parameters = compare(source, target, pooling, prefixes, longest)
    return {"dimension": config["hidden_size"], "max_tokens": longest, "parameters": parameters, "difference": difference}


def prompts(prefixes: Prefixes) -> dict[str, str]:
    """All prompts of the published model by name."""
    return {**prefixes.named_prompts(), **prefixes.mteb_prompts()}


def _write_layout(target: Path, config: dict[str, Any], pooling: Pooling, prefixes: Prefixes, longest: int) -> None:
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    arguments = {"model_args": {"add_pooling_layer": False}} if config["model_type"] in WITHOUT_POOLER else {}
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
            for number, (path, name) in enumerate(modules)
        ],
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False, **arguments},
        "config_sentence_transformers.json": {
            "prompts": prompts(prefixes),
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": config["hidden_size"],
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_lasttoken": pooling == "last",
            "include_prompt": True,
        },
        "2_Normalize/config.json": {},
    }
    for name, value in files.items():
        file = target / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def _readable_tokenizer(file: Path, longest: int) -> None:
    """Name the tokenizer's class as older transformers know it too, and say how long a text may be."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["model_max_length"] = longest
    settings.pop("backend", None)
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")


def compare(source: Path, target: Path, pooling: Pooling, prefixes: Prefixes, longest: int) -> tuple[float, int]:
    """Greatest difference between the published vectors and the encoder's, over all prompts, and the number of parameters.

    Raises:
        RuntimeError: it is above 1e-5, or the loaded model lacks a prompt.
    """
    from sentence_transformers import SentenceTransformer

    published = SentenceTransformer(str(target), device="cpu", local_files_only=True)
    own = Embedder(source, pooling, longest, "fp32", device="cpu")
    named = prompts(prefixes)
    worst = 0.0
    for number, prefix in enumerate(dict.fromkeys(named.values())):
        name = next(name for name, value in named.items() if value == prefix)
        texts = [*PROBES, *([] if number else [LONG])]
        theirs = published.encode(texts, prompt_name=name, batch_size=1, show_progress_bar=False)
        difference = float(np.abs(theirs - own.encode([prefix + text for text in texts])).max())
        if not difference <= TOLERANCE:
            allowed = f"allowed is {TOLERANCE}"
            raise RuntimeError(f"published model: prompt {name} differs by {difference:.2g} from the encoder with {prefix!r}, {allowed}")
        worst = max(worst, difference)
    lost = {name: prefix for name, prefix in named.items() if published.prompts.get(name) != prefix}
    if lost:
        raise RuntimeError(f"published model: prompts that did not come back from the folder: {', '.join(lost)}")
    parameters = sum(weights.numel() for weights in published.parameters())
    log.info("published model: %d prompts agree with the encoder within %.1e", len(named), worst)
    return worst, parameters
