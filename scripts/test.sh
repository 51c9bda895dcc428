#!/usr/bin/env bash
# Environment, style, types, then all tests in parallel. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

export OMP_NUM_THREADS=1 # for each worker of pytest and the processes that it starts
ruff check .
ruff format --check .
mypy
# One worker more than cores: tests of killed and restarted processes mostly wait.
exec python -m pytest --numprocesses "$(($(nproc) + 1))" "$@"
