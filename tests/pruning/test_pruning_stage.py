"""The stage on real texts and a small real model: what is read, measured, written and told."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from raysberta.errors import InputError
from raysberta.models.describe import check_loads, describe
from raysberta.models.fetch import fetch
from raysberta.models.head import load_head
from raysberta.models.load import load_encoder
from raysberta.models.settings import Model
from raysberta.pairs.sample import chosen_texts
from raysberta.prefixes import E5
from raysberta.pruning.facts import PruneFacts
from raysberta.pruning.settings import Prune
from raysberta.pruning.stage import run
from raysberta.retrieval.embed import Embedder
from raysberta.schema import PAIR
from raysberta.storage.artifacts import Artifact, Store
from raysberta.work import Work

QUERY = "encoder.layer.{}.attention.self.query.weight"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def pairs_of(store: Store, name: str, rows: list[dict[str, object]]) -> Artifact:
    draft = store.draft("pairs", name)
    draft.write_table("pairs", pa.Table.from_pylist(rows, PAIR))
    return store.commit(draft, "pairs", name, {}, {}, 1, 0.0)


def a_pair(number: int, split: str, language: str, query: str, positive: str) -> dict[str, object]:
    row: dict[str, object] = {**dict.fromkeys(PAIR.names, "x"), "pair_id": f"{number:016x}", "split": split, "task": "retrieval"}
    return {**row, "language": language, "query": query, "positive": positive, "negatives": [], "given_score": None}


@pytest.fixture
def inputs(store: Store, small_folder: Path, russian: list[str], english: list[str]) -> dict[str, Artifact]:
    """A model of three layers, far from those it was drawn with, and pairs of which half are held out."""
    draft = store.draft("model", "base")
    with draft.folder("model") as folder:
        fetch(Model.model_validate({"from": f"path:{small_folder}", "pooling": "mean", "prefixes": "e5", "max_tokens": 40}), folder)
        model, draw = load_encoder(folder), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for number, layer in enumerate(model.encoder.layer):
                for weights in layer.parameters():
                    weights.add_((0.3, 0.05, 0.2)[number] * torch.randn(weights.shape, generator=draw))
        model.save_pretrained(folder)
    base = store.commit(draft, "model", "base", {}, {}, 1, 0.0)
    rows = [a_pair(n, ("train", "dev")[n % 2], "ru", russian[n], russian[n + 60]) for n in range(40)]
    rows += [a_pair(100 + n, "train", "en", english[n], english[n + 60]) for n in range(8)]
    none = [a_pair(0, "dev", "ru", "замок", "дверь")]
    return {"base": base, "natural": pairs_of(store, "natural", rows), "held": pairs_of(store, "held", none)}


def made(store: Store, inputs: dict[str, Artifact], **settings: object) -> tuple[Artifact, PruneFacts]:
    phase = Prune.model_validate({"kind": "prune", "from": "base", **settings})
    draft = store.draft("prune", "made")
    facts = run(Work(phase, inputs, draft, node="thinned"))
    return store.commit(draft, "prune", "made", {}, {}, 1, 0.0, facts), facts


def weights(artifact: Artifact) -> dict[str, torch.Tensor]:
    return load_file(artifact.folder("model") / "model.safetensors")


def test_layers_are_chosen_written_and_told(ray_local: None, store: Store, inputs: dict[str, Artifact]) -> None:
    artifact, facts = made(store, inputs, keep=1, texts=24)
    assert artifact.told(PruneFacts) == facts
    assert [len(removal.similarities) for removal in facts.removals] == [3, 2] and facts.tried() == [0, 1, 2]
    assert facts.texts == 24 and facts.layers_before == 3
    (kept,) = facts.kept
    assert {kept, *(removal.layer for removal in facts.removals)} == {0, 1, 2}
    for removal in facts.removals:
        assert removal.similarities[removal.layer] == max(removal.similarities.values())
    assert facts.similarity == pytest.approx(facts.removals[-1].similarities[facts.removals[-1].layer], abs=1e-6)
    ours, theirs = weights(inputs["base"]), weights(artifact)
    assert torch.equal(theirs[QUERY.format(0)], ours[QUERY.format(kept)]) and QUERY.format(1) not in theirs
    assert facts.parameters_before == sum(tensor.numel() for tensor in ours.values())
    assert facts.parameters_after == sum(tensor.numel() for tensor in theirs.values())
    assert (artifact.manifest.rows_in, artifact.manifest.rows_out) == (3, 1)


def test_the_folder_says_how_it_is_used_and_loads_elsewhere(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact, facts = made(store, inputs, layers=[0, 2], pairs=[])
    assert facts.kept == [0, 2] and facts.similarity is None and facts.removals == [] and facts.texts == 0
    folder, base = artifact.folder("model"), inputs["base"].folder("model")
    assert describe(folder) == describe(base) and describe(folder).max_tokens == 40
    assert (folder / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    check_loads(folder, Embedder(folder, precision="fp32", device="cpu").encode)
    loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    assert len(loaded[0].auto_model.encoder.layer) == 2 and loaded.max_seq_length == 40
    ours, theirs = load_head(base, load_encoder(base)), load_head(folder, load_encoder(folder))
    assert ours.dense is not None
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_all_layers_are_the_model_itself(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact, facts = made(store, inputs, layers=[0, 1, 2], pairs=[])
    ours, theirs = weights(inputs["base"]), weights(artifact)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert facts.parameters_before == facts.parameters_after


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep": 4}, "phases.thinned: keep: 4 layers, base has 3; right would be 1 to 3"),
        ({"layers": [0, 3], "pairs": []}, "phases.thinned: layers: 3 is none of the 3 of base; right would be 0 to 2"),
        (
            {"keep": 2, "pairs": ["held"]},
            "phases.thinned: pairs: 0 training texts in held, 2 or more are needed; "
            "right would be other pairs, or layers: [..] with pairs: []",
        ),
    ],
)
def test_what_cannot_be_is_told_in_one_line(store: Store, inputs: dict[str, Artifact], settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as refused:
        made(store, inputs, **settings)
    assert str(refused.value) == said


def test_texts_are_of_training_and_of_all_languages(inputs: dict[str, Artifact], russian: list[str], english: list[str]) -> None:
    table = inputs["natural"].dataset("pairs")
    texts = chosen_texts([table], E5, 16)
    assert len(set(texts)) == len(texts) == 16
    held = {russian[n] for n in range(1, 40, 2)} | {russian[n + 60] for n in range(1, 40, 2)}
    bare = [text.removeprefix("query: ").removeprefix("passage: ") for text in texts]
    assert not held & set(bare) - set(russian[:40:2]) - set(russian[60:100:2])
    assert sum(text in set(english) for text in bare) == 8
    assert {text.split(":")[0] for text in texts} == {"query", "passage"}
    halves = [table.to_table().slice(30), table.to_table().slice(0, 30)]
    assert chosen_texts([pads.dataset(half) for half in halves], E5, 16) == texts, "whatever the layout"
    rows = table.to_table().filter(pc.field("split") == "train").to_pylist()
    every = {f"query: {row['query']}" for row in rows} | {f"passage: {row['positive']}" for row in rows}
    assert set(chosen_texts([table], E5, 1000)) == every, "of fewer texts all, both sides"
