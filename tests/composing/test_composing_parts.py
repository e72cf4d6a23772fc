"""Models of several parts in training: gradients, what learns and what does not, resuming, what is written in the end."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from composed import a_model
from safetensors.torch import load_file

from raysberta.errors import InputError
from raysberta.merging.merge import Start, merge
from raysberta.models.describe import check_loads, describe
from raysberta.models.load import load_tokenizer
from raysberta.models.model import Model, load_model
from raysberta.retrieval.embed import Embedder
from raysberta.schema import EXAMPLE
from raysberta.training.arrays import Tokens, tokens_of
from raysberta.training.chunks import Budget, Chunks, make_chunks, plan_chunks
from raysberta.training.contrastive import train_contrastive
from raysberta.training.distil import train_distil
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.examples import Examples, prepare_tables
from raysberta.training.mlm import train_mlm
from raysberta.training.settings import Contrastive, Distil, Mlm
from raysberta.training.teacher import Lessons
from raysberta.tuning.learned import Positions

FOUR: dict[str, Any] = {
    "connector": {"tokens": 2},
    "attention": "bidirectional",
    "latent_attention": {"latents": 4, "heads": 2, "head_width": 8},
    "pooling": "mean",
    "dense": [{"activation": "Tanh"}],
}
SHORT: dict[str, Any] = {
    "from": "joined",
    "steps": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 1,
    "precision": "fp32",
    "chunk_tokens": 64,
    "checkpoint_every": 2,
    "recompute": True,
}
SEED = 7


@pytest.fixture(scope="module")
def joined(encoder: Path, generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, a connector, a decoder, latent attention and a dense layer."""
    return a_model(tmp_path_factory.mktemp("four") / "model", encoder, generator, **FOUR)


@pytest.fixture(scope="module")
def table(english: list[str], russian: list[str]) -> pa.Table:
    sides = [(english[number], english[number + 1], [russian[number]]) for number in range(0, 48, 2)]
    same = {"source": "s", "kind": "k", "task": "retrieval", "split": "train", "language": "en", "doc_id": "d"}
    rows = [
        {**same, "pair_id": f"{number:016x}", "group": f"{number}", "query": query, "positive": positive, "negatives": negatives}
        for number, (query, positive, negatives) in enumerate(sides)
    ]
    return pa.Table.from_pylist([{**row, "negative_scores": [0.1], "negative_ranks": [3], "positive_score": 0.9} for row in rows], EXAMPLE)


@pytest.fixture(scope="module")
def examples(table: pa.Table, joined: Path) -> Examples:
    return prepare_tables([table], load_tokenizer(joined), describe(joined).prefixes, 24, 24, 1)


def contrastive(**settings: Any) -> Contrastive:
    given = {"kind": "contrastive", "examples": ["mined"], "batch_size": 8, "negatives": 1, "temperature": 0.1, **SHORT}
    return Contrastive.model_validate({**given, **settings})


def ragged_texts(count: int = 9) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [np.concatenate([[0], draw.integers(4, 900, length), [2]]) for length in draw.integers(1, 18, count)]


def chunks_of(texts: list[np.ndarray], tokens: int) -> Chunks:
    return make_chunks(texts, plan_chunks(np.asarray([len(text) for text in texts]), Budget(tokens, 1)))


