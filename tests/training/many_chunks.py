"""Program: how many MiB the heap of a training process grows by while it encodes 64 more chunks that are to be recomputed."""

import ctypes

import numpy as np
import torch
from transformers import BertConfig, BertModel

from raysberta.models.model import Model
from raysberta.training.chunks import Budget, Chunks, make_chunks, plan_chunks
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.engine import keep_freed_memory

FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class Usage(ctypes.Structure):
    """What mallinfo2 of glibc gives."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def heap() -> int:
    """Bytes that the heap spans, free ones between others included."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Usage
    return int(mallinfo().arena)


def chunks_of(number: int) -> Chunks:
    """All of one shape, so that each could have the memory of the one before."""
    generator = np.random.default_rng(0)
    texts = [generator.integers(3, 100, 32) for _ in range(8 * number)]
    return make_chunks(texts, plan_chunks(np.full(len(texts), 32), Budget(256, 0)))


keep_freed_memory()
torch.set_num_threads(1)
torch.manual_seed(0)
config = BertConfig(vocab_size=100, hidden_size=384, num_hidden_layers=4, num_attention_heads=12, intermediate_size=1536)
chunked = ChunkedEncoder(Model(BertModel(config, add_pooling_layer=False), "mean"), "bf16", recompute=True)
first = chunked.embed(chunks_of(8))
before = heap()
more = chunked.embed(chunks_of(64))
print((heap() - before) // 2**20)
