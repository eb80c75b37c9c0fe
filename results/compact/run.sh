#!/usr/bin/env bash
# The runs of this folder, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/compact/run.sh
# Killed and started again, it goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_NUM_THREADS=1

bash "$here/../wide.sh" train_small train val

mkdir -p compact
cp -n "$here"/{runs.parquet,study.yaml,setting.yaml} compact/
tutored study run compact/ten --setting "$here/setting.yaml" --seeds 3 --jobs 2 --out compact
tutored study run compact/longer compact/larger --setting "$here/setting.yaml" --seeds 1 --jobs 2 --out compact
cp compact/{runs.parquet,study.yaml} "$here/"
tutored study report compact --out "$here"
