#!/usr/bin/env bash
# Runs everything that needs a CUDA device: the tests marked `gpu`, then the benchmark. Arguments go to the benchmark.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check -e '.[test]'
.venv/bin/python -c 'import torch, sys; sys.exit(0 if torch.cuda.is_available() else "no CUDA device here")'
.venv/bin/python -m pytest -m gpu
exec .venv/bin/python benchmarks/gpu_decode.py "$@"
