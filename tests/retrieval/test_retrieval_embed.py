"""The embedder: order, duplicates, cutting, precision and batches."""

from pathlib import Path

import numpy as np
import torch

from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.models.pool import pool
from raysberta.retrieval.embed import Embedder

TEXTS = [f"passage: {'слово ' * (n % 17)} word {n % 5}" for n in range(40)]


def test_equals_one_text_at_a_time(e5_folder: Path) -> None:
    embedder = Embedder(e5_folder, 64, "fp32", device="cpu", token_budget=100)
    found = embedder.encode(TEXTS)
    model, tokenizer = load_encoder(e5_folder), load_tokenizer(e5_folder)
    for row, text in enumerate(TEXTS):
        inputs = tokenizer(text, truncation=True, max_length=64, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            vector = pool(model(**inputs).last_hidden_state, inputs["attention_mask"], "mean")[0].numpy()
        np.testing.assert_allclose(found[row], vector / np.linalg.norm(vector), atol=2e-6)


def test_bf16_is_close_and_repeats_are_equal(e5_folder: Path) -> None:
    exact = Embedder(e5_folder, 64, "fp32", device="cpu").encode(TEXTS)
    fast = Embedder(e5_folder, 64, "bf16", device="cpu").encode(TEXTS)
    assert (exact * fast).sum(1).min() > 0.999
    assert (Embedder(e5_folder, 64, "bf16", device="cpu").encode(TEXTS * 2)[40:] == fast).all()


def test_nothing_to_embed(e5_folder: Path) -> None:
    assert Embedder(e5_folder, 64, device="cpu").encode([]).shape == (0, 384)


def test_pooling_ignores_padding() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool(hidden, mask, "mean").tolist() == [[2.0, 4.0]]
    assert pool(hidden, mask, "cls").tolist() == [[1.0, 2.0]]


def test_texts_are_never_cut_later_than_the_model_says(e5_folder: Path) -> None:
    assert Embedder(e5_folder, device="cpu").max_tokens == 512 and Embedder(e5_folder, 4096, device="cpu").max_tokens == 512
    short = Embedder(e5_folder, 12, device="cpu")
    assert short.max_tokens == 12 and short.description.max_tokens == 512 and short.description.pooling == "mean"
    long = "passage: " + "слово " * 100
    assert np.array_equal(short.encode([long]), short.encode([long + "и ещё"]))
