"""The commands of docs/cluster.md against the repository and the pinned Ray, and its tables against what computes them."""

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from itertools import pairwise

import click
import pytest
import torch
from ray.scripts.scripts import cli
from transformers import RobertaConfig, RobertaModel

from raysberta.parsing import load
from raysberta.training import attention
from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import cluster_cost
from training_sized import model_flops

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """What the page gives to type, word by word, its variables put in."""
    text = "\n".join(re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    values = dict(re.findall(r"\b(RECIPE|BUCKET)=(\S+)", text))
    for name, value in values.items():
        text = text.replace(f"${name}", value)
    return [shlex.split(line) for line in re.findall(r"^ *((?:ray|python|--set) .*)$", text, re.MULTILINE)]


def jobs() -> list[list[str]]:
    """The words after `python` of each command, those handed to a shell too."""
    found = []
    for words in commands():
        words = [part for word in words for part in (shlex.split(word) if " && " in word else [word])]
        while "python" in words:
            words = words[words.index("python") + 1 :]
            found.append(words[: words.index("&&")] if "&&" in words else words)
    return found


@cache
def told(job: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform"), "COLUMNS": "200"}
    asked = [sys.executable, job, "--help"]
    return subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


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


def test_the_page_names_what_it_is_about() -> None:
    run = {words[0] for words in jobs()}
    assert run >= {"jobs/fetch_data.py", "jobs/fetch_benchmark.py", "jobs/fetch_models.py", "jobs/full_pipeline.py"}


@pytest.mark.parametrize("words", jobs(), ids=" ".join)
def test_jobs_and_their_options_exist(words) -> None:
    assert (ROOT / words[0]).is_file()
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", told(words[0])), f"{words[0]} knows no {option}"
    sets = [value for option, value in pairwise(words) if option == "--set"]
    for option, value in pairwise(words):
        if option == "--recipe":
            assert load(ROOT / value, sets).storage in (load(ROOT / value).storage, "s3://your-bucket/run")


def test_settings_beside_commands_exist() -> None:
    sets = [re.search(r"--set (\S+?)`", line) for line in PAGE.splitlines()]
    found = [each[1] for each in sets if each] + [value for words in commands() if words[0] == "--set" for value in words if "=" in value]
    assert len(found) >= 6
    load(ROOT / "recipes" / "ru_en_rosberta.yaml", found)


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "ray"], ids=" ".join)
def test_rays_commands_and_their_options_exist(words) -> None:
    group, rest = cli, words[1:]
    while isinstance(group, click.Group):
        assert rest[0] in group.commands, f"Ray has no command {' '.join(words[:3])}"
        group, rest = group.commands[rest[0]], rest[1:]
    own = rest[: rest.index("--")] if "--" in rest else rest
    known = {name for parameter in group.params for name in [*parameter.opts, *parameter.secondary_opts]}
    assert {word for word in own if word.startswith("-")} <= known


def test_files_and_targets_that_it_names_exist() -> None:
    for name in re.findall(r"`((?:docs|requirements|recipes|jobs|benchmarks)/[\w./-]+)`", PAGE):
        assert (ROOT / name).is_file(), name
    for target in re.findall(r"`make ([\w-]+)", PAGE):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for image in ("ami-00000000000000000", "us-east-2"):
        assert image in (ROOT / "cluster.yaml").read_text(), "the page puts another in its place"


def test_its_tables_are_what_is_computed() -> None:
    made = cluster_cost.tables(load(cluster_cost.RECIPE))
    assert cluster_cost.with_tables(PAGE, made) == PAGE, "run python benchmarks/cluster_cost.py --write"


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
