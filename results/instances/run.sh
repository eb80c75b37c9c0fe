#!/usr/bin/env bash
# The runs of this folder, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/instances/run.sh
# Killed and started again, it goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data=voc:data/voc2012-animals
export OMP_NUM_THREADS=1

tutored label files --from data/voc2012-animals-deeplab --data $data --split train_small \
    --out stores/segmentation-train_small --resume
tutored label instances --boxes ground_truth --maps stores/segmentation-train_small --data $data --split train_small \
    --out stores/drawn-train_small --resume

mkdir -p instances
cp -n "$here"/{runs.parquet,study.yaml,setting.yaml} instances/ || true
tutored study run instances/third --setting "$here/setting.yaml" --seeds 3 --jobs 2 --out instances
cp instances/{runs.parquet,study.yaml,setting.yaml} "$here/"
tutored study report instances --out "$here"
