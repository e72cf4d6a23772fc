"""A cross-encoder: query and text read together, one score."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from raysberta.errors import InputError
from raysberta.models.auto import AutoModelForSequenceClassification
from raysberta.models.load import load_tokenizer

TOKEN_BUDGET = 4096


class CrossEncoder:
    """A sequence classifier with one output, ready to score."""

    def __init__(self, folder: Path, max_tokens: int, device: str | None = None) -> None:
        """Load the model of `folder`.

        Raises:
            InputError: it gives more than one score.
        """
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.tokenizer = load_tokenizer(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()
        if self.model.config.num_labels != 1:
            raise InputError(
                f"{folder}: a classifier of {self.model.config.num_labels} classes; right would be one with one output, a score"
            )
        nn.Module.to(self.model, self.device)
        self.max_tokens = max_tokens

    @torch.inference_mode()
    def score(self, queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """The model's raw output for each query with its text, float32 [len(queries)], in the order given."""
        if not len(queries):
            return np.zeros(0, np.float32)
        ids = self.tokenizer(list(queries), list(texts), truncation=True, max_length=self.max_tokens)
        names = [name for name in self.tokenizer.model_input_names if name in ids]
        lengths = [len(row) for row in ids["input_ids"]]
        order = sorted(range(len(lengths)), key=lambda row: lengths[row], reverse=True)
        scores = np.empty(len(lengths), np.float32)
        while order:
            width = max(1, TOKEN_BUDGET // lengths[order[0]])
            rows, order = order[:width], order[width:]
            batch = self.tokenizer.pad({name: [ids[name][row] for row in rows] for name in names}, return_tensors="pt").to(self.device)
            scores[rows] = self.model(**batch).logits[:, 0].float().cpu().numpy()
        return scores


def is_cross_encoder(config: Path) -> bool:
    """Whether a model's config.json is that of a sequence classifier, which reads two texts together; an encoder's names no head."""
    architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)
