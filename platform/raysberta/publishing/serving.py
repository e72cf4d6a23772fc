"""Whether vLLM serves a published folder as a pooling model, with the folder's own vectors. No torch here.

It builds each type of transformer itself, and reads pooling and dense layers from the folder. What it does not read it passes over in
silence, so what is not known here to come out right counts as not served.
"""

from collections.abc import Mapping
from pathlib import Path

from raysberta.models.describe import describe
from raysberta.models.folder import OF_STATES, bidirectional, parts_of, read_json

ENCODERS = ("bert", "roberta", "xlm-roberta")
POSITIONS = "position_embedding_type"
"""What vLLM 0.32 reads of configs of RoBERTa's types; those of the hub have it, transformers 5 does not write it by itself."""
DECODERS: Mapping[str, tuple[bool, ...]] = {
    "llama": (True, False),
    "mistral": (True, False),
    "qwen3": (True, False),
    "gemma3_text": (True, False),
    "gemma": (True,),
    "bloom": (True,),
    "phi3": (True,),
}
"""By model type, whether it may be causal: the ways in which it lets tokens see."""
POOLINGS = ("cls", "mean", "last")


def not_served(folder: Path) -> str:
    """Why vLLM does not serve a model as it is; "" where it does.

    Args:
        folder: As it is published.
    """
    config, description = read_json(folder / "config.json"), describe(folder)
    kind, causal = str(config["model_type"]), not bidirectional(config)
    if own := [part.kind for part in parts_of(folder) if part.kind in OF_STATES]:
        return f"it has no {own[0]}"
    if kind not in (*ENCODERS, *DECODERS):
        return f"not tried with models of type {kind}"
    if "roberta" in kind and POSITIONS not in config:
        return f"it wants {POSITIONS} in config.json, which has none"
    if kind in DECODERS and causal not in DECODERS[kind]:
        return f"it lets a token of {kind} see those before it alone"
    if description.pooling not in POOLINGS:
        return f"it has no pooling {description.pooling}"
    if not description.include_prompt and any(description.prefixes.named_prompts().values()):
        return "its mean counts the tokens of the prefix"
    return ""
