"""Run a test file as a program of its own.

For what cannot be compiled under the run-time checks of shapes that all other tests run under (conftest.py).
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def run_alone(file: str, *arguments: str) -> dict[str, float]:
    """What a file prints last, which is JSON."""
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run([sys.executable, file, *arguments], capture_output=True, text=True, timeout=300,
                         env={**os.environ, "PYTHONPATH": here})
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
