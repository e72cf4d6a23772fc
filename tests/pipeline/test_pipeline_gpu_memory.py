"""GPU memory of training phases as a dry run tells it, from packages and folders that are there and models that are not."""

import json
from pathlib import Path
from typing import Any

import pytest

from raysberta.nodes import nodes_of
from raysberta.parsing import load
from raysberta.pipeline.dry_run import _place, print_plan, problems
from raysberta.pipeline.gpu_memory import gpu_memory, too_large
from raysberta.pipeline.plan import plan
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import Store
from raysberta.training.outside import GIB, memory_of, sizes_of

RECIPES = Path(__file__).parents[2] / "recipes"
GPUS = ["resources.contrastive.gpus=1", "resources.mlm={workers: 2, cpus: 1, gpus: 1}"]
E5 = {"model_type": "bert", "vocab_size": 250037, "hidden_size": 384, "intermediate_size": 1536, "max_position_embeddings": 512}


def smoke(tmp_path: Path, *changes: str) -> Recipe:
    return load(RECIPES / "smoke.yaml", [f"storage={tmp_path}", *changes])


def test_a_phase_on_gpus_is_estimated_by_the_model_that_it_began_with(tmp_path: Path) -> None:
    recipe = smoke(tmp_path, *GPUS)
    nodes, two_layers = nodes_of(recipe), sizes_of({**E5, "num_hidden_layers": 2})
    assert two_layers is not None
    for name, workers in (("tuned", 1), ("general", 1), ("adapted", 2)):
        assert gpu_memory(recipe, nodes, name) == memory_of(recipe.phases[name], two_layers, workers)
    assert gpu_memory(recipe, nodes, "settled") is None, "it has no GPU"
    assert gpu_memory(recipe, nodes, "merged") is None and gpu_memory(recipe, nodes, "trimmed") is None


def test_a_vocabulary_grows_by_the_pieces_that_it_takes_over(tmp_path: Path) -> None:
    folder = tmp_path / "donor"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**E5, "num_hidden_layers": 12, "vocab_size": 50000}))
    donor = ["models.donor={from: 'path:" + str(folder) + "', kind: tokenizer}", "phases.trimmed.extend_from=donor"]
    plain, extended = (gpu_memory(recipe, nodes_of(recipe), "tuned") for recipe in (smoke(tmp_path, *GPUS), smoke(tmp_path, *GPUS, *donor)))
    assert plain is not None and extended is not None
    assert extended.optimizer - plain.optimizer == 8 * 50000 * 384


LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "max_position_embeddings": 514}
ROBERTA = {"model_type": "roberta", "vocab_size": 50265, **LARGE}
MISTRAL = {
    "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768
}  # fmt: skip
BASES: dict[str, dict[str, dict[str, Any]]] = {
    "ru_en_rosberta": {"base": ROBERTA, "english": ROBERTA},
    "ru_en_rosberta_plus": {"base": ROBERTA, "english": ROBERTA},
    "c_pack": {"base": {"model_type": "bert", "vocab_size": 21128, **LARGE}},
    "rubert_mini_frida": {
        "base": {"model_type": "modernbert", "vocab_size": 83828, "hidden_size": 312, "intermediate_size": 1248, "num_hidden_layers": 7}
    },
    "berta": {
        "base": {
            "model_type": "bert", "vocab_size": 55083, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
            "max_position_embeddings": 512,
        }
    },
    "lusifer": {"xlmr": {"model_type": "xlm-roberta", "vocab_size": 250002, **LARGE}, "mistral": MISTRAL},
    "llm2vec": {"mistral": MISTRAL},
    "nv_embed": {"mistral": MISTRAL},
    "gritlm": {"mistral": MISTRAL},
    "mm_embed_text": {"llm": MISTRAL},
    "qwen3_embedding": {
        "llm": {
            "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
            "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 32768,
        }
    },
    "vlm2vec_text": {
        "phi": {
            "model_type": "phi3", "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 131072,
        }
    },
}  # fmt: skip
"""Sizes of the models that the large recipes begin with, as their cards state them."""


def with_bases(name: str, folder: Path, *changes: str) -> Recipe:
    """A recipe whose models are folders of their configs alone."""
    for model, config in BASES[name].items():
        (folder / model).mkdir(exist_ok=True)
        (folder / model / "config.json").write_text(json.dumps(config))
    return load(RECIPES / f"{name}.yaml", [*(f"models.{model}.from=path:{folder / model}" for model in BASES[name]), *changes])


@pytest.mark.parametrize("name", BASES)
def test_a_large_recipe_fits_on_its_gpus(name: str, tmp_path: Path) -> None:
    """By the estimate, which looks at every phase that trains: none fits on a GPU of 2 GiB."""
    recipe, small = with_bases(name, tmp_path), with_bases(name, tmp_path, "limits.gpu_gib=2")
    training = [phase for phase, settings in recipe.phases.items() if hasattr(settings, "chunk_tokens")]
    assert too_large(recipe, nodes_of(recipe)) == []
    assert {line.split(":")[0] for line in too_large(small, nodes_of(small))} == {f"phases.{phase}" for phase in training}


def test_of_an_encoder_and_the_decoder_behind_it_both_are_counted(tmp_path: Path) -> None:
    recipe = with_bases("lusifer", tmp_path)
    aligned, tuned = (gpu_memory(recipe, nodes_of(recipe), name) for name in ("aligned", "tuned"))
    assert aligned is not None and tuned is not None
    assert 28 * GIB < aligned.weights < tuned.weights, "7.7 billion weights; the decoder's adapters learn in the second stage alone"
    assert 2 * aligned.optimizer < tuned.optimizer
    larger = with_bases("lusifer", tmp_path, "phases.aligned.recompute_layers=false", "phases.aligned.chunk_tokens=65536")
    assert [line.split(":")[0] for line in too_large(larger, nodes_of(larger))] == ["phases.aligned"]


def test_what_does_not_fit_is_refused_with_what_to_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large, small = (smoke(tmp_path, *GPUS, f"limits.gpu_gib={size}") for size in (9, 1))
    memory = gpu_memory(small, nodes_of(small), "tuned")
    assert memory is not None and problems([large]) == []
    wrong = [line for line in problems([small]) if line.startswith("phases.")]
    assert [line.split(":")[0] for line in wrong] == ["phases.adapted", "phases.general", "phases.tuned"]
    assert f"phases.tuned: about {memory.total / GIB:.1f} GiB of each GPU (weights " in wrong[2]
    assert wrong[2].endswith("limits.gpu_gib is 1; right would be recompute: true, recompute_layers: true, or lower chunk_tokens")
    assert print_plan([small], []) == 2 and f"missing: {wrong[0]}" in capsys.readouterr().out
    assert print_plan([large], []) == 0
    (tuned,) = (item for item in plan([small], Store(small.storage)).nodes if item.node.name == "tuned")
    assert _place(tuned, [small]) == f"1 x (1 CPU, 1 GPU with {memory.total / GIB:.0f} GiB)"


def test_a_model_whose_sizes_are_not_at_hand_is_not_estimated(tmp_path: Path) -> None:
    recipe = smoke(
        tmp_path, *GPUS, "limits.gpu_gib=1", "models.e5={from: 'hub:nobody/nothing@" + "0" * 40 + "', pooling: mean, prefixes: e5}"
    )
    assert gpu_memory(recipe, nodes_of(recipe), "tuned") is None
    assert not [line for line in problems([recipe]) if "of each GPU" in line]
