"""The stage on a small real model: what it reads, what the layer does, and what it tells."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sentence_transformers import SentenceTransformer

from raysberta.centring.facts import CentreFacts
from raysberta.centring.settings import Centre
from raysberta.centring.stage import run
from raysberta.errors import InputError
from raysberta.models.describe import check_loads, describe
from raysberta.models.fetch import fetch
from raysberta.models.settings import Model
from raysberta.pairs.sample import chosen_texts
from raysberta.publishing.export import export
from raysberta.retrieval.embed import Embedder
from raysberta.schema import PAIR
from raysberta.storage.artifacts import Artifact, Store
from raysberta.work import Work
from recording import RECORDED, Recording, read

pytestmark = pytest.mark.usefixtures("ray_local")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def inputs(store: Store, small_folder: Path, russian: list[str], english: list[str]) -> dict[str, Artifact]:
    draft = store.draft("model", "base")
    with draft.folder("model") as folder:
        fetch(Model.model_validate({"from": f"path:{small_folder}", "pooling": "mean", "prefixes": "e5", "max_tokens": 40}), folder)
    base = store.commit(draft, "model", "base", {}, {}, 1, 0.0)
    rows: list[dict[str, object]] = [
        {
            **dict.fromkeys(PAIR.names, "x"),
            **{"pair_id": f"{number:016x}", "split": ("train", "train", "dev")[number % 3], "task": "retrieval", "language": language},
            **{"query": words[number], "positive": words[number + 60], "negatives": [], "given_score": None},
        }
        for number in range(30)
        for language, words in (("ru", russian), ("en", english))
    ]
    draft = store.draft("pairs", "natural")
    draft.write_table("pairs", pa.Table.from_pylist(rows, PAIR))
    return {"base": base, "natural": store.commit(draft, "pairs", "natural", {}, {}, 1, 0.0)}


def made(store: Store, inputs: dict[str, Artifact], name: str, **settings: object) -> tuple[Path, CentreFacts]:
    draft = store.draft("centre", name)
    facts = run(Work(Centre.model_validate({"kind": "centre", "from": "base", **settings}), inputs, draft, node="centred"))
    return store.commit(draft, "centre", name, {}, {}, 1, 0.0, facts).folder("model"), facts


def test_vectors_are_less_a_share_of_their_mean(store: Store, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    base = inputs["base"].folder("model")
    whole, all_of_it = made(store, inputs, "all", share=1.0)
    part, some_of_it = made(store, inputs, "part", share=0.5, texts=30)
    plain = Embedder(base, precision="fp32", device="cpu")
    for folder, facts, share, most in ((whole, all_of_it, 1.0, 1024), (part, some_of_it, 0.5, 30)):
        texts = chosen_texts([inputs["natural"].dataset("pairs")], describe(base).prefixes, most)
        assert 20 < facts.texts == len(texts) <= most
        raw = plain.encode(texts, normalised=False)
        moved = raw - share * raw.mean(0)
        expected = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        assert np.abs(Embedder(folder, precision="fp32", device="cpu").encode(texts) - expected).max() < 1e-5
        cosines = (expected @ expected.T)[np.triu_indices(len(texts), 1)]
        assert facts.cosine_after == pytest.approx(cosines.mean(), abs=1e-4)
        assert facts.cosine_before > facts.cosine_after
        assert describe(folder) == describe(base)
    published = export(part, tmp_path / "published")
    theirs = SentenceTransformer(str(tmp_path / "published"), device="cpu")
    assert published.difference < 1e-5 and len(theirs) == 4
    texts = ["query: замок", "passage: дверь"]
    assert (
        np.abs(theirs.encode(texts, normalize_embeddings=True) - Embedder(part, precision="fp32", device="cpu").encode(texts)).max() < 1e-5
    )
    assert check_loads(part, Embedder(part, precision="fp32", device="cpu").encode)[0] < 1e-5


def test_a_centred_model_can_be_centred_again(store: Store, inputs: dict[str, Artifact]) -> None:
    once, _ = made(store, inputs, "once", share=0.5)
    draft = store.draft("model", "again")
    with draft.folder("model") as folder:
        fetch(Model.model_validate({"from": f"path:{once}"}), folder)
    again = {**inputs, "base": store.commit(draft, "model", "again", {}, {}, 1, 0.0)}
    twice, facts = made(store, again, "twice", share=1.0)
    whole, _ = made(store, inputs, "whole", share=1.0)
    texts = ["query: замок", "passage: дверь и ключ", "passage: the sum of all"]
    left, right = (Embedder(folder, precision="fp32", device="cpu").encode(texts) for folder in (twice, whole))
    assert np.abs(left - right).max() < 1e-4, "what is left of the mean after half of it is taken away in the second step"
    assert abs(facts.cosine_after) < 0.1


def test_a_mean_of_no_texts_names_the_pairs(store: Store, inputs: dict[str, Artifact]) -> None:
    draft = store.draft("pairs", "none")
    draft.write_table("pairs", pa.Table.from_pylist([], PAIR))
    none = {**inputs, "natural": store.commit(draft, "pairs", "none", {}, {}, 1, 0.0)}
    with pytest.raises(InputError, match=r"phases\.centred: pairs: 0 training texts in natural, 2 or more are needed"):
        made(store, none, "nothing")


def test_the_stage_reads_what_identity_knows_of(store: Store, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    phase = Centre.model_validate({"kind": "centre", "from": "base"})
    Recording(run, str(tmp_path / "centre.reads"))(Work(phase, inputs, store.draft("centre", "recorded"), node="centred"))
    assert read(tmp_path)["centre"] == json.loads(RECORDED.read_text(encoding="utf-8"))["centre"]
