#!/usr/bin/env bash
# Environment, then all tests. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

ruff check .
ruff format --check .
exec python -m pytest "$@"
