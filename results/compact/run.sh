#!/usr/bin/env bash
# The runs of this folder, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/compact/run.sh
# Killed and started again, it goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data=voc:data/voc2012-animals
export OMP_NUM_THREADS=1

for split in train_small val; do
    tutored label onnx --weights weights/yolox_nano.onnx --score-floor 0.0001 --data $data --split $split \
        --out stores/detection-$split --resume
    tutored label files --from data/voc2012-animals-deeplab --data $data --split $split \
        --out stores/segmentation-$split --resume
done

mkdir -p compact
cp -n "$here"/{runs.parquet,study.yaml,setting.yaml} compact/
tutored study run compact/ten --setting "$here/setting.yaml" --seeds 3 --jobs 2 --out compact
tutored study run compact/longer --setting "$here/setting.yaml" --seeds 1 --jobs 2 --out compact
cp compact/runs.parquet "$here/"
tutored study report compact --out "$here"
