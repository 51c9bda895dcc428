#!/usr/bin/env bash
# The shipped search, its best trial, and the tests of searches, on other interpreters:
#     scripts/interpreters.sh python3.10 python3.12 python3.13
# Each gets an environment of 7 GB in a temporary folder, which is deleted. PORT=8999 is nni's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD port=${PORT:-8999}

for base in "$@"; do
    work=$(mktemp -d)
    trap 'HOME=$work "$work/env/bin/nnictl" stop --all > "$work/stop.log" 2>&1 || true; rm -rf "$work"' EXIT
    git clone --quiet "$root" "$work/code"
    "$base" -m venv "$work/env"
    "$work/env/bin/python" -m pip install --quiet "$work/code[nni]" pytest pytest-xdist hypothesis psutil
    (
        cd "$work/code"
        export HOME=$work PATH=$work/env/bin:$PATH PYTHONWARNINGS=ignore
        python --version
        start=$SECONDS
        nnictl create --config config.yml --port "$port" > "$work/create.log" || { cat "$work/create.log"; exit 1; }
        until python - "$port" <<'PYTHON'
import json, sys, urllib.request
url = f"http://127.0.0.1:{sys.argv[1]}/api/v1/nni/check-status"
sys.exit(json.load(urllib.request.urlopen(url))["status"] not in ("DONE", "ERROR"))
PYTHON
        do sleep 2; done
        echo "search: $((SECONDS - start)) s"
        nnictl stop --all > "$work/stop.log"
        id=$(basename "$(readlink -f "$work/nni-experiments/_latest")")
        eat best "$id" --out "$work/best"
        python -m pytest -q -n 0 tests/tuning
    )
    rm -rf "$work"
    trap - EXIT
done
