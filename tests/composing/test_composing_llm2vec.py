"""LLM2Vec's steps on a decoder: the next token predicted masked, one text read twice, instructions left out of the mean."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from composed import a_model
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from decoders import a_decoder, a_tokenizer
from raysberta.errors import InputError
from raysberta.models.describe import check_loads, describe
from raysberta.models.head import FILE
from raysberta.models.language_head import load_language_head
from raysberta.models.load import load_tokenizer, prompt_tokens
from raysberta.models.model import load_model
from raysberta.prefixes import Prefixes
from raysberta.retrieval.embed import Embedder
from raysberta.schema import EXAMPLE
from raysberta.training.arrays import tokens_of
from raysberta.training.chunks import Budget
from raysberta.training.contrastive import ContrastiveModel, make_batch, train_contrastive
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.examples import Examples, prepare_tables
from raysberta.training.masks import IGNORED, mask, pieces_of
from raysberta.training.mlm import MlmModel, train_mlm
from raysberta.training.mlm import make_batch as make_masked
from raysberta.training.settings import Contrastive, Mlm

INSTRUCTED = Prefixes(retrieval_query="Instruct: find what answers\nQuery: ", retrieval_document="", paraphrase="Same meaning: ", topic="")
DECODER: dict[str, Any] = {"prefixes": INSTRUCTED.model_dump(), "pad_token": "</s>", "pooling": "mean", "attention": "bidirectional"}
SHORT: dict[str, Any] = {"from": "llm", "warmup_steps": 1, "precision": "fp32", "chunk_tokens": 96, "learning_rate": 3e-3}
CPU, SEED = torch.device("cpu"), 5


@pytest.fixture(scope="module", params=[True, False], ids=["one table", "a head of its own"])
def language_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, english: list[str]) -> Path:
    """A Llama whose head is its embeddings, or is not."""
    folder = tmp_path_factory.mktemp("lm")
    torch.manual_seed(3)
    config = a_decoder("llama", tie_word_embeddings=request.param, initializer_range=0.2)  # so that its logits differ
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    a_tokenizer(english[::2]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llm(generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("llm") / "model", None, generator, include_prompt=False, **DECODER)


def mntp(**settings: Any) -> Mlm:
    given = {"kind": "mlm", "next_token": True, "mask_token": "_", "batch_size": 16, "steps": 4, "mask_probability": 0.4, **SHORT}
    return Mlm.model_validate({**given, **settings})


def test_the_loss_is_that_of_the_language_model_on_masked_text(language_model: Path, english: list[str], tmp_path: Path) -> None:
    """Its own class shifts labels; ours predicts from the state before, in chunks, without it."""
    folder = a_model(tmp_path / "model", None, language_model, **DECODER)
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    texts = tokens_of(tokenizer(english[:12])["input_ids"])
    pieces, rows, draw = pieces_of(tokenizer, mask_token="_"), np.arange(12), (SEED, 0, 1)
    assert pieces.mask == tokenizer.convert_tokens_to_ids("_") and pieces.mask in pieces.special
    batch = make_masked(texts, rows, pieces, 0.5, draw, Budget(60, 1), next_token=True)
    head = load_language_head(folder, model.encoder, "next_token")
    own = MlmModel(ChunkedEncoder(model, "fp32", recompute=False), head)
    parts = [texts[row] for row in rows]
    read, labels = mask(np.concatenate(parts), pieces, 0.5, np.random.default_rng(draw))
    cuts = np.cumsum([len(part) for part in parts])[:-1]
    whole = LlamaForCausalLM.from_pretrained(language_model).eval()
    whole.config.is_causal = False
    summed, count = torch.zeros(()), 0
    for ids, wanted in zip(np.split(read, cuts), np.split(labels, cuts), strict=True):
        here = int((wanted[1:] != IGNORED).sum())
        if here:
            with torch.no_grad():
                found = whole(input_ids=torch.from_numpy(ids)[None], labels=torch.from_numpy(wanted)[None]).loss
            summed, count = summed + here * found, count + here
    assert count == len(batch.labels) > 20
    assert own(batch).item() == pytest.approx(summed.item() / count, rel=1e-5)


def test_it_learns_by_adapters_and_the_head_stays(language_model: Path, english: list[str], tmp_path: Path) -> None:
    folder = a_model(tmp_path / "model", None, language_model, **DECODER)
    tied = not (folder / FILE).exists()
    assert tied == LlamaForCausalLM.from_pretrained(language_model).config.tie_word_embeddings
    texts = tokens_of(load_tokenizer(folder)(english[:64], truncation=True, max_length=64)["input_ids"])
    phase = mntp(lora={"rank": 4, "alpha": 16}, steps=24, learning_rate=1e-2)
    curve = train_mlm(phase, folder, texts, tmp_path / "trained", seed=SEED, checkpoints=tmp_path)
    assert np.mean([point["loss"] for point in curve[-6:]]) < np.mean([point["loss"] for point in curve[:6]]) - 0.2
    before, after = load_model(folder).state_dict(), load_model(tmp_path / "trained").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.endswith("_proj.weight") for name in changed), "adapters are of the layers; neither table nor norms move"
    assert describe(tmp_path / "trained") == describe(folder) and not (tmp_path / "trained" / FILE).exists()


def test_a_resumed_run_is_the_same(generator: Path, english: list[str], tmp_path: Path) -> None:
    folder = a_model(tmp_path / "model", None, generator, **DECODER)
    texts = tokens_of(load_tokenizer(folder)(english[:64], truncation=True, max_length=64)["input_ids"])
    phase = mntp(checkpoint_every=2)
    train_mlm(phase, folder, texts, tmp_path / "whole", seed=SEED, checkpoints=tmp_path)
    train_mlm(phase, folder, texts, tmp_path / "resumed", seed=SEED, resume=tmp_path / "step-00000002")
    whole, resumed = (load_model(tmp_path / name).state_dict() for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], weights) for name, weights in resumed.items())


def test_what_cannot_predict_so_is_named(generator: Path, encoder: Path, english: list[str], tmp_path: Path) -> None:
    causal = a_model(tmp_path / "causal", None, generator, **{**DECODER, "attention": "causal"})
    texts = tokens_of(load_tokenizer(causal)(english[:32])["input_ids"])
    with pytest.raises(InputError, match=r"next_token: what reads tokens is of type llama, and is not .* attention: bidirectional"):
        train_mlm(mntp(), causal, texts, None, seed=SEED)
    with pytest.raises(InputError, match="next_token: what reads tokens is of type bert"):
        train_mlm(mntp(mask_token=None), encoder, tokens_of(load_tokenizer(encoder)(english[:32])["input_ids"]), None, seed=SEED)
    with pytest.raises(InputError, match="mask_token: the tokenizer has no token of that kind; right would be mask_token: <one of"):
        train_mlm(mntp(mask_token=None), causal, texts, None, seed=SEED)
    with pytest.raises(InputError, match="mask_token: the tokenizer has no '<mask>'"):
        train_mlm(mntp(mask_token="<mask>"), causal, texts, None, seed=SEED)
    with pytest.raises(ValueError, match="retromae and next_token: one is for encoders"):
        mntp(retromae={})


def a_table(pairs: list[tuple[str, str]], task: str) -> pa.Table:
    same = {"source": "s", "kind": "text", "task": task, "split": "train", "language": "en", "doc_id": "d", "negatives": []}
    scores = {"negative_scores": [], "negative_ranks": [], "positive_score": None}
    rows = [
        {**same, **scores, "pair_id": f"{number:016x}", "group": f"{number}", "query": query, "positive": positive}
        for number, (query, positive) in enumerate(pairs)
    ]
    return pa.Table.from_pylist(rows, EXAMPLE)


@pytest.fixture(scope="module")
def twice(llm: Path, english: list[str]) -> Examples:
    """Texts paired with themselves."""
    texts = [(text, text) for text in english[:40]]
    return prepare_tables([a_table(texts, "paraphrase")], load_tokenizer(llm), describe(llm).prefixes, 24, 24, 0)


def contrastive(**settings: Any) -> Contrastive:
    given = {"kind": "contrastive", "examples": ["mined"], "batch_size": 8, "negatives": 0, "temperature": 0.05, "steps": 2, **SHORT}
    return Contrastive.model_validate({**given, **settings})


def test_a_text_paired_with_itself_is_read_twice(llm: Path, twice: Examples) -> None:
    """SimCSE: the loss is that of two matrices of vectors, which differ by dropout alone, and fall together without it."""
    settings = contrastive()
    batch = make_batch(twice, [np.arange(8)], settings, CPU)
    (part,) = batch.batches
    assert len(batch.rows) == 16 and not set(part.queries.tolist()) & set(part.documents.tolist())
    chunked = ChunkedEncoder(load_model(llm, dropout=0.3), "fp32", recompute=False).train()
    torch.manual_seed(0)
    vectors = chunked.embed(batch.chunks)[batch.rows]
    left, right = vectors[part.queries], vectors[part.documents]
    cosines = (left * right).sum(1)
    assert 0.2 < cosines.min() < cosines.max() < 0.9999, "the readings differ"
    expected = F.cross_entropy(left @ right.T / settings.temperature, torch.arange(8))
    torch.manual_seed(0)
    assert ContrastiveModel(chunked, settings)(batch).item() == pytest.approx(expected.item(), rel=1e-5)
    vectors = chunked.eval().embed(batch.chunks)[batch.rows]
    assert (vectors[part.queries] - vectors[part.documents]).abs().max() < 1e-6


def test_it_is_trained_under_dropout_and_refused_without(llm: Path, twice: Examples, tmp_path: Path) -> None:
    curve = train_contrastive(contrastive(dropout=0.3, steps=6), llm, twice, tmp_path / "model", seed=SEED)
    assert all(np.isfinite(point["loss"]) and point["gradient_norm"] > 0 for point in curve)
    train_contrastive(contrastive(lora={"dropout": 0.1}), llm, twice, None, seed=SEED)
    with pytest.raises(InputError, match=r"dropout: pairs of s/text are of a text with itself, .*; right would be dropout: 0.1"):
        train_contrastive(contrastive(), llm, twice, None, seed=SEED)


def test_prompts_are_counted_as_sentence_transformers_counts_them(llm: Path, encoder: Path) -> None:
    for folder in (llm, encoder):
        loaded, tokenizer = SentenceTransformer(str(folder), device="cpu"), load_tokenizer(folder)
        for prompt in INSTRUCTED.named_prompts().values():
            assert prompt_tokens(tokenizer, prompt) == (loaded[0]._get_prompt_length(prompt) if prompt else 0)


def test_a_mean_without_the_instruction_is_one_everywhere(llm: Path, english: list[str]) -> None:
    """The folder in sentence-transformers, our embedder, and training, from texts to vectors."""
    assert not describe(llm).include_prompt
    embedder, texts = Embedder(llm, precision="fp32", device="cpu"), [*english[:12], "a"]
    assert check_loads(llm, embedder.encode)[0] < 1e-5
    prompt = INSTRUCTED.retrieval_query
    vectors = embedder.encode([prompt + text for text in texts])
    plain = SentenceTransformer(str(llm), device="cpu")
    for side in ("left", "right"):
        plain.tokenizer.padding_side = side
        assert np.abs(plain.encode(texts, prompt_name="search_query", batch_size=13) - vectors).max() < 1e-5
    model, tokenizer = load_model(llm), load_tokenizer(llm)
    ids, before = tokenizer(prompt + texts[0], return_tensors="pt")["input_ids"], prompt_tokens(tokenizer, prompt)
    with torch.no_grad():
        states = model.encoder(input_ids=ids).last_hidden_state[0]
    assert before > 5 and np.abs(F.normalize(states[before:].mean(0), dim=0).numpy() - vectors[0]).max() < 1e-6
    with_prompt = F.normalize(states.mean(0), dim=0).numpy()
    assert np.abs(with_prompt - vectors[0]).max() > 1e-3, "that it is left out is seen"
    examples = prepare_tables([a_table([(text, f"{text}.") for text in texts], "retrieval")], tokenizer, INSTRUCTED, 128, 128, 0)
    batch = make_batch(examples, [np.arange(len(texts))], contrastive(), CPU)
    found = ChunkedEncoder(model, "fp32", recompute=False).embed(batch.chunks)[batch.rows].detach().numpy()
    assert np.abs(found[batch.batches[0].queries] - vectors).max() < 1e-5
    assert np.abs(found[batch.batches[0].documents] - embedder.encode([f"{text}." for text in texts])).max() < 1e-5


def test_an_instruction_is_left_out_behind_a_connector_too(encoder: Path, generator: Path, english: list[str], tmp_path: Path) -> None:
    """The connector lengthens a text; what is left out are its first states still. What follows a phase keeps it."""
    settings = {"connector": {"tokens": 2}, "attention": "bidirectional", "include_prompt": False, "dense": [{"width": 6}]}
    folder = a_model(tmp_path / "joined", encoder, generator, **settings)
    embedder = Embedder(folder, precision="fp32", device="cpu")
    assert check_loads(folder, embedder.encode)[0] < 1e-5
    loaded = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    for name in ("search_query", "search_document"):
        expected = loaded.encode(english[:9], prompt_name=name, batch_size=9)
        assert np.abs(embedder.encode([loaded.prompts[name] + text for text in english[:9]]) - expected).max() < 1e-5
    table = a_table([(text, f"{text}?") for text in english[:16]], "retrieval")
    examples = prepare_tables([table], load_tokenizer(folder), describe(folder).prefixes, 24, 24, 0)
    train_contrastive(contrastive(), folder, examples, tmp_path / "trained", seed=SEED)
    assert not describe(tmp_path / "trained").include_prompt and not load_model(tmp_path / "trained").include_prompt
