"""Texts laid end to end give what padded ones give: states, embeddings and gradients in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)
from variants import batches_of_two_sources, contrastive_settings

from raysberta.models.head import MlmHead
from raysberta.models.model import Model
from raysberta.training.attention import PACKED, arguments_of, attend, packs, pays
from raysberta.training.chunks import Budget, Chunks, make_chunks, plan_chunks
from raysberta.training.contrastive import ContrastiveModel, make_batch
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.mlm import IGNORED, MlmModel, lay_out

CPU, META = torch.device("cpu"), torch.device("meta")
ONE = Budget(1000, 1000)
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 64}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
KINDS = ("bert", "roberta", "xlm-roberta", "modernbert")


def encoder_of(kind: str, vocabulary: int, seed: int = 0):
    """A small encoder with random weights; the window of ModernBERT's first layer is shorter than the longest texts here."""
    torch.manual_seed(seed)
    if kind == "bert":
        return BertModel(BertConfig(vocab_size=vocabulary, **SIZES, **STILL), add_pooling_layer=False)
    if kind == "modernbert":
        layers = {"layer_types": ["sliding_attention", "full_attention"], "local_attention": 6}
        special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
        return ModernBertModel(ModernBertConfig(vocab_size=vocabulary, **SIZES, **layers, **special))
    config, model = {"roberta": (RobertaConfig, RobertaModel), "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel)}[kind]
    return model(config(vocab_size=vocabulary, pad_token_id=1, **SIZES, **STILL), add_pooling_layer=False)


def chunked_of(kind: str, vocabulary: int, packed: bool, pooling="mean") -> ChunkedEncoder:
    """In float64; recomputed where packed."""
    chunked = ChunkedEncoder(Model(encoder_of(kind, vocabulary), pooling).double(), "fp32", packed, packed=packed)
    if kind == "modernbert" and not packed:
        chunked.model.encoder.set_attn_implementation("sdpa")  # its plain attention has a softmax in float32
    return chunked


def texts_of(lengths, vocabulary: int = 50):
    generator = np.random.default_rng(0)
    return [generator.integers(3, vocabulary, length) for length in lengths]


def one_chunk(lengths) -> Chunks:
    return make_chunks(texts_of(lengths), plan_chunks(np.asarray(lengths), ONE))


def whole_row(query, key, value, lengths, scale, window):
    """Attention of one row of all texts under a mask of who may see whom, written out."""
    text = np.repeat(np.arange(len(lengths)), lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    seen = (text[:, None] == text) & (np.abs(place[:, None] - place) <= (10**6 if window is None else window))
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    weights = scores.masked_fill(~torch.from_numpy(seen), -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, value)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.none() | st.integers(0, 5))
def test_attention_stays_within_texts_and_windows(lengths, window):
    torch.manual_seed(len(lengths))
    parts = [torch.randn(sum(lengths), 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    found, expected = attend(*parts, starts, max(lengths), 0.0, 0.3, window), whole_row(*parts, lengths, 0.3, window)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(found)
    for ours, theirs in zip(*(torch.autograd.grad((of * weights).sum(), parts) for of in (found, expected)), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("dtype", "window"), [(torch.bfloat16, None), (torch.bfloat16, 4), (torch.float32, None)])
def test_the_kernels_take_what_they_are_given(dtype, window):
    """What runs on a GPU, on tensors without memory: operators, arguments and shapes, there and back."""
    parts = [torch.randn(18, 4, 16, dtype=dtype, device=META, requires_grad=True) for _ in range(3)]
    starts = torch.zeros(5, dtype=torch.int32, device=META)
    found = attend(*parts, starts, 9, 0.1, 0.25, window)
    assert found.shape == parts[2].shape and found.dtype == dtype
    if dtype == torch.float32:
        return  # torch's description of this kernel's way back fails on its own arguments
    for part, gradient in zip(parts, torch.autograd.grad(found.sum(), parts), strict=True):
        assert gradient.shape == part.shape and gradient.dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_encoders_run_on_the_kernels(kind):
    """The same for whole encoders in bf16, windows and all."""
    chunk = one_chunk([3, 11, 8, 20]).to(META).chunks[0]
    encoder = encoder_of(kind, 50).to(META, torch.bfloat16)
    encoder.set_attn_implementation(PACKED)
    rows = torch.randn(1, len(chunk.places), 64, dtype=torch.bfloat16, device=META, requires_grad=True)
    states = encoder(inputs_embeds=rows, **arguments_of(encoder, chunk.places, chunk.starts, chunk.tokens.shape[1])).last_hidden_state
    assert states.shape == (1, 42, 64) and torch.autograd.grad(states.sum(), rows)[0].shape == rows.shape


@pytest.mark.parametrize(("dtype", "window"), [(torch.bfloat16, None), (torch.bfloat16, 4), (torch.float32, None)])
def test_the_kernels_can_be_compiled_for_all_shapes(dtype, window):
    """In one graph, which the compiler needs to put the arithmetic around them together."""
    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens, texts, longest in ((18, 4, 9), (30, 6, 12)):
        parts = [torch.randn(tokens, 4, 16, dtype=dtype, device=META, requires_grad=dtype != torch.float32) for _ in range(3)]
        found = compiled(*parts, torch.zeros(texts + 1, dtype=torch.int32, device=META), longest, 0.1, 0.25, window)
        assert found.shape == parts[2].shape and found.dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_padded_texts(kind):
    chunks = one_chunk([1, 17, 5, 30, 2, 30, 12])
    found = []
    for packed in (False, True):
        chunked = chunked_of(kind, 50, packed).eval()
        found.append(chunked.hidden(chunked.rows(chunks), chunks.chunks[0]))
    padded, laid = found
    there = chunks.chunks[0].mask.bool()
    assert there.any() and not there.all() and padded.shape == laid.shape
    assert (laid[there] - padded[there]).abs().max() < 1e-10 and (laid[~there] == 0).all()


def apart(left, right) -> float:
    """The largest relative difference of a parameter's gradient, with a floor for those that are 0 but for rounding."""
    floor = 1e-6 * max(float(gradient.abs().max()) for gradient in right.values())
    return max(float((left[name] - right[name]).abs().max() / right[name].abs().max().clamp(min=floor)) for name in right)


def gradients(model, batch):
    loss = model(batch)
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_contrastive_gradients_are_those_of_padded_texts(examples, kind, pooling):
    chosen = contrastive_settings(temperature=0.05, chunk_tokens=96)
    vocabulary = examples.tokens.highest + 1
    batch = make_batch(examples, batches_of_two_sources(examples), chosen, CPU)
    assert any(len(chunk.places) < chunk.tokens.numel() for chunk in batch.chunks.chunks), "no padding: the test would prove too little"
    found = []
    for packed in (False, True):
        found.append(gradients(ContrastiveModel(chunked_of(kind, vocabulary, packed, pooling), chosen), batch))
    (whole, expected), (loss, ours) = found
    assert loss == pytest.approx(whole, rel=1e-12) and apart(ours, expected) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_mlm_gradients_are_those_of_padded_texts(kind):
    reads = texts_of([3, 11, 8, 20, 20, 1, 7])
    labels = [np.where(np.arange(len(read)) % 3 == 1, read, IGNORED) for read in reads]
    found = []
    for packed in (False, True):
        torch.manual_seed(2)
        head = MlmHead(64, 50, True, 1e-5).double()
        found.append(gradients(MlmModel(chunked_of(kind, 50, packed), head), lay_out(reads, labels, Budget(48, 48))))
    (whole, expected), (loss, ours) = found
    assert loss == pytest.approx(whole, rel=1e-12) and apart(ours, expected) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_made_to_pack_still_reads_padded_batches(kind):
    """Saving compares a probe, and others call the encoder as any."""
    encoder = encoder_of(kind, 50).eval()
    tokens = torch.randint(3, 50, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[1, 5:] = 0
    expected = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
    encoder.set_attn_implementation(PACKED)
    found = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
    assert torch.allclose(found[mask.bool()], expected[mask.bool()], atol=1e-6)


def test_dropout_reaches_the_attention_weights():
    parts = [torch.ones(6, 1, 8) for _ in range(3)]
    found = attend(*parts, torch.tensor([0, 2, 6], dtype=torch.int32), 4, 0.5)
    assert not torch.allclose(found, torch.ones_like(found))


def test_the_cpu_lays_end_to_end_what_would_be_mostly_padding():
    assert packs(encoder_of("bert", 50), "bf16")
    (uneven,), (even,) = (one_chunk(lengths).chunks for lengths in ([40, 3, 2, 9], [40, 38, 35, 37]))
    assert pays(uneven) and not pays(even)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_the_gpu_gives_the_numbers_of_the_cpu(kind):
    """Loss and gradients, packed where the GPU packs, against the padded CPU path: float32 closely, bf16 within its rounding."""
    reads = texts_of([3, 11, 8, 20, 20, 1, 7, 40, 40, 2])
    labels = [np.where(np.arange(len(read)) % 3 == 1, read, IGNORED) for read in reads]

    def run(device: torch.device, precision):
        torch.manual_seed(2)
        head = MlmHead(64, 50, True, 1e-5)
        encoder = encoder_of(kind, 50)
        chunked = ChunkedEncoder(Model(encoder, "mean").to(device), precision, True)
        assert chunked.packed == (device.type == "cuda" and (precision == "bf16" or kind != "modernbert"))
        batch = lay_out(reads, labels, Budget(96, 96))
        loss, found = gradients(MlmModel(chunked, head).to(device), batch.to(device))
        return loss, {name: gradient.cpu() for name, gradient in found.items()}

    whole, expected = run(CPU, "fp32")
    for precision, loss_apart, cosine in (("fp32", 1e-4, 0.9999), ("bf16", 1e-2, 0.98)):
        loss, found = run(torch.device("cuda"), precision)
        assert loss == pytest.approx(whole, rel=loss_apart)
        ours, theirs = (torch.cat([part[name].flatten() for name in expected]) for part in (found, expected))
        assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > cosine
