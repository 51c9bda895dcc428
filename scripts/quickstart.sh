#!/usr/bin/env bash
# Environment, sample data, training, evaluation, a score and pictures, in minutes on two CPU cores.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

run=runs/quickstart-$(date +%Y%m%d-%H%M%S)
echo "== Sample data: drawn photographs with simulated votes, in AVA's layout"
eat sample data/sample
echo "== Training eat_nano from scratch"
python main_nni.py --config configs/sample.yaml --run.folder "$run" "$@"
checkpoint=$run/checkpoints/best.safetensors
echo "== Metrics on the unseen test images"
eat evaluate "$checkpoint"
photo=data/sample/images/500000.jpg
echo "== The score of a photograph, 1 to 10"
eat score "$photo" --checkpoint "$checkpoint" --format jsonl
echo "== Where the model looks in it"
eat points "$photo" --checkpoint "$checkpoint" --out "$run/points.png"
echo
echo "Pictures: $run/points.png, $run/curves.png, $run/predictions.png"
echo "Curves:   .venv/bin/tensorboard --logdir $run/curves (after pip install tensorboard)"
