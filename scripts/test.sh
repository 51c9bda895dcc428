#!/usr/bin/env bash
# Environment, style, types, then all tests in parallel. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# One worker more than cores: tests of killed and restarted processes mostly wait.
workers=$(($(nproc) + 1))
export OMP_NUM_THREADS=1 # for each worker and the processes that it starts; nproc would heed it
ruff check .
ruff format --check .
mypy
exec python -m pytest --numprocesses "$workers" "$@"
