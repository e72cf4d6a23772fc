"""What a model folder says of its own use: pooling, prompts and length, in the files of sentence-transformers.

Every model of this project is a Hugging Face folder with sentence-transformers' layout beside the weights, in the form that every
version of that library reads, so `SentenceTransformer(folder)` loads it and nobody needs to be told how to use it. Prompts are there
under the names a person uses (`search_query`) and under those that mteb looks up (`Retrieval-query`): mteb drops names it does not know
in silence. No torch here: a dry run reads descriptions.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from raysberta.errors import InputError
from raysberta.models.folder import MODULES, OF_STATES, dimension, foreign, module_paths, modules, read_json, written_parts
from raysberta.models.settings import Pooling
from raysberta.prefixes import Prefixes

log = logging.getLogger(__name__)

PROMPTS = "config_sentence_transformers.json"
LENGTH = "sentence_bert_config.json"
TOKENIZER = "tokenizer_config.json"
WITHOUT_POOLER = ("bert", "roberta", "xlm-roberta")
"""Model types that would otherwise be given a random pooling layer on loading."""
OWN, THEIRS = "raysberta.models.modules", "sentence_transformers.models"
"""Where sentence-transformers finds the classes of modules."""
POSITIONS_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Model types that number positions from past the padding's id, so that fewer are left for the text."""
MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
"""The switches of 1_Pooling/config.json, and the name of each mode."""
NAMES: Mapping[str, tuple[str, ...]] = {
    "retrieval_query": ("search_query", "Retrieval-query", "query", "retrieval.query", "retrieval", "Retrieval"),
    "retrieval_document": ("search_document", "Retrieval-document", "document", "passage", "retrieval.passage", "corpus"),
    "paraphrase": ("STS", "PairClassification", "text-matching", "paraphrase", "classification", "Classification"),
    "topic": ("clustering", "Clustering", "separation"),
}
"""The names that prompts go by in folders of others, the most telling first."""
CLASSIFICATION = ("Classification", "classification")
"""Those of a prompt that classes have to themselves."""
ENDLESS = 10**9
"""transformers writes a length beyond it where a tokenizer knows none."""
PROBES = (
    "замок",
    "Замок — устройство, которое запирает дверь.",
    "Return the cumulative sum of the elements along a given axis.",
    "  Пробелы по краям, цифры 12 345,67 и знаки: «ёлка» — №5?  ",
)
LONG = "Длинный текст. " * 150
"""More than most models read, to see that both cut alike; tried with one prompt, for it takes longest."""
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Description:
    """How an encoder is used rightly."""

    pooling: Pooling
    prefixes: Prefixes
    max_tokens: int
    """Longer texts are cut; special tokens count."""
    include_prompt: bool = True
    """Whether the pooling counts the tokens of what goes before a text: sentence-transformers' name for it."""


def describe(
    folder: Path,
    pooling: Pooling | None = None,
    prefixes: Prefixes | None = None,
    max_tokens: int | None = None,
    model: str = "<name>",
) -> Description:
    """What a folder says of its use.

    Args:
        folder: A Hugging Face encoder folder; of the weights nothing is read.
        pooling: Taken instead of what the folder says where not None; so are `prefixes` and `max_tokens`.
        prefixes: What the model was trained to read before a text.
        max_tokens: Cut to what the model's positions allow.
        model: Its name under `models` of the recipe, for messages.

    Raises:
        InputError: the folder does not say something that is not given, or asks for a module that this project has not.
    """
    return Description(
        pooling=pooling or _pooling(folder, f"models.{model}"),
        prefixes=prefixes or _prefixes(folder, f"models.{model}"),
        max_tokens=_length(folder, max_tokens, f"models.{model}"),
        include_prompt=includes_prompt(folder),
    )


