"""Manifests of a whole run as the stages write them, with figures chosen by hand so that every one can be found again."""

from itertools import pairwise
from typing import Any

from raysberta.artifacts import Manifest

TASKS = {
    "DictionaryRetrieval": ("Retrieval", "ndcg_at_10", (0.4012, 0.4031, 0.4157, 0.4188, 0.5123, 0.5168)),
    "DocstringRetrieval": ("Retrieval", "ndcg_at_10", (0.6411, 0.6409, 0.6382, 0.6437, 0.7216, 0.7243)),
    "InterfaceBitext": ("BitextMining", "f1", (0.8125, 0.8119, 0.8034, 0.8093, 0.8371, 0.8402)),
    "WordSense": ("PairClassification", "max_ap", (0.6319, 0.6321, 0.6287, 0.6305, 0.6141, 0.6178)),
    "IntentRussian": ("Classification", "accuracy", (0.8673, 0.8661, 0.8594, 0.8642, 0.8927, 0.8931)),
    "DictionaryTopics": ("Clustering", "v_measure", (0.2123, 0.2119, 0.2206, 0.2197, 0.2674, 0.2688)),
}
STEPS = ("base", "vocabulary", "mlm", "mlm_merged", "contrastive", "final")
SOURCES = {
    "dictionary": {"read": 16000, "kept": 14210, "dropped": {"too short": 912, "near duplicate": 655, "language": 223}},
    "docstrings": {"read": 7000, "kept": 5630, "dropped": {"near duplicate": 871, "exact duplicate": 344, "quality: few stop words": 155}},
    "interface": {"read": 2191, "kept": 2014, "dropped": {"too short": 177}},
    "intents": {"read": 5000, "kept": 4877, "dropped": {"exact duplicate": 123}},
    "senses": {"read": 8891, "kept": 8402, "dropped": {"near duplicate": 402, "language": 87}},
}
PAIRS = {
    "dictionary/term_definition": {"train": 5600, "dev": 1402, "test": 1377},
    "dictionary/definition_usage": {"train": 700, "dev": 611, "test": 598},
    "docstrings/summary_body": {"train": 3400, "dev": 420, "test": 431},
    "interface/translation": {"train": 1200, "dev": 201, "test": 188},
    "intents/same_label": {"train": 1000, "dev": 244, "test": 251},
}
RECIPE = {
    "name": "report-test",
    "sources": {
        "dictionary": {"kind": "wiki_ru_wordnet", "language": "ru"},
        "docstrings": {"kind": "docstrings", "language": "en"},
        "interface": {"kind": "jupyterlab_strings", "language": "ru"},
        "intents": {"kind": "home_assistant_intents"},
        "senses": {"kind": "rl_wsd", "language": "ru"},
    },
    "evaluation": {
        "tasks": {"DictionaryRetrieval": {"type": "Retrieval", "source": "dictionary", "pair": "term_definition", "language": "ru"}}
    },
    "publishing": {"model_name": "raysberta-probe", "license": "mit", "description": "A model for the tests of the report."},
}


def manifest(stage: str, started: float, seconds: float, metrics: dict[str, Any] | None = None, **rest: Any) -> Manifest:
    given: dict[str, Any] = {
        "stage": stage,
        "fingerprint": f"{abs(hash(stage)) % 16**16:016x}" if "fingerprint" not in rest else rest.pop("fingerprint"),
        "attempt": "attempt-1",
        "identity": {},
        "inputs": {},
        "rows_in": 0,
        "rows_out": 0,
        "dropped": {},
        "metrics": metrics or {},
        "files": [],
        "seed": 42,
        "started": 1_700_000_000.0 + started,
        "seconds": seconds,
        "versions": {"ray": "2.60.0", "torch": "2.13.0"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
    }
    return Manifest.model_validate({**given, **rest})


def curve(steps: int, first: float, last: float) -> list[dict[str, float]]:
    return [
        {
            "step": step,
            "loss": last + (first - last) * 0.96**step + 0.05 * ((step * 7919) % 13 - 6) / 6,
            "learning_rate": 1e-4 * min(1.0, step / 10) * (1 - step / (steps + 1)),
            "seconds": 2.0 * step,
            "tokens_per_second": 1250.0,
        }
        for step in range(1, steps + 1)
    ]


def bell(middle: float, width: float, low: float, high: float) -> dict[str, list[float]]:
    edges = [low + (high - low) * place / 30 for place in range(31)]
    counts = [int(900 * 2.718 ** (-(((left + right) / 2 - middle) ** 2) / (2 * width**2))) for left, right in pairwise(edges)]
    return {"edges": edges, "counts": counts}


def score_metrics(step: int) -> dict[str, Any]:
    details = {}
    for name, (kind, metric, values) in TASKS.items():
        details[name] = {
            "dataset": "held out",
            "held_out": True,
            "type": kind,
            "config": "default",
            "split": "test",
            "revision": "abcdef0123456789",
            "languages": ["rus-Cyrl"],
            "metrics": {metric: values[step], "main_score": values[step], "precision": 0.5},
            "scored": 400,
        }
    return {"scores": {name: values[step] for name, (_, _, values) in TASKS.items()}, "details": details, "seconds": {}}


def mined(examples: dict[str, int]) -> dict[str, Any]:
    return {
        "examples": examples,
        "pools": {key: {"texts": 5600, "window": [10, 60]} for key in examples},
        "negatives": 2 * sum(examples.values()),
        "suspects": 17,
        "skipped": {"above share of positive": 211},
        "histograms": {
            "positive_score": bell(0.88, 0.03, 0.7, 1.0),
            "negative_score": bell(0.82, 0.02, 0.7, 1.0),
            "negative_rank": bell(35, 40, 10, 60),
        },
    }


def half(scored: int) -> dict[str, Any]:
    return {"revision": "r", "scored": scored, "rows": {"queries": scored, "corpus": 1000}}
