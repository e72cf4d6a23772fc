"""The vectors that vLLM gives texts, a line of JSON for each model folder; in a process of its own, for vLLM keeps what it sets up.

usage: served.py LENGTH TEXTS.json FOLDER...
"""

import gc
import json
import os
import sys
from pathlib import Path

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
)

from vllm import LLM
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

for folder in sys.argv[3:]:
    texts = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))[Path(folder).name]
    engine = LLM(model=folder, runner="pooling", dtype="float32", enforce_eager=True, max_model_len=int(sys.argv[1]))
    found = [answer.outputs.embedding for answer in engine.embed(texts, use_tqdm=False)]
    print("vectors", json.dumps(found), flush=True)
    engine.llm_engine.engine_core.shutdown()
    del engine
    gc.collect()
    cleanup_dist_env_and_memory()
