"""The cross-encoder against transformers, text by text."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from raysberta.errors import InputError
from raysberta.mining.judge import CrossEncoder, is_cross_encoder


def test_the_cross_encoder_scores_as_transformers_does(cross_folder: Path) -> None:
    judge = CrossEncoder(cross_folder, 24, device="cpu")
    queries, texts = [f"вопрос {n}" for n in range(30)], ["ответ " * (1 + n % 11) for n in range(30)]
    model, tokenizer = BertForSequenceClassification.from_pretrained(cross_folder).eval(), AutoTokenizer.from_pretrained(cross_folder)
    with torch.no_grad():
        alone = [
            model(**tokenizer(query, text, truncation=True, max_length=24, return_tensors="pt")).logits[0, 0].item()
            for query, text in zip(queries, texts, strict=True)
        ]
    np.testing.assert_allclose(judge.score(queries, texts), alone, atol=1e-4)
    assert judge.score([], []).shape == (0,)


def test_a_folder_says_whether_it_is_a_cross_encoder(cross_folder: Path, e5_folder: Path) -> None:
    assert is_cross_encoder(cross_folder / "config.json")
    assert not is_cross_encoder(e5_folder / "config.json")


def test_several_classes_are_no_score(cross_folder: Path, tmp_path: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(cross_folder, num_labels=3, ignore_mismatched_sizes=True)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(cross_folder).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a classifier of 3 classes; right would be one with one output"):
        CrossEncoder(tmp_path, 24)
