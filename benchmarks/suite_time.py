"""How long `make test` takes in an environment that is there, and how large its processes grow.

python -m benchmarks.suite_time --record=results/bench/suite_time.json
"""

import os
import re
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.timing import loaded_hardware, run_benchmark

ROUNDS = 3


def run_once() -> dict[str, float]:
    """Seconds of one run of the suite, and how many tests have passed and were skipped."""
    # Without Python's cache of compiled files, which users have, every start compiles all anew.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    made = subprocess.run(["make", "test"], env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    counts = re.search(r"(\d+) passed, (\d+) skipped", made.stdout)
    if made.returncode != 0 or counts is None:
        sys.exit(made.stdout + made.stderr)
    passed, skipped = map(int, counts.groups())
    return {"make test": seconds, "passed": passed, "skipped": skipped}


def measure() -> dict[str, Any]:
    """The seconds of each round; the counts of the last one; the largest process of all."""
    found = [run_once() for _ in range(ROUNDS)]
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "hardware": loaded_hardware(),
        "seconds": {"make test": [each["make test"] for each in found]},
        "passed": found[-1]["passed"],
        "skipped": found[-1]["skipped"],
        "peak_bytes": 1024 * kilobytes,
    }


if __name__ == "__main__":
    run_benchmark("suite_time", measure)
