import os
import subprocess
import sys


def test_a_stage_starts_without_what_no_encoder_needs() -> None:
    ask = "import sys, raysberta.mining.stage, raysberta.training.stage; print([x for x in ('sklearn', 'peft') if x in sys.modules])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[]"
