"""Alignment as a stage on a local Ray: two workers that each hold half of the weights give the run of one, and the manifest's figures."""

import shutil

import pyarrow as pa
import pytest
from alignments import align_settings

from raysberta.aligning import stage
from raysberta.aligning.align import train_align
from raysberta.aligning.facts import AlignFacts
from raysberta.aligning.settings import AlignPhase
from raysberta.models.describe import describe
from raysberta.publishing.phases import _wrote
from raysberta.schema import EXAMPLE
from raysberta.storage.artifacts import Artifact, Store
from raysberta.work import Work, Workers


def test_two_workers_align_and_tell_what_came_of_it(ray_local, joined, generator, table, examples, written, tmp_path):
    store = Store(str(tmp_path))

    def commit(name, fill) -> Artifact:
        draft = store.draft(name, "0" * 16)
        fill(draft)
        return store.commit(draft, name, "0" * 16, {}, {}, 0, 0.0)

    def folder(source):
        def fill(draft):
            with draft.folder("model") as target:
                shutil.copytree(source, target, dirs_exist_ok=True)

        return fill

    rows = commit("drawn", lambda draft: draft.write_table("examples", pa.Table.from_pylist(table.to_pylist(), schema=EXAMPLE)))
    inputs = {"joined": commit("joined", folder(joined)), "llm": commit("llm", folder(generator)), "drawn": rows}
    settings = align_settings(steps=4, zero_stage=3, recompute=True, checkpoint_every=2)
    draft = store.draft("align", "1" * 16)
    facts = stage.run(Work(AlignPhase(phase=settings), inputs, draft, Workers(workers=2), node="aligned"))
    done = store.commit(draft, "align", "1" * 16, {}, {}, 0, 0.0, facts)
    assert done.told(AlignFacts) == facts and facts.decoder_before == facts.decoder_after
    assert facts.before is not None and facts.after is not None and facts.after.rows == facts.before.rows >= 2
    assert f"{facts.before.completion.own:.3f} to {facts.after.completion.own:.3f}" in _wrote(facts.before, facts.after)
    assert facts.rows == {"intents/same": len(examples)} and facts.tokens == examples.tokens.count
    assert describe(done.folder("model")) == describe(joined)
    alone = train_align(settings, joined, generator, examples, written, None, seed=42, steps=4)
    assert [point.loss for point in facts.curve] == pytest.approx([point["loss"] for point in alone], rel=1e-4)
