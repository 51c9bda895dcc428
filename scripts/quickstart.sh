#!/usr/bin/env bash
# Environment, sample data, training, evaluation, a score and pictures, in minutes on two CPU cores.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

run=runs/quickstart-$(date +%Y%m%d-%H%M%S)
echo "== Sample data: drawn images with simulated votes, in AVA's layout"
eat sample data/sample
echo "== Training eat_nano from scratch"
python main_nni.py --config sample --run.folder "$run" "$@"
checkpoint=$run/checkpoints/best.safetensors
echo "== Metrics on the test images"
eat evaluate "$checkpoint"
image=data/sample/images/500000.jpg
echo "== The score of an image, 1 to 10"
eat score "$image" --checkpoint "$checkpoint" --format jsonl
echo "== The model's interest points in it"
eat points "$image" --checkpoint "$checkpoint" --out "$run/points.png"
ln -sfn "$(basename "$run")" runs/quickstart
echo
echo "Pictures: $run/points.png, $run/curves.png, $run/predictions.png"
echo "Go on:    source .venv/bin/activate && eat --help (runs/quickstart is this run)"
