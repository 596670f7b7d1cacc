#!/usr/bin/env bash
# All that waits for a GPU, part by part, for as long as it may; called again, it goes on.
#
#   benchmarks/gpu_pack.sh --data=FOLDER [--minutes=9] [--out=runs/gpu_pack] [--dry-run]
#
# PYTHON names another interpreter than python3: one with jax[cuda12] and what the tests need.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export XLA_PYTHON_CLIENT_PREALLOCATE=false # PyTorch needs memory beside
exec "${PYTHON:-python3}" -m benchmarks.gpu_pack "$@"
