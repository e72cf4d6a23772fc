"""Manifests of a whole run, as fixtures."""

from typing import Any

import pytest
from run_of_hand import PAIRS, RECIPE, SOURCES, STEPS, curve, half, manifest, mined, score_metrics

from raysberta.artifacts import Manifest
from raysberta.recipe import Recipe


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.model_validate(RECIPE)


@pytest.fixture(scope="module")
def stages() -> dict[str, Manifest]:
    """One run of 840 seconds."""
    dropped = {"near duplicate": 1928, "too short": 1089, "exact duplicate": 467, "language": 310, "quality: few stop words": 155}
    tasks = {
        "DictionaryRetrieval": {
            "type": "Retrieval",
            "source": "dictionary",
            "pair": "term_definition",
            "language": "ru",
            "halves": {"dev": half(400), "test": half(400)},
        }
    }
    temperatures = [(0.02, 0.7312), (0.03, 0.7355), (0.05, 0.7204)]
    weights = [(0.0, 0.7401), (0.1, 0.7433), (0.2, 0.7398), (0.3, 0.7311)]
    vocabulary = {
        "pieces": {"before": 250037, "after": 26529, "trimmed": 225008, "learned": 1500},
        "parameters": {"before": 117653760, "after": 31802112},
        "tokens": {"before": {"ru": {"fertility": 1.9312, "unknown": 0.0}}, "after": {"ru": {"fertility": 1.8021, "unknown": 0.0002}}},
        "new_pieces": [{"piece": "▁энкодер", "nearest": ["▁код", "▁модель"]}],
        "first_loss": {
            "chosen": "focus",
            "texts": 160,
            "head": False,
            "losses": {"mean_of_pieces": 7.5012, "gaussian": 8.25, "focus": 7.4408},
        },
    }
    synthesis = {
        "engine": {"llm": "vllm 0.32.0", "seq2seq": "off: no ruT5 checkpoint"},
        "requested": 500,
        "written": 497,
        "kept": 301,
        "dropped": {"round trip": 163, "echo": 33, "failed": 3},
    }
    given = [
        manifest("models", 0, 21.5, {"roles": {"encoder": "encoder"}}),
        manifest("corpus", 22, 74.2, {"sources": SOURCES}, rows_in=39082, rows_out=35133, dropped=dropped),
        manifest("pairs", 97, 12.4, {"pairs": PAIRS}, rows_in=35133, rows_out=16223),
        manifest("benchmark", 110, 4.1, {"tasks": tasks}),
        manifest("vocabulary", 110, 9.8, vocabulary),
        manifest("synthesis", 97, 151.0, synthesis),
        manifest("mlm", 120, 96.3, {"curve": curve(24, 6.2, 3.1)}),
        manifest(
            "mining",
            111,
            118.8,
            mined({"dictionary/term_definition": 5600, "docstrings/summary_body": 3400, "interface/translation": 1200}),
        ),
        manifest("mining_synthetic", 249, 14.6, mined({"synthetic/llm_query": 301})),
        manifest("mlm_merged", 217, 3.3),
        manifest(
            "temperature",
            264,
            130.2,
            {
                "best": 0.03,
                "trials": [
                    {"temperature": t, "score": s, "scores": {"DictionaryRetrieval": s - 0.1}, "seconds": 40.0} for t, s in temperatures
                ],
            },
        ),
        manifest("contrastive", 395, 262.5, {"curve": curve(110, 2.1, 0.62), "temperature": 0.03}),
        manifest(
            "merge",
            658,
            82.7,
            {
                "best": 0.1,
                "trials": [{"weight": w, "score": s, "scores": {"DictionaryRetrieval": s - 0.2}, "seconds": 20.0} for w, s in weights],
            },
        ),
        *(manifest(f"score_{name}", 250.0 + 98 * step, 30.4 + step, score_metrics(step)) for step, name in enumerate(STEPS)),
    ]
    return {item.stage: item for item in given}


@pytest.fixture(scope="module")
def model() -> dict[str, Any]:
    return {"dimension": 384, "max_tokens": 512, "parameters": 31802112, "difference": 3e-7}


@pytest.fixture(scope="module")
def samples() -> list[dict[str, Any]]:
    return [
        {
            "request_id": "a",
            "kind": "llm_query",
            "passage": "Return the cumulative sum of the elements.",
            "output": "How do I add up elements as I go?",
            "reason": "",
        },
        {
            "request_id": "b",
            "kind": "llm_query",
            "passage": "Sort an array in place.",
            "output": "<script>alert(1)</script>",
            "reason": "round trip",
        },
    ]
