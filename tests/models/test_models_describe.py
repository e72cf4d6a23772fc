"""What folders say of their use: ours there and back, those of others, and what says too little."""

import json
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from mteb.mocks.mock_tasks import MockMultilingualClusteringFastTask, MockRetrievalTask, MockSTSTask
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from transformers import ModernBertConfig, ModernBertModel, RobertaConfig, RobertaModel

from raysberta.errors import InputError
from raysberta.models.describe import PROMPTS, Description, check_loads, describe, positions, prompts, write_description
from raysberta.models.fetch import fetch
from raysberta.models.settings import Model
from raysberta.prefixes import E5, NOMIC, NONE, Prefixes
from raysberta.retrieval.embed import Embedder
from small_models import bpe

TASKS = (
    (MockRetrievalTask(), {"search_query: ", "search_document: "}),
    (MockSTSTask(), {"classification: "}),
    (MockMultilingualClusteringFastTask(), {"clustering: "}),
)
TEXTS = ["замок", "устройство, которое запирает дверь", "Sort an array in place."]
OWN = Description("mean", NOMIC, 64)


def fp32(folder: Path) -> Embedder:
    return Embedder(folder, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def own(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("described") / "model"
    fetch(Model.model_validate({"from": f"path:{small_folder}", "pooling": "mean", "prefixes": "nomic"}), folder)
    return folder


def change(folder: Path, name: str, **values: Any) -> None:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")


@pytest.fixture
def foreign(small_folder: Path, tmp_path: Path) -> Path:
    """As the installed sentence-transformers saves a model whose prompts nobody set."""
    module = Transformer(str(small_folder), max_seq_length=48)
    SentenceTransformer(modules=[module, Pooling(16, pooling_mode="cls"), Normalize()], device="cpu").save(str(tmp_path / "foreign"))
    return tmp_path / "foreign"


CLASSES = Prefixes(paraphrase="paraphrase: ", classification="categorize: ")


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_what_is_written_is_read_and_loads_with_its_head_beside_it(own: Path, tmp_path: Path, pooling: Any) -> None:
    described = Description(pooling, Prefixes(retrieval_query="q: ", retrieval_document="", paraphrase="p ", topic="т: "), 40)
    folder = tmp_path / "model"
    fetch(Model.model_validate({"from": f"path:{own}"}), folder)
    assert describe(folder) == OWN and (folder / "mlm_head.safetensors").is_file()
    write_description(folder, described)
    assert describe(folder) == described
    assert check_loads(folder, fp32(folder).encode)[0] < 1e-5
    loaded = SentenceTransformer(str(folder), device="cpu")
    assert loaded.max_seq_length == 40 and loaded.similarity_fn_name == "cosine"


def test_prefixes_that_are_nothing_come_back(own: Path, tmp_path: Path) -> None:
    fetch(Model.model_validate({"from": f"path:{own}", "prefixes": "none", "pooling": "last"}), tmp_path)
    assert describe(tmp_path) == Description("last", NONE, 64)


def test_the_real_model_agrees_with_sentence_transformers(e5_folder: Path) -> None:
    assert describe(e5_folder) == Description("mean", E5, 512)
    difference, parameters = check_loads(e5_folder, fp32(e5_folder).encode)
    assert 0 <= difference <= 1e-5 and parameters > 100_000_000


def test_queries_and_documents_have_their_prompts(own: Path) -> None:
    loaded, encode = SentenceTransformer(str(own), device="cpu"), fp32(own).encode
    assert np.abs(loaded.encode_query(TEXTS) - encode(["search_query: " + text for text in TEXTS])).max() < 1e-5
    assert np.abs(loaded.encode_document(TEXTS) - encode(["search_document: " + text for text in TEXTS])).max() < 1e-5


def test_mteb_finds_the_prompts_of_the_loaded_model(own: Path) -> None:
    loaded, seen = SentenceTransformer(str(own), device="cpu"), []
    tokenize = loaded[0].preprocess

    def recording(inputs: list[str], *args: object, **kwargs: object) -> dict:
        prompt = kwargs.get("prompt") or ""
        seen.extend(f"{prompt}{text}" for text in inputs)
        return tokenize(inputs, *args, **kwargs)

    loaded[0].preprocess = recording
    for task, prefixes in TASKS:
        seen.clear()
        mteb.evaluate(loaded, task, cache=None, co2_tracker=False, show_progress_bar=False)
        assert seen and {prefix for prefix in prefixes if any(text.startswith(prefix) for text in seen)} == prefixes
        assert all(any(text.startswith(prefix) for prefix in prefixes) for text in seen)


def test_a_folder_that_does_not_agree_is_found(own: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    fetch(Model.model_validate({"from": f"path:{own}"}), folder)
    encode = fp32(folder).encode
    switches = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    change(folder, "1_Pooling/config.json", **switches)
    with pytest.raises(RuntimeError, match="model: prompt search_query differs by"):
        check_loads(folder, encode)
    write_description(folder, OWN)
    change(folder, PROMPTS, prompts=NOMIC.named_prompts())
    with pytest.raises(RuntimeError, match="did not come back from the folder: Retrieval-query"):
        check_loads(folder, encode)


def test_the_layout_of_the_installed_library_is_read(foreign: Path) -> None:
    assert describe(foreign, prefixes=E5) == Description("cls", E5, 48)
    with pytest.raises(InputError, match=r"says nothing of its prompts; right would be to name prefixes: under models\.mine"):
        describe(foreign, model="mine")
    change(foreign, PROMPTS, prompts={"query": "q: ", "document": ""})
    theirs = SentenceTransformer(str(foreign), device="cpu", model_kwargs={"dtype": "float32"}).encode(TEXTS)
    assert np.abs(fp32(foreign).encode(TEXTS) - theirs).max() < 1e-5


@pytest.mark.parametrize(
    ("named", "default", "expected"),
    [
        ({"query": "query: ", "document": ""}, None, Prefixes(retrieval_query="query: ", retrieval_document="", paraphrase="", topic="")),
        (NOMIC.named_prompts(), None, NOMIC),
        (CLASSES.named_prompts(), None, CLASSES),
        (prompts(CLASSES), None, CLASSES),
        (
            {"query": "task: search result | query: ", "document": "title: none | text: ", "STS": "similar: ", "Clustering": "cluster: "},
            None,
            Prefixes(
                retrieval_query="task: search result | query: ",
                retrieval_document="title: none | text: ",
                paraphrase="similar: ",
                topic="cluster: ",
            ),
        ),
        ({"passage": "p: ", "all": "a: "}, "all", Prefixes(retrieval_query="a: ", retrieval_document="p: ", paraphrase="a: ", topic="a: ")),
    ],
)
def test_prompts_go_by_many_names(foreign: Path, named: dict[str, str], default: str | None, expected: Prefixes) -> None:
    change(foreign, PROMPTS, prompts=named, default_prompt_name=default)
    assert describe(foreign).prefixes == expected


def test_what_a_folder_does_not_say_has_to_be_given(small_folder: Path, foreign: Path) -> None:
    with pytest.raises(InputError, match=r"says nothing of its pooling.*right would be to name pooling: under models\.small$"):
        describe(small_folder, prefixes=NONE, model="small")
    with pytest.raises(InputError, match=r"says nothing of its prompts.*prefixes: under models\.<name>"):
        describe(small_folder, pooling="mean")
    assert describe(small_folder, "last", NONE) == Description("last", NONE, 64)
    assert describe(small_folder, "last", NONE, 12).max_tokens == 12
    change(foreign, "1_Pooling/config.json", pooling_mode=["cls", "mean"])
    with pytest.raises(InputError, match=r"pools by cls\+mean, there are mean, cls, last; right would be to name pooling:"):
        describe(foreign, prefixes=NONE)
    change(foreign, "1_Pooling/config.json", pooling_mode="mean", include_prompt=False)
    assert not describe(foreign, prefixes=NONE).include_prompt
    modules = json.loads((foreign / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_LayerNorm", "type": "sentence_transformers.models.LayerNorm"})
    (foreign / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="has a module LayerNorm, which is not read"):
        describe(foreign, prefixes=NONE)
    assert describe(foreign, "cls", NONE).pooling == "cls"


def test_length_respects_positions(small_folder: Path) -> None:
    assert positions({"model_type": "bert", "max_position_embeddings": 512}) == 512
    assert positions({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}) == 512
    assert positions({"model_type": "roberta", "max_position_embeddings": 514}) == 512
    assert positions({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 0}) == 513
    assert positions({"model_type": "modernbert"}) is None
    assert describe(small_folder, "mean", NONE, 4096).max_tokens == 64


def test_without_positions_and_length_it_has_to_be_given(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "endless", "hidden_size": 8}')
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    with pytest.raises(InputError, match=r"does not say how long a text may be; right would be to name max_tokens: under models\.far"):
        describe(tmp_path, "mean", NONE, model="far")
    assert describe(tmp_path, "mean", NONE, 99).max_tokens == 99
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(InputError, match=r"modules\.json: is not JSON"):
        describe(tmp_path, None, NONE, 99)
    with pytest.raises(InputError, match=r"no config\.json there"):
        describe(tmp_path / "nowhere", "mean", NONE)


@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_families_load_at_their_greatest_length(tmp_path: Path, family: str, russian: list[str], english: list[str]) -> None:
    """A text longer than the positions goes through both, cut alike: RoBERTa numbers positions past the padding."""
    tokenizer = bpe(russian + english, 800, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    shape = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 66}
    torch.manual_seed(0)
    if family == "roberta":
        model = RobertaModel(RobertaConfig(**shape, **ids), add_pooling_layer=False)
    else:
        model = ModernBertModel(ModernBertConfig(**shape, **ids, cls_token_id=0, sep_token_id=2))
    model.save_pretrained(tmp_path / "raw")
    tokenizer.save_pretrained(tmp_path / "raw")
    given = {"pooling": "mean", "prefixes": "nomic", "max_tokens": 4096}
    fetch(Model.model_validate({"from": f"path:{tmp_path / 'raw'}", **given}), tmp_path / "model")
    assert describe(tmp_path / "model").max_tokens == (64 if family == "roberta" else 66)
    assert check_loads(tmp_path / "model", fp32(tmp_path / "model").encode)[0] < 1e-5


def test_no_file_asks_for_code_or_holds_pickles(own: Path) -> None:
    names = {file.name for file in own.rglob("*") if file.is_file()}
    assert {"modules.json", "config_sentence_transformers.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".py"))]
    assert "auto_map" not in json.loads((own / "config.json").read_text(encoding="utf-8"))
    assert set(prompts(NOMIC)) >= {"search_query", "query", "STS", "Clustering"}