def loss(vectors: torch.Tensor) -> torch.Tensor:
    """Neighbours pulled together, others pushed apart: every vector has a gradient."""
    return sum((5 * (1 - first @ second) for first, second in pairwise(vectors)), (vectors @ vectors.T).exp().mean())


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name.removeprefix("model."): weights.grad for name, weights in model.named_parameters() if weights.grad is not None}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layers", [False, True])
def test_gradients_in_chunks_are_those_of_each_text_alone(joined: Path, packed: bool, layers: bool) -> None:
    """In float64 through all parts; the decoder's norms and turns are in float32 whatever the rest is in."""
    texts = ragged_texts()
    plain = load_model(joined).double()
    each = [torch.from_numpy(text)[None] for text in texts]
    vectors = F.normalize(torch.cat([plain(torch.ones_like(ids), input_ids=ids) for ids in each]), dim=-1)
    loss(vectors).backward()
    wanted = gradients(plain)
    assert {name.split(".")[0] + name.split(".")[1] for name in wanted} >= {"parts0", "parts1", "parts2", "dense0"}
    chunked = ChunkedEncoder(load_model(joined).double(), "fp32", recompute=True, packed=packed, recompute_layers=layers)
    chunks = chunks_of(texts, 40)
    assert len(chunks.chunks) > 2
    found = chunked.embed(chunks)
    loss(found).backward()
    assert torch.allclose(found, vectors, atol=1e-6)
    ours = gradients(chunked)
    assert ours.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (ours[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max() + 1e-12, name


def test_recomputing_gives_the_same_bits_with_dropout(joined: Path) -> None:
    """Encoder, decoder and all between them are read again under the dropout of the first time."""
    found = []
    for recompute in (False, True):
        chunked = ChunkedEncoder(load_model(joined, dropout=0.2).double(), "fp32", recompute).train()
        torch.manual_seed(1)
        vectors = chunked.embed(chunks_of(ragged_texts(), 40))
        loss(vectors).backward()
        found.append((vectors.detach(), gradients(chunked)))
    (first, wanted), (again, ours) = found
    assert torch.equal(first, again) and all(torch.equal(ours[name], gradient) for name, gradient in wanted.items())


def test_chunks_padding_and_batch_mates_change_no_vector(joined: Path) -> None:
    texts = ragged_texts(14)
    alone = torch.cat([ChunkedEncoder(load_model(joined), "fp32", False, packed=False).embed(chunks_of([text], 64)) for text in texts])
    for packed in (False, True):
        chunked = ChunkedEncoder(load_model(joined), "fp32", recompute=False, packed=packed)
        for tokens in (20, 60, 10_000):
            assert (chunked.embed(chunks_of(texts, tokens)) - alone).abs().max() < 1e-5
            assert (chunked.embed(chunks_of(texts[::-1], tokens)).flip(0) - alone).abs().max() < 1e-5


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).state_dict()


def moved(before: Path, after: Path) -> set[str]:
    """Parts of which anything changed."""
    names = {"encoder": "encoder", "parts.0": "connector", "parts.1": "decoder", "parts.2": "latent_attention", "dense.0": "dense"}
    first, second = state(before), state(after)
    assert first.keys() == second.keys()
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    return {part for start, part in names.items() if any(name.startswith(f"{start}.") for name in changed)}


EVERY = {"encoder", "connector", "decoder", "latent_attention", "dense"}
LORA = {"rank": 2, "alpha": 8}


@pytest.mark.parametrize(
    ("settings", "learn"),
    [
        ({}, EVERY),
        ({"parts": {"encoder": "frozen", "latent_attention": "frozen"}}, {"connector", "decoder", "dense"}),
        ({"lora": LORA}, EVERY),
        ({"lora": LORA, "parts": {"decoder": "frozen"}}, EVERY - {"decoder"}),
        ({"lora": LORA, "parts": dict.fromkeys(("encoder", "connector", "latent_attention", "dense"), "frozen")}, {"decoder"}),
    ],
    ids=["whole", "two frozen", "adapters", "decoder frozen", "decoder alone"],
)
def test_that_alone_learns_which_is_said_and_a_resumed_run_is_the_same(
    joined: Path, examples: Examples, tmp_path: Path, settings: dict[str, Any], learn: set[str]
) -> None:
    phase = contrastive(**settings)
    curve = train_contrastive(phase, joined, examples, tmp_path / "whole", seed=SEED, checkpoints=tmp_path / "kept")
    assert len(curve) == 4 and all(np.isfinite(point["loss"]) for point in curve)
    assert moved(joined, tmp_path / "whole") == learn
    assert moved(joined, tmp_path / "kept" / "step-00000002" / "model") == learn
    train_contrastive(phase, joined, examples, tmp_path / "resumed", seed=SEED, resume=tmp_path / "kept" / "step-00000002")
    whole, resumed = state(tmp_path / "whole"), state(tmp_path / "resumed")
    assert all(torch.equal(whole[name], weights) for name, weights in resumed.items())
    if "lora" in settings and "decoder" in learn:
        name = "parts.1.model.layers.1.mlp.down_proj.weight"
        values = torch.linalg.svdvals((whole[name] - state(joined)[name]).double())
        assert values[0] > 0 and values[2] < 1e-3 * values[0], "a change of rank 2"
        assert torch.equal(whole["parts.1.model.norm.weight"], state(joined)["parts.1.model.norm.weight"])
    embedder = Embedder(tmp_path / "whole", precision="fp32", device="cpu")
    assert check_loads(tmp_path / "whole", embedder.encode)[0] < 1e-5


def test_losses_fall_and_the_written_model_is_the_trained_one(joined: Path, examples: Examples, tmp_path: Path) -> None:
    phase = contrastive(steps=24, freeze_embeddings=True, learning_rate=1e-3)
    curve = train_contrastive(phase, joined, examples, tmp_path / "model", seed=SEED)
    assert np.mean([point["loss"] for point in curve[-4:]]) < np.mean([point["loss"] for point in curve[:4]]) - 0.3
    table = "encoder.embeddings.word_embeddings.weight"
    assert torch.equal(state(tmp_path / "model")[table], state(joined)[table])
    again = train_contrastive(contrastive(steps=1, learning_rate=1e-12), tmp_path / "model", examples, None, seed=SEED)
    assert again[0]["loss"] < curve[0]["loss"] - 0.3


def test_a_student_of_parts_learns_vectors_of_a_teacher(joined: Path, examples: Examples, tmp_path: Path) -> None:
    teacher = np.random.default_rng(0).normal(size=(len(examples.tokens), 10)).astype(np.float16)
    lessons = Lessons(examples.tokens, np.arange(len(teacher)))
    given = {"kind": "distil", "teacher": "t", "batch_size": 16, **SHORT, "steps": 12, "parts": {"encoder": "frozen"}}
    curve = train_distil(Distil.model_validate(given), joined, lessons, teacher, tmp_path / "model", seed=SEED)
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.02
    assert moved(joined, tmp_path / "model") == EVERY - {"encoder"}


def texts_of(examples: Examples) -> Tokens:
    return tokens_of(examples.tokens[place].tolist() for place in range(len(examples.tokens)))


def test_masked_words_train_what_reads_them_and_leave_the_rest(joined: Path, examples: Examples, tmp_path: Path) -> None:
    phase = Mlm.model_validate({"kind": "mlm", "batch_size": 16, **SHORT})
    train_mlm(phase, joined, texts_of(examples), tmp_path / "model", seed=SEED, checkpoints=tmp_path / "kept")
    assert moved(joined, tmp_path / "model") == moved(joined, tmp_path / "kept" / "step-00000002" / "model") == {"encoder"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"parts": {"decoder": "frozen"}}, "parts.decoder: the model has none; there are encoder"),
        ({"parts": {"encoder": "frozen"}}, "parts: nothing is left to train; right would be one of encoder that is not frozen"),
        (
            {"lora": {"targets": ["q_proj"]}},
            r"lora\.targets: no layer of the encoder has such a name; there are dense, .*, or parts.encoder",
        ),
    ],
)
def test_parts_that_are_not_there_are_named(encoder: Path, examples: Examples, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train_contrastive(contrastive(**settings), encoder, examples, None, seed=SEED)


def test_what_a_phase_does_not_read_is_not_trained_by_it(joined: Path, examples: Examples) -> None:
    phase = {"kind": "mlm", "batch_size": 16, **SHORT}
    with pytest.raises(InputError, match=r"parts\.connector: this phase does not read it; there are encoder"):
        train_mlm(Mlm.model_validate({**phase, "parts": {"connector": "trained"}}), joined, texts_of(examples), None, seed=SEED)
    with pytest.raises(InputError, match=r"retromae: .* this model has connector, decoder, latent_attention, dense behind it"):
        train_mlm(Mlm.model_validate({**phase, "retromae": {}}), joined, texts_of(examples), None, seed=SEED)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"parts": {"decoder": "lora"}}, r"parts\.decoder: nothing says how large adapters are; right would be lora: \{rank"),
        (
            {"lora": {}, "parts": {"dense": "lora"}},
            r"parts\.dense: adapters are for an encoder or a decoder; right would be trained or frozen",
        ),
        ({"parts": {"llm": "frozen"}}, r"parts\.llm"),
    ],
)
def test_settings_that_say_no_freedom_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        contrastive(**settings)


