#!/usr/bin/env bash
# Every number of this folder, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/audit/run.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
images="--data voc:data/voc2012-animals --split train_small"
export OMP_NUM_THREADS=1

tutored label onnx --weights weights/yolox_nano.onnx --score-floor 0.0001 $images \
    --out stores/detection-train_small --resume
tutored label files --from data/voc2012-animals-deeplab $images --out stores/segmentation-train_small --resume

for task in detection segmentation; do
    tutored audit "stores/$task-train_small" $images
    cp "stores/$task-train_small/audit.json" "$here/$task.json"

    # The same answers with cats called dogs and dogs called cats: a fault that the audit has to name.
    rm -rf "stores/$task-swapped"
    cp -r "stores/$task-train_small" "stores/$task-swapped"
    tutored audit "stores/$task-swapped" $images --renamed cat=dog,dog=cat --worst 0 |
        sed -n 's/^  ! //p'
done