def write_description(folder: Path, description: Description) -> None:
    """Write the description into a folder that holds config.json, weights and a tokenizer, over whatever one there was.

    The tokenizer's class is named as older transformers know it too, and it learns how long a text may be.
    """
    config = read_json(folder / "config.json")
    longest = min(description.max_tokens, positions(config) or description.max_tokens)
    parts = written_parts(folder)
    found = module_paths([part.kind for part in parts])
    pooling, normalize = (next(path for path, name in found if name == wanted) for wanted in ("Pooling", "Normalize"))
    arguments = {"model_args": {"add_pooling_layer": False}} if config["model_type"] in WITHOUT_POOLER else {}
    tokenizer = {**read_json(folder / TOKENIZER), "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest}
    tokenizer.pop("backend", None)
    files: dict[str, Any] = {
        MODULES: [
            {"idx": number, "name": str(number), "path": path, "type": f"{OWN if name in OF_STATES else THEIRS}.{name}"}
            for number, (path, name) in enumerate(found)
        ],
        LENGTH: {"max_seq_length": longest, "do_lower_case": False, **arguments},
        PROMPTS: {"prompts": prompts(description.prefixes), "default_prompt_name": None, "similarity_fn_name": "cosine"},
        f"{pooling}/config.json": {
            "word_embedding_dimension": dimension(folder, [part for part in parts if part.kind in OF_STATES]),
            **{switch: mode == description.pooling for switch, mode in MODES.items()},
            "include_prompt": description.include_prompt,
        },
        f"{normalize}/config.json": {},
        TOKENIZER: tokenizer,
    }
    for name, value in files.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def prompts(prefixes: Prefixes) -> dict[str, str]:
    """All prompts of a model by name: those a person uses, and those that mteb looks up."""
    return {**prefixes.named_prompts(), **prefixes.mteb_prompts()}


def positions(config: Mapping[str, Any]) -> int | None:
    """How many tokens a model can read by its config.json; None where its positions have no end."""
    there = config.get("max_position_embeddings")
    if there is None or config.get("model_type") not in POSITIONS_FROM_PADDING:
        return there
    padding = config.get("pad_token_id")
    return int(there) - (1 if padding is None else padding) - 1


def check_loads(folder: Path, encode: Callable[[Sequence[str]], np.ndarray]) -> tuple[float, int]:
    """Load a described folder with sentence-transformers and compare its vectors with the encoder's own, over all prompts.

    Args:
        folder: As `write_description` leaves it.
        encode: Vectors [n, H] of texts with their prefixes before them, in fp32.

    Returns:
        The greatest difference of a coordinate, and the number of parameters.

    Raises:
        RuntimeError: the difference is above 1e-5, or the loaded model lacks a prompt.
    """
    from sentence_transformers import SentenceTransformer

    own = any(kind in OF_STATES for kind, _ in modules(folder))  # classes of this package, by their import path: no code lies in the folder
    loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=own)
    named = prompts(describe(folder).prefixes)
    lost = [name for name, prefix in named.items() if loaded.prompts.get(name) != prefix]
    if lost:
        raise RuntimeError(f"{folder.name}: prompts that did not come back from the folder: {', '.join(lost)}")
    worst = 0.0
    for number, prefix in enumerate(dict.fromkeys(named.values())):
        name = next(name for name, value in named.items() if value == prefix)
        texts = [*PROBES, *([] if number else [LONG])]
        theirs = loaded.encode(texts, prompt_name=name, batch_size=1, show_progress_bar=False)
        difference = float(np.abs(theirs - encode([prefix + text for text in texts])).max())
        if not difference <= TOLERANCE:
            allowed = f"allowed is {TOLERANCE}"
            raise RuntimeError(f"{folder.name}: prompt {name} differs by {difference:.2g} from the encoder with {prefix!r}, {allowed}")
        worst = max(worst, difference)
    log.info("%s: %d prompts agree with the encoder within %.1e", folder.name, len(named), worst)
    return worst, sum(weights.numel() for weights in loaded.parameters())


def _pooling(folder: Path, key: str) -> Pooling:
    """The mode of the folder's pooling module."""
    wanted = f"right would be to name pooling: under {key}"
    if not (folder / MODULES).is_file():
        raise InputError(f"{folder}: says nothing of its pooling (no {MODULES}); {wanted}")
    if others := foreign(folder):
        raise InputError(f"{folder}: has a module {others[0]}, which is not read; {wanted}, to use its encoder without that module")
    config = _pooling_config(folder)
    if config is None:
        raise InputError(f"{folder}: says nothing of its pooling (no configuration of it); {wanted}")
    given = config.get("pooling_mode", [mode for switch, mode in MODES.items() if config.get(switch)])
    modes = [given] if isinstance(given, str) else given
    mode = {"lasttoken": "last"}.get(modes[0], modes[0]) if len(modes) == 1 else None
    if mode not in get_args(Pooling):
        raise InputError(f"{folder}: pools by {'+'.join(modes) or 'nothing'}, there are {', '.join(get_args(Pooling))}; {wanted}")
    return cast(Pooling, mode)


def includes_prompt(folder: Path) -> bool:
    """Whether a folder's pooling counts the tokens of what goes before a text; it does where nothing else is said."""
    return bool((_pooling_config(folder) or {}).get("include_prompt", True))


def _pooling_config(folder: Path) -> dict[str, Any] | None:
    file = next((folder / path / "config.json" for name, path in modules(folder) if name == "Pooling"), None)
    return cast(dict[str, Any], read_json(file)) if file is not None and file.is_file() else None


def _prefixes(folder: Path, key: str) -> Prefixes:
    """The folder's prompts; those that it has not by any name are its default, or nothing."""
    settings = read_json(folder / PROMPTS) if (folder / PROMPTS).is_file() else {}
    named = settings.get("prompts") or {}
    if not set(named) - {"query", "document"} and not any(named.values()):  # newer libraries write these two empty where nobody set one
        raise InputError(f"{folder}: says nothing of its prompts; right would be to name prefixes: under {key} (none where it has none)")
    default = named.get(settings.get("default_prompt_name"), "")
    found = {field: next((named[name] for name in names if name in named), default) for field, names in NAMES.items()}
    own = next((named[name] for name in CLASSIFICATION if name in named), found["paraphrase"])
    return Prefixes(**found, classification=None if own == found["paraphrase"] else own)


def _length(folder: Path, asked: int | None, key: str) -> int:
    """How many tokens a text may have: as asked, or as the folder says; at most what the positions allow."""
    told = (read_json(folder / name).get(field) for name, field in ((LENGTH, "max_seq_length"), (TOKENIZER, "model_max_length")))
    known = asked or next((int(length) for length in told if length and length < ENDLESS), None)
    lengths = [length for length in (known, positions(read_json(folder / "config.json"))) if length is not None]
    if not lengths:
        raise InputError(f"{folder}: does not say how long a text may be; right would be to name max_tokens: under {key}")
    return min(lengths)
