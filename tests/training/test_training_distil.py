"""Embedding distillation without Ray: its gradient is that of a plain loop, a killed run goes on bit for bit, two processes are one."""

import itertools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import in_a_process, run_both
from safetensors.torch import load_file
from scipy.stats import spearmanr
from variants import SEED, comparable, distil_settings

from raysberta.errors import InputError
from raysberta.models.describe import describe
from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.models.model import load_model
from raysberta.models.pool import pool
from raysberta.prefixes import E5, Prefixes
from raysberta.retrieval.embed import Embedder
from raysberta.retrieval.mapped import Mapped
from raysberta.retrieval.vectors import BLOCK_TEXTS, Vectors, block_path, write_block
from raysberta.storage.runs import Place, power_of_two
from raysberta.training import teacher as teacher_module
from raysberta.training.arrays import Ragged
from raysberta.training.distil import DistilModel, make_batch, train_distil
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.fidelity import agreement, fidelity
from raysberta.training.lessons import TOGETHER, _bundles, by_blocks, text_runs
from raysberta.training.prepare import COMPARED, compare_texts, shared
from raysberta.training.survey import Held, Unit, distinct, hashes, known, laid, pieces, reading_of
from raysberta.training.teacher import RANGE, TEXTS, Lessons, distances, in_blocks, projection, teacher_hashes, teacher_texts, text_ranges

READING = reading_of({"query": 16, "document": 16}, Prefixes(), [E5], sys.maxsize)
"""As a student with our prefixes reads what a teacher with those of E5 does."""


@pytest.fixture(scope="module")
def ordered(table) -> list[str]:
    """What the teacher reads, in an order of its own."""
    unit = Held(table.slice(0, 80))
    return sorted(text for found in teacher_texts(unit, READING, teacher_hashes(unit, READING)) for text in found["text"].to_pylist())


@pytest.fixture(scope="module")
def lessons(table, ordered, tiny) -> Lessons:
    unit = Held(table.slice(0, 80))
    keys = distinct(unit, READING)
    tokens, others = laid(keys, list(pieces(unit, READING, keys, load_tokenizer(tiny))))
    return Lessons(tokens, known(E5, hashes(ordered)).rows(others[:, 0]))


@pytest.fixture(scope="module")
def teacher(ordered, e5_folder) -> np.ndarray:
    """The whole multilingual-e5-small, of which the student has two layers."""
    return Embedder(e5_folder, 16).encode(ordered)


def other_width(teacher: np.ndarray, width: int = 40) -> np.ndarray:
    vectors = teacher @ np.random.default_rng(0).normal(size=(teacher.shape[1], width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def read(unit: Unit) -> set[tuple[str, str]]:
    """What the teacher reads and what the student does, text by text."""
    return {
        (READING.ways[int(way)].others[0] + text, READING.ways[int(way)].prefix + text)
        for batch in unit.batches()
        for text, way in zip(*READING.texts(batch)[:2], strict=True)
    }


def test_texts_are_read_with_the_prefix_of_their_side_by_either(table):
    readings = read(Held(table))
    assert ("query: где собака в саду?", "search_query: где собака в саду?") in readings
    assert ("passage: собака в саду", "search_document: собака в саду") in readings
    assert ("query: у реки собака", "classification: у реки собака") in readings
    assert ("passage: поезд", "search_document: поезд") in readings, "a hard negative"
    bare = read(Held(table.drop_columns("negatives")))
    assert bare < readings and ("passage: поезд", "search_document: поезд") not in bare
    ((left, right),) = read(Held(pa.table({"text": ["слово " * 1000, ""]})))
    assert left.startswith("passage: слово") and right.startswith("search_document: слово") and len(left) == len("passage: ") + 256
    assert len(distinct(Held(table), READING)) == len(readings)
    assert len(teacher_hashes(Held(table), READING)) == len({teacher for teacher, _ in readings})


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 243), max_size=4, unique=True), st.sampled_from([7, 60, RANGE]), st.sampled_from([1, 1 << 20]))
def test_the_teachers_texts_come_together_by_ranges_and_each_once(table, cuts, size, held):
    """Whatever the units and the files: every text is in the range of its hash, and a range has its longest text first."""
    bounds = [0, *sorted(cuts), table.num_rows]
    units = [Held(table.slice(start, stop - start)) for start, stop in itertools.pairwise(bounds)]
    rising, wanted = shared(teacher_hashes(unit, READING) for unit in units)
    found, given = [], list(zip(units, wanted, strict=True))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as aside:
        patch.setattr(teacher_module, "RANGE", size)
        spans = text_ranges(rising)
        place = Place(aside, power_of_two(len(spans)), held)
        runs = [run for part in (given[:2], given[2:]) for run in text_runs(part, READING, place)]
        for first, last in spans:
            blocks, waiting = by_blocks(runs, (first, last), place, "/nowhere")
            texts = [text for block in waiting for text in block.read()]
            assert blocks.hashes.tolist() == hashes(texts).tolist() and texts == sorted(texts, key=lambda text: (-len(text), text))
            assert blocks.fresh == len(texts) and 0 < len(texts) <= size and [block.path for block in waiting] == blocks.paths
            assert all(first <= number < last for number in blocks.hashes.tolist())
            found += texts
    assert sorted(found) == sorted({teacher for teacher, _ in read(Held(table))})


