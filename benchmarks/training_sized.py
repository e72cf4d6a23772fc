"""RoBERTa of several sizes with random weights, texts for it, and the work that a step of it is: for the benchmark on a GPU.

Only speed and memory are measured, so which weights and which texts does not matter, but how long the texts are.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoConfig, AutoModel, RobertaConfig, RobertaForMaskedLM

from raysberta.models.describe import WITHOUT_POOLER
from raysberta.models.load import load_tokenizer
from raysberta.prefixes import E5
from raysberta.schema import EXAMPLE
from raysberta.training.examples import Examples, prepare_tables
from training_data import SEED, corpus, roberta

SIZES = {
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
}
PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "B200": 2250e12,
}
"""Dense bf16 floating point operations a second by part of the device's name, from the makers' data sheets; the first that fits counts."""


def peak_flops(device: str) -> float | None:
    """Of a device by its name; None where it is not known."""
    return next((peak for name, peak in PEAK_FLOPS.items() if name in device), None)


def sized(work: Path, size: str) -> Path:
    """A RoBERTa with masked-language-model head, 50,265 pieces, without dropout, which two programs would draw differently."""
    folder = work / f"roberta-{size}"
    if not (folder / "config.json").is_file():
        torch.manual_seed(SEED)
        config = RobertaConfig.from_pretrained(roberta(work))
        config.update(SIZES[size])
        RobertaForMaskedLM(config).save_pretrained(folder)
        load_tokenizer(roberta(work)).save_pretrained(folder)
    return folder


def texts(work: Path, limit: int, filled: bool) -> list[str]:
    """Texts of both sources by turns; where `filled`, each goes on with those after it until it is longer than `limit` tokens."""
    mixed = [text for pairs in zip(*corpus(work).values(), strict=False) for _, text in pairs]
    if not filled:
        return mixed
    found = []
    for place in range(len(mixed)):
        words: list[str] = []
        after = place
        while len(words) <= limit:  # a word is a token at least
            words += mixed[after % len(mixed)].split()
            after += 1
        found.append(" ".join(words))
    return found


def sized_examples(
    work: Path, folder: Path, queries: int, negatives: int, limit: int, filled: bool, steps: int
) -> tuple[Examples, list[np.ndarray]]:
    """Examples cut to `limit` tokens and the rows of each step: each of `queries` texts, their positives and negatives is another one."""
    found = texts(work, limit, filled)
    rows = []
    for number in range(queries * steps):
        query, positive, *others = (found[(number * (2 + negatives) + place) % len(found)] for place in range(2 + negatives))
        rows.append(
            {
                "pair_id": f"{number:08d}", "doc_id": f"{number}", "group": f"{number}", "split": "train", "source": "texts",
                "kind": "pair", "task": "retrieval", "language": "en", "query": query, "positive": positive, "negatives": others,
                "positive_score": 1.0, "negative_scores": [0.0] * negatives, "negative_ranks": [0] * negatives,
            }
        )  # fmt: skip
    prepared = prepare_tables([pa.Table.from_pylist(rows, schema=EXAMPLE)], load_tokenizer(folder), E5, limit, limit, negatives)
    return prepared, list(np.arange(len(prepared)).reshape(steps, queries))


def sized_lists(work: Path, folder: Path, count: int, limit: int, filled: bool) -> list[list[int]]:
    """Token ids of `count` texts, cut to `limit`."""
    found = texts(work, limit, filled)
    return load_tokenizer(folder)([found[place % len(found)] for place in range(count)], truncation=True, max_length=limit)["input_ids"]


def model_flops(folder: Path, lengths: Sequence[int], predicted: int = 0) -> float:
    """Floating point operations of a training step that the model needs, however it is computed (recomputation and padding not counted).

    A weight of a matrix takes a multiplication and an addition for each token, and twice that on the way back: 6 operations. In each
    layer each pair of a text's tokens takes 2 * hidden for the score and 2 * hidden for the sum of the values, and twice that on the way
    back: 12 * layers * hidden * length^2 for a text (PaLM, arXiv 2204.02311, appendix B). Embeddings are looked up, not multiplied;
    the masked-language-model head multiplies with them where tokens are predicted.

    Args:
        folder: Of the model.
        lengths: Tokens of each text, without padding.
        predicted: Tokens that the masked-language-model head predicts.
    """
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        encoder = AutoModel.from_config(config, **({"add_pooling_layer": False} if config.model_type in WITHOUT_POOLER else {}))
    weights = sum(
        parameter.numel() for name, parameter in encoder.named_parameters() if not name.startswith(("embeddings.", "embed_tokens."))
    )
    hidden = config.hidden_size
    tokens, squares = sum(lengths), sum(length * length for length in lengths)
    head = predicted * (hidden * hidden + hidden * config.vocab_size)
    return 6.0 * (weights * tokens + head) + 12.0 * config.num_hidden_layers * hidden * squares
