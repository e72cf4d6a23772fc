"""Settings as alignments have them."""

from raysberta.aligning.settings import Align


def align_settings(**changes: object) -> Align:
    """Settings for a run of a few steps."""
    short = {"learning_rate": 2e-3, "warmup_steps": 2, "precision": "fp32", "chunk_tokens": 120, "checkpoint_every": 3, "batch_size": 8}
    more = {"max_tokens": 24, "written_tokens": 40, "dropout": 0.0, **short}
    return Align.model_validate({"kind": "align", "from": "joined", "decoder": "llm", "examples": ["drawn"], **more, **changes})
