#!/usr/bin/env bash
# One part of the measurements on a GPU, under nine minutes on one of an H100's class:
#
#     bash scripts/gpu.sh check OUT      # numbers against the CPU in float64, and the tests
#     bash scripts/gpu.sh train OUT      # short runs of each precision, killed and resumed too
#     bash scripts/gpu.sh speed OUT      # images/s, memory, profile, input, scoring
#
# OUT/PART.txt holds all that the steps print, with a summary at its end, and OUT/PART.json their
# numbers. `--only STEP ...` takes some steps, `--device cpu` tries the script with tiny sizes.
#
# For PyTorch 2.11 to 2.15 without network. It needs torch, timm, einops, numpy, scipy, pandas,
# pillow, safetensors, huggingface_hub, filelock, accelerate, matplotlib, tqdm, pyyaml, wrapt,
# pytest, for input and scoring torchvision and simplejpeg, for training also tensorboardX and
# protobuf, and for compiling triton, a C and a C++ compiler and Python's headers. What is missing
# is named, and only the steps that need it are left out, as bulk where Ray (ray, pyarrow) is not
# there. Wheels in wheels/ are used:
#
#     python3 -m pip download --no-deps --only-binary=:all: -d wheels --python-version 3.12 \
#         --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
#         simplejpeg tensorboardX protobuf wrapt
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root:$root/scripts${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if compgen -G "$root/wheels/*.whl" > /dev/null; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    python3 -m pip install -q --no-index --no-deps --target "$site" "$root"/wheels/*.whl
    PYTHONPATH+=":$site"
fi
python3 "$root/scripts/gpu.py" "$@"
