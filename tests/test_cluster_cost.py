"""What benchmarks/cluster_cost.py computes, against other counts of the same."""

import sys

import pytest
from transformers import RobertaConfig

from raysberta.parsing import load
from raysberta.training.outside import sizes_of
from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import cluster_cost
from training_sized import model_flops


def test_more_nodes_take_less_time_unless_gradients_decide() -> None:
    one, tcp, rdma = cluster_cost.CLUSTERS
    for stage in cluster_cost.stages(load(cluster_cost.RECIPE)):
        assert stage.seconds(rdma, 0.25) <= stage.seconds(one, 0.25) and stage.seconds(rdma, 0.25) <= stage.seconds(tcp, 0.25)
        assert stage.seconds(one, 0.4) <= stage.seconds(one, 0.15)


def test_operations_are_those_of_the_benchmark(tmp_path) -> None:
    """PaLM's count of a step, there by the weights of a model, here by its sizes alone."""
    config = RobertaConfig(
        hidden_size=256, num_hidden_layers=2, num_attention_heads=4, intermediate_size=1024, vocab_size=300, max_position_embeddings=514
    )
    config.save_pretrained(tmp_path)
    model, lengths = sizes_of(config.to_dict()), [17, 40, 40, 5]
    assert model is not None
    tokens = sum(lengths)
    ours = sum(length * cluster_cost.forward(model, length) for length in lengths) + tokens * cluster_cost.head(model, 12 / tokens)
    assert 3 * ours == pytest.approx(model_flops(tmp_path, lengths, predicted=12), rel=0.01)


def test_the_two_models_have_the_published_numbers_of_weights() -> None:
    assert cluster_cost.LARGE.weights == pytest.approx(404e6, rel=0.01)
    assert cluster_cost.SMALL.weights == pytest.approx(118e6, rel=0.01)
