# Sourced by the other scripts: makes .venv with everything on the first run and uses it after that.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
set -euo pipefail

python=.venv/bin/python
stamp=.venv/installed
wanted=$(cat pyproject.toml setup.py | cksum)
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
    base=${PYTHON:-python3}
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "Python 3.10 or newer is needed; $base is $("$base" --version 2>&1)." \
             "Name another with PYTHON=/path/to/python" >&2
        exit 1
    }
    echo "Setting up .venv (PyTorch is a large download; this takes minutes, and only once)"
    "$base" -m venv .venv
    "$python" -m pip install --quiet --editable '.[nni,test]'
    echo "$wanted" > "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