@pytest.mark.parametrize("count", [0, 3, BLOCK_TEXTS, 2 * BLOCK_TEXTS, 5 * BLOCK_TEXTS + 3])
def test_a_range_is_given_out_block_by_block(count, tmp_path):
    texts = [f"passage: {number}" for number in range(count)]
    table, place = pa.table([hashes(texts) if texts else np.zeros(0, np.uint64), texts], TEXTS), Place(str(tmp_path), 4, 1 << 20)
    writer = place.writer("texts")
    writer.add(table, table["hash"].to_numpy())
    blocks, waiting = by_blocks(writer.done(), (0, 1 << 64), place, "/nowhere")
    whole = in_blocks(table, "/nowhere")[1]
    assert blocks.fresh == count and len(waiting) == -(-count // BLOCK_TEXTS)
    assert [(block.path, block.read()) for block in waiting] == whole


def test_units_are_read_in_bundles_and_each_once():
    counts = [5, TOGETHER, TOGETHER - 1, 1, 0, 3, 1, 2]
    wanted = Ragged(np.zeros(sum(counts), np.uint64), np.concatenate([[0], np.cumsum(counts)]))
    assert list(_bundles(wanted, 10)) == [[0], [1], [2, 3], [5, 6, 7]]
    assert list(_bundles(wanted, 2)) == [[0], [1], [2, 3], [5, 6], [7]]


def test_the_texts_that_are_compared_are_those_of_least_keys_whatever_the_units(table):
    def chosen(units):
        return sorted(text for of_unit in compare_texts(units, READING, itertools.starmap) for text in of_unit)

    whole, halves = chosen([Held(table)]), chosen([Held(table.slice(0, 100)), Held(table.slice(100))])
    assert whole == halves and len(whole) == len(distinct(Held(table), READING)) < COMPARED
    readings = {student: hashes([teacher])[0] for teacher, student in read(Held(table))}
    assert {(text, mark) for _, text, mark in whole} == set(readings.items())


def test_lessons_tie_each_text_to_the_teachers_vector(lessons, ordered, table, tiny):
    tokenizer, reads = load_tokenizer(tiny), {student: teacher for teacher, student in read(Held(table.slice(0, 80)))}
    assert len(lessons) == len(reads)
    by_tokens = {tuple(tokenizer(student, truncation=True, max_length=16)["input_ids"]): teacher for student, teacher in reads.items()}
    assert all(ordered[lessons.row[place]] == by_tokens[tuple(lessons.tokens[place].tolist())] for place in range(len(lessons)))


@pytest.mark.parametrize("loss", ["cosine", "squared"])
@pytest.mark.parametrize("width", [384, 40])
def test_the_gradient_is_that_of_a_plain_loop(loss, width, tiny, lessons, teacher):
    vectors = teacher if width == 384 else other_width(teacher)
    rows = np.arange(3, 120, 9)
    bridge = projection(384, width, seed=1)
    assert (bridge is None) == (width == 384)
    model = DistilModel(ChunkedEncoder(load_model(tiny, dropout=0.0).double(), "fp32", recompute=True), loss, bridge).double().train()
    found = model(make_batch(lessons, rows, vectors, distil_settings(chunk_tokens=64), torch.device("cpu")))
    found.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    terms = []
    for row in rows:
        tokens = torch.from_numpy(lessons.tokens[row].astype(np.int64))[None]
        hidden = model.encoder.model.encoder(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
        own = F.normalize(pool(hidden, torch.ones_like(tokens), "mean")[0], dim=0)
        if bridge is not None:
            own = bridge.linear.weight @ own
            own = own / own.norm()
        aim = F.normalize(torch.from_numpy(vectors[lessons.row[row]]), dim=0).double()
        terms.append(1 - own @ aim if loss == "cosine" else ((own - aim) ** 2).sum())
    expected = torch.stack(terms).mean()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    floor = 1e-6 * max(float(parameter.grad.abs().max()) for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        assert (gradients[name] - parameter.grad).abs().max() <= 1e-9 * parameter.grad.abs().max().clamp(min=floor), name


def test_a_vector_that_is_none_teaches_nothing():
    student = F.normalize(torch.randn(3, 6, dtype=torch.float64), dim=1).requires_grad_()
    teacher = torch.stack([student[0].detach(), torch.zeros(6), -student[2].detach()])
    for loss, found in (("cosine", [0, 1, 2]), ("squared", [0, 1, 4])):
        apart = distances(student, teacher, loss)
        assert apart.tolist() == pytest.approx(found, abs=1e-12)
        assert torch.autograd.grad(apart.sum(), student)[0][1].abs().max() == 0


@pytest.mark.parametrize("width", [384, 40])
def test_a_run_learns_and_a_killed_one_goes_on_bit_for_bit(width, tiny, lessons, teacher, tmp_path):
    """The system kills it while it writes its third checkpoint. Dropout is on. The projection is in the checkpoint, not in the model."""
    vectors = teacher if width == 384 else other_width(teacher)
    settings = distil_settings(steps=11, prefixes=E5)
    lessons.save(f"{tmp_path}/data")
    np.save(tmp_path / "teacher.npy", vectors)
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    whole = train_distil(settings, tiny, lessons, vectors, tmp_path / "whole", seed=SEED)
    assert whole[-1]["loss"] < whole[0]["loss"] - 0.02
    assert in_a_process(tmp_path, tiny) == -9
    second = tmp_path / "checkpoints" / "step-00000006"
    assert in_a_process(tmp_path, tiny, second) == 0
    assert comparable(json.loads((tmp_path / "curve.json").read_text())) == comparable(whole)
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("resumed", "whole"))
    assert all(torch.equal(left[name], right[name]) for name in right)
    assert right.keys() == load_file(tiny / "model.safetensors").keys()
    assert ("projection.linear.weight" in load_file(second / "weights.safetensors")) == (width == 40)
    assert describe(tmp_path / "whole") == describe(second / "model") == describe(tiny, prefixes=E5)


@pytest.mark.parametrize("width", [384, 40])
def test_two_processes_are_one(width, tiny, lessons, teacher, tmp_path):
    """Under ZeRO 0 to 3, dropout off: losses, gradient norms, and so weights."""
    vectors = teacher if width == 384 else other_width(teacher)
    lessons.save(f"{tmp_path}/data")
    np.save(tmp_path / "teacher.npy", vectors)
    settings = distil_settings(steps=3, dropout=0.0)
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    alone = train_distil(settings, tiny, lessons, vectors, tmp_path / "one", seed=SEED)
    run_both(Path(__file__).with_name("two_distilling.py"), tmp_path, tiny)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    expected = load_encoder(tmp_path / "one").state_dict()
    for stage in ("0", "1", "2", "3"):
        assert comparable(first[stage]) == comparable(second[stage])
        for one, two in zip(alone, first[stage], strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
            assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)
            assert two["tokens"] == one["tokens"]
        found = load_encoder(tmp_path / f"zero{stage}").state_dict()
        for name, weight in expected.items():
            assert torch.allclose(found[name], weight, atol=3 * 5e-4 if name.endswith("key.bias") else 2e-5), name


def test_mapped_vectors_are_those_of_storage(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(2 * BLOCK_TEXTS + 5, 6)).astype(np.float32)
    paths = [block_path(str(tmp_path / "set"), [str(number)]) for number in range(3)]
    for number, path in enumerate(paths):
        write_block(path, vectors[number * BLOCK_TEXTS : (number + 1) * BLOCK_TEXTS])
    whole = Vectors(tuple(paths), len(vectors), 6)
    rows = np.asarray([2052, 0, 1024, 1023, 7, 2052])
    assert np.array_equal(Mapped(whole)[rows], whole[rows]) and np.array_equal(whole[rows], vectors[rows].astype(np.float16))


def test_fidelity_is_that_of_loops_and_does_not_see_a_common_direction(teacher, ordered, tiny):
    rng = np.random.default_rng(1)
    student = rng.normal(size=(30, 5)) + 4
    other = rng.normal(size=(30, 5)) + 4
    found = agreement(student, other)
    unit = [[row / np.linalg.norm(row) for row in side] for side in (student, other)]
    means = [np.mean(side, axis=0) for side in unit]
    centred = [[(row - mean) / np.linalg.norm(row - mean) for row in side] for side, mean in zip(unit, means, strict=True)]
    assert found.cosine == pytest.approx(np.mean([left @ right for left, right in zip(*unit, strict=True)]), abs=1e-5)
    assert found.centred == pytest.approx(np.mean([left @ right for left, right in zip(*centred, strict=True)]), abs=1e-5)
    pairs = [(first, last) for first in range(30) for last in range(first)]
    ranks = spearmanr(*([side[first] @ side[last] for first, last in pairs] for side in unit)).statistic
    assert found.ranks == pytest.approx(ranks, abs=1e-5)
    assert found.cosine > 0.9 and abs(found.centred) < 0.5, "strangers with one direction in common"
    same = fidelity(tiny, tiny, ordered[:40], Embedder(tiny, 16).encode(ordered[:40]), 16)
    assert same.texts == 40 and same.before == same.after and same.after.cosine == same.after.centred == same.after.ranks == 1
    apart = fidelity(tiny, tiny, ordered[:40], teacher[:40], 16).after
    assert apart.cosine < 1 and apart.ranks < 1
    wide = agreement(teacher[:40], other_width(teacher)[:40])
    assert wide.cosine is None and wide.centred is None and 0.3 < wide.ranks < 1


def test_too_few_texts_are_refused(tiny, lessons, teacher, monkeypatch):
    monkeypatch.setattr("raysberta.training.distil.workers", lambda: (0, 2))
    with pytest.raises(InputError, match=r"^\d+ texts in steps of 1 are too few for 2 workers$"):
        train_distil(distil_settings(batch_size=1), tiny, lessons, teacher, None, seed=SEED)
