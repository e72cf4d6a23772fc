"""What benchmarks/cluster_cost.py computes, against other counts of the same."""

import sys

import pytest
import torch
from transformers import RobertaConfig, RobertaModel

from raysberta.parsing import load
from raysberta.training import attention
from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import cluster_cost
from training_sized import model_flops


def roberta(shape: cluster_cost.Shape) -> RobertaConfig:
    return RobertaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        intermediate_size=shape.inner,
        vocab_size=shape.pieces,
        pad_token_id=1,
        max_position_embeddings=514,
    )


def test_more_nodes_take_less_time_unless_gradients_decide() -> None:
    one, tcp, rdma = cluster_cost.CLUSTERS
    for stage in cluster_cost.stages(load(cluster_cost.RECIPE)):
        assert stage.seconds(rdma, 0.25) <= stage.seconds(one, 0.25) and stage.seconds(rdma, 0.25) <= stage.seconds(tcp, 0.25)
        assert stage.seconds(one, 0.4) <= stage.seconds(one, 0.15)


def test_operations_are_those_of_the_benchmark(tmp_path) -> None:
    """PaLM's count of a step, there by the weights of a model, here by the shape alone."""
    shape, lengths = cluster_cost.Shape(2, 256, 1024, 300), [17, 40, 40, 5]
    roberta(shape).save_pretrained(tmp_path)
    expected, tokens = model_flops(tmp_path, lengths, predicted=12), sum(lengths)
    ours = 3 * sum(length * shape.forward(length) for length in lengths) + 3 * tokens * shape.head(12 / tokens)
    assert ours == pytest.approx(expected, rel=0.01)  # biases and norms


class KeepsWhatFlashAttentionKeeps(torch.autograd.Function):
    """Queries, keys, values and the output, and no matrix of scores."""

    @staticmethod
    def forward(ctx, query, key, value):
        found = value.clone()
        ctx.save_for_backward(query, key, value, found)
        return found

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError


def kept_of(layers: int, tokens: int) -> int:
    """Bytes that autograd saves in a forward pass as training does it, weights and their bf16 copies left out."""
    shape = cluster_cost.Shape(layers, 256, 1024, 300)
    encoder = RobertaModel(roberta(shape), add_pooling_layer=False).train()
    encoder.set_attn_implementation(attention.PACKED)
    weights = {each.untyped_storage().data_ptr() for each in encoder.parameters()}
    held: dict[int, torch.Tensor] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        if tokens in tensor.shape and tensor.untyped_storage().data_ptr() not in weights:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    starts, rows = torch.tensor([0, tokens // 2, tokens], dtype=torch.int32), torch.randn(1, tokens, shape.hidden, requires_grad=True)
    more = attention.arguments_of(encoder, torch.arange(tokens), starts, tokens // 2)
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        encoder(inputs_embeds=rows, **more)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def test_a_layer_keeps_of_a_token_what_the_memory_table_says(monkeypatch) -> None:
    monkeypatch.setattr(attention, "attend", lambda query, key, value, *_, **__: KeepsWhatFlashAttentionKeeps.apply(query, key, value))
    tokens, hidden = 500, 256
    kept = (kept_of(3, tokens) - kept_of(2, tokens)) / tokens / hidden
    masks = 2 * (2 - 1)  # a number's place in a dropout mask takes two bytes here, one on a GPU
    assert kept - masks == pytest.approx(cluster_cost.KEPT, abs=0.2)  # mean and deviation of the norms