def test_a_checkpoint_of_other_parts_is_refused(joined: Path, encoder: Path, examples: Examples, tmp_path: Path) -> None:
    train_contrastive(contrastive(), joined, examples, None, seed=SEED, checkpoints=tmp_path)
    with pytest.raises(InputError, match="step-00000002: its weights do not fit this model"):
        train_contrastive(contrastive(), encoder, examples, None, seed=SEED, resume=tmp_path / "step-00000002")


def test_a_decoder_that_is_given_states_looks_nothing_up(joined: Path, examples: Examples, tmp_path: Path) -> None:
    """Its own table is neither trained nor given moments."""
    train_contrastive(contrastive(), joined, examples, None, seed=SEED, checkpoints=tmp_path)
    moments = load_file(tmp_path / "step-00000002" / "moments.safetensors")
    assert not [name for name in moments if "embed_tokens" in name] and any("parts.1.model.layers.0" in name for name in moments)


def test_weights_of_a_merge_are_learned_over_all_parts(joined: Path, encoder: Path, generator: Path, tmp_path: Path) -> None:
    """The position at which a loss is taken is the merge that is then written."""
    folders = [a_model(tmp_path / str(seed), encoder, generator, seed=seed, **FOUR) for seed in (1, 2)]
    done = merge(folders, tmp_path / "merged", [0.7, 0.3], "linear", "all", Start(joined, 0.9))
    model = load_model(folders[0])
    states = [{name: each.detach().clone() for name, each in load_model(folder).named_parameters()} for folder in (joined, *folders)]
    positions = Positions(model, model, states[0], states[1:], "linear")
    positions.move(torch.tensor(done.factors, dtype=torch.float64))
    for name, weights in load_model(tmp_path / "merged").named_parameters():
        assert torch.allclose(weights, positions.parameters[name], atol=1e-5), name
    assert isinstance(model, Model)
