"""The vectors that vLLM gives texts, a line of JSON for each model folder; in a process of its own, for vLLM keeps what it sets up.

usage: served.py LENGTH TEXTS FOLDER..., where TEXTS is a list as JSON
"""

import gc
import json
import sys

from vllm import LLM
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

for folder in sys.argv[3:]:
    engine = LLM(model=folder, runner="pooling", dtype="float32", enforce_eager=True, max_model_len=int(sys.argv[1]))
    found = [answer.outputs.embedding for answer in engine.embed(json.loads(sys.argv[2]), use_tqdm=False)]
    print("vectors", json.dumps(found), flush=True)
    engine.llm_engine.engine_core.shutdown()
    del engine
    gc.collect()
    cleanup_dist_env_and_memory()
