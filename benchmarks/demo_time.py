"""Where the time of `make demo` goes, with nothing compiled before.

python -m benchmarks.demo_time --record=results/bench/demo_time.json
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import loaded_hardware, run_benchmark

ROUNDS = 3


def stamped(command: str, caches: str) -> tuple[list[tuple[float, str]], float]:
    """What a command says, each line with its second, and when it has ended."""
    began, lines = time.perf_counter(), []
    environment = os.environ | {"XDG_CACHE_HOME": caches, "PYTHONUNBUFFERED": "1"}
    started: Any = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, shell=True, text=True, **started) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.perf_counter() - began, line))
    if process.returncode != 0:
        sys.exit("".join(line for _, line in lines))
    return lines, time.perf_counter() - began


def parts(folder: Path) -> dict[str, float]:
    """Seconds of each part of one demo that is written into the folder."""
    told = subprocess.run(["make", "--dry-run", "demo"], capture_output=True, text=True, check=True)
    said = told.stdout.replace("runs/demo", str(folder / "demo")).splitlines()
    compare, report = (line for line in said if " -m spa_jax." in line)
    lines, compared = stamped(compare, str(folder))
    _, reported = stamped(report, str(folder))
    compiling = [second for second, line in lines if line.endswith(": compiling\n")]
    results = [second for second, line in lines if ": test accuracy" in line]
    # A method compiles in its first run, and says so just before.
    first_runs = [next(end for end in results if end > begin) for begin in compiling]
    of_first_runs = sum(first_runs) - sum(compiling)
    return {
        "imports and checks": compiling[0],
        "the first run of each method, which compiles": of_first_runs,
        "the other runs": results[-1] - compiling[0] - of_first_runs,
        "the table and its figure": compared - results[-1],
        "the report": reported,
        "all": compared + reported,
        "until the first result": results[0],
    }


def measure() -> dict[str, Any]:
    """The seconds of each part, of each round."""
    found = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            found.append(parts(Path(folder)))
    seconds = {name: [each[name] for each in found] for name in found[0]}
    return {"hardware": loaded_hardware(), "seconds": seconds}


if __name__ == "__main__":
    run_benchmark("demo_time", measure)
