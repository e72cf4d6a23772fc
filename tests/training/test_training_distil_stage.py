"""Embedding distillation as a stage on a local Ray: two workers, DeepSpeed, the teacher's vectors in the store and used again."""

import numpy as np
import pyarrow as pa
from variants import distil_settings

from raysberta.models.describe import Description, write_description
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.prefixes import E5
from raysberta.publishing.phases import _agreed
from raysberta.retrieval.embed import Embedder
from raysberta.retrieval.mapped import Mapped
from raysberta.schema import DOCUMENT, PAIR
from raysberta.storage.artifacts import Store
from raysberta.training import stage
from raysberta.training.facts import DistilFacts
from raysberta.training.settings import DistilPhase
from raysberta.training.survey import hashes
from raysberta.training.teacher import teacher_hashes, teacher_texts
from raysberta.work import Work, Workers


def test_a_student_comes_to_agree_with_its_teacher(ray_local, tiny, table, tmp_path, monkeypatch):
    """The teacher is the student with other prefixes and its second layer alone; a document and mined examples are learned too."""
    store = Store(str(tmp_path))

    def commit(name, fill):
        draft = store.draft(name, "0" * 16)
        fill(draft)
        return store.commit(draft, name, "0" * 16, {}, {}, 0, 0.0)

    def a_model(layers, prefixes):
        def fill(draft):
            with draft.folder("model") as folder:
                save(load_encoder(tiny, layers=layers), load_tokenizer(tiny), folder)
                write_description(folder, Description("mean", prefixes, 512))

        return fill

    rows = table.select(PAIR.names).to_pylist()
    for number, row in enumerate(rows):
        row["split"] = ("train", "train", "dev", "test")[number % 4]
    document = {"doc_id": "d", "group": "d", "split": "train", "source": "s", "language": "ru", "title": "", "text": "река " * 300}
    hidden = document | {"doc_id": "h", "split": "dev", "text": "секрет"}
    inputs = {
        "tiny": commit("tiny", a_model(2, E5)),
        "e5": commit("e5", a_model(1, E5.model_copy(update={"topic": ""}))),
        "natural": commit("natural", lambda draft: draft.write_table("pairs", pa.Table.from_pylist(rows, schema=PAIR))),
        "corpus": commit("corpus", lambda draft: draft.write_table("documents", pa.Table.from_pylist([document, hidden], schema=DOCUMENT))),
        "mined": commit("mined", lambda draft: draft.write_table("examples", table.slice(0, 9))),
    }
    settings = distil_settings(steps=16, documents="corpus", examples=("mined",), checkpoint_every=100)
    kept = []
    teach = stage.teach
    monkeypatch.setattr(stage, "teach", lambda *given: kept.append((given, teach(*given))) or kept[-1][1])
    draft = store.draft("distil", "1" * 16)
    facts = stage.distil(Work(DistilPhase(phase=settings), inputs, draft, Workers(workers=2), node="taught"))
    done = store.commit(draft, "distil", "1" * 16, {}, {}, 0, 0.0, facts)
    assert done.told(DistilFacts) == facts
    assert facts.steps == 16 and facts.curve[-1].loss < facts.curve[0].loss
    before, after = facts.fidelity.before, facts.fidelity.after
    assert after.centred > before.centred and after.cosine > before.cosine and facts.fidelity.texts > 50
    assert f"cosine of centred vectors {before.centred:.3f} to {after.centred:.3f}" in _agreed(facts.fidelity)
    ((given, (vectors, at, counts)),) = kept  # the teacher is started once, for what is compared too
    units, reading = given[3], given[4]
    parts = [part for unit in units for part in teacher_texts(unit, reading, teacher_hashes(unit, reading))]
    told = {text for part in parts for text in part["text"].to_pylist() if at.rows(hashes([text]))[0] >= 0}
    texts = sorted(told, key=lambda text: (-len(text), text))
    assert at.rows(hashes(texts)).tolist() == list(range(len(texts))) and len(vectors) == len(texts)
    assert texts[0].startswith("passage: река") and len(texts[0]) == len("passage: ") + 256
    assert not any("секрет" in text for text in texts)
    assert facts.embedded == len(texts) == counts["embedded"] and facts.bad_vectors == facts.reused == 0
    direct = Embedder(inputs["e5"].folder("model"), 16).encode(texts)
    assert np.array_equal(Mapped(vectors)[np.arange(len(texts))], direct.astype(np.float16))
    assert teach(*given)[2]["embedded"] == 0
