"""Texts to vectors, fast: sorted by length, batched by a token budget, bf16 where the processor has it."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from raysberta.models.arithmetic import has_bf16
from raysberta.models.describe import describe
from raysberta.models.load import load_tokenizer, prompt_tokens, token_ids
from raysberta.models.model import load_model
from raysberta.retrieval.processor import arranged

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0
VERSION = 3
"""Of the arithmetic: vectors that were made by another are not mixed with this one's."""


class Embedder:
    """A model ready to embed. Texts come with their prefix; the caller knows the task.

    Where the model's pooling leaves out the prefix, it is known by how a text begins.
    """

    def __init__(
        self,
        folder: Path,
        max_tokens: int | None = None,
        precision: Literal["bf16", "tf32", "fp32"] = "bf16",
        device: str | None = None,
        token_budget: int | None = None,
    ) -> None:
        """Load the model of `folder`.

        Args:
            folder: A model folder that describes itself.
            max_tokens: Longer texts are cut; as the folder says where None, and never later than it says.
            precision: bf16 converts the weights, tf32 multiplies float32 with eleven bits, where the device has it; vectors come back as
                float32 either way.
            device: A torch device; cuda where there is one and None is given.
            token_budget: Greatest tokens of a batch, padding included; where None, what was measured as fastest
                (docs/performance.md): 2,048 on a processor, whose cache it should fit, 65,536 on a GPU.
        """
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.tokenizer = load_tokenizer(folder)
        half = precision == "bf16" and has_bf16(self.device)
        self.model = load_model(folder).in_precision(torch.bfloat16 if half else torch.float32).to(self.device)
        self.description = describe(folder)
        known = {} if self.description.include_prompt else self.description.prefixes.named_prompts()
        lengths = {prefix: prompt_tokens(self.tokenizer, prefix) for prefix in known.values() if prefix}
        self.prompts = sorted(lengths.items(), key=lambda item: -len(item[0]))
        self.max_tokens = min(max_tokens or self.description.max_tokens, self.description.max_tokens)
        self.products = "tf32" if precision == "tf32" else "ieee"
        self.token_budget = token_budget or (65536 if self.device.type == "cuda" else 2048)
        if half and self.device.type == "cpu":
            for transformer in self.model.transformers():
                arranged(transformer, self.token_budget)

    def encode(self, texts: Sequence[str], normalised: bool = True) -> np.ndarray:
        """Vectors, float32 [len(texts), dimension], in the order given; each distinct text is embedded once.

        Args:
            texts: With their prefixes.
            normalised: To length 1 (L2); otherwise as they come out of the model.
        """
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return np.zeros((0, self.model.dimension), np.float32)
        ids = token_ids(self.tokenizer, distinct, self.max_tokens)
        # by length, then content: which texts share a batch, and so the last bits of a vector, do not depend on the order given
        order = sorted(range(len(ids)), key=lambda row: (len(ids[row]), ids[row]), reverse=True)
        vectors = np.empty((len(ids), self.model.dimension), np.float32)
        done, shown = 0, time.monotonic()
        for rows in self._batches(order, ids):
            found = self._forward([ids[row] for row in rows], [self._prompt(distinct[row]) for row in rows])
            vectors[rows] = (F.normalize(found, dim=-1) if normalised else found).cpu().numpy()
            done += len(rows)
            if time.monotonic() - shown > PROGRESS_SECONDS:
                log.info("embedded %d of %d texts", done, len(ids))
                shown = time.monotonic()
        row_of = {text: row for row, text in enumerate(distinct)}
        return vectors[[row_of[text] for text in texts]]

    def _prompt(self, text: str) -> int:
        """How many of its first tokens are of the longest prefix that it begins with, of those that the model knows."""
        return next((tokens for prefix, tokens in self.prompts if text.startswith(prefix)), 0)

    def _batches(self, order: list[int], ids: list[list[int]]) -> Iterator[list[int]]:
        """Rows in falling length; the first of a batch is its longest, so it fixes the width."""
        batch: list[int] = []
        for row in order:
            if batch and len(ids[batch[0]]) * (len(batch) + 1) > self.token_budget:
                yield batch
                batch = []
            batch.append(row)
        yield batch

    @torch.inference_mode()
    def _forward(self, ids: list[list[int]], prompts: list[int]) -> torch.Tensor:
        width = max(len(row) for row in ids)
        tokens = torch.full((len(ids), width), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros((len(ids), width), dtype=torch.long)
        for number, row in enumerate(ids):
            tokens[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        tokens, mask = tokens.to(self.device), mask.to(self.device)
        with _on(self.device, self.products):
            found: torch.Tensor = self.model(mask, torch.tensor(prompts, device=self.device), input_ids=tokens)
        return found


@contextmanager
def _on(device: torch.device, products: str) -> Iterator[None]:
    """On a GPU: it is the current one, and multiplies float32 as said, "ieee" or "tf32" with eleven bits of each factor; only within."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = products
    try:
        with torch.cuda.device(device):
            yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
