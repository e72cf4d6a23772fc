"""How far the resident memory of a process rises over two steps of training, for test_training_outside.py: prints bytes.

Run as `python memory_peak.py <sizes> <settings> <length> <texts>`: sizes and settings as JSON. Texts are short, so that attention's
weights, which a GPU does not keep, are few.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import RobertaConfig, RobertaModel

from raysberta.models.model import Model
from raysberta.training.arrays import tokens_of
from raysberta.training.chunks import Budget, make_chunks, plan_chunks
from raysberta.training.encode import chunked_encoder
from raysberta.training.engine import Engine, keep_freed_memory
from raysberta.training.settings import Contrastive


class Norms(torch.nn.Module):
    """A loss of the texts' vectors that takes no memory of its own."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, chunks: object) -> torch.Tensor:
        return self.encoder.embed(chunks)[:, 0].sum()


def status(name: str) -> int:
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))


def main(sizes: dict[str, int], settings: Contrastive, length: int, texts: int) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    encoder = RobertaModel(RobertaConfig(pad_token_id=1, max_position_embeddings=64, **sizes), add_pooling_layer=False)
    chunked = chunked_encoder(Model(encoder, "mean"), settings)
    chunked.packed = True  # as on a GPU: chunks without padding are padded matrices here, whose attention keeps more
    model = Norms(chunked).train()
    tokens = tokens_of(np.random.default_rng(0).integers(3, sizes["vocab_size"], (texts, length)).tolist())
    planned = plan_chunks(tokens.lengths.astype(np.int64), Budget(settings.chunk_tokens, settings.chunk_tokens))
    chunks = make_chunks([tokens[text] for text in range(texts)], planned)
    engine = Engine(model, settings, torch.device("cpu"))
    small = make_chunks([tokens[0]], [np.zeros(1, np.int64)])
    model(small).backward()  # what is loaded when first used
    engine.optimizer.zero_grad(set_to_none=True)
    before = status("VmRSS")
    for _ in range(2):
        engine.step(chunks, chunks.real, 1e-4)
    print(status("VmHWM") - before)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Contrastive.model_validate_json(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
