#!/usr/bin/env bash
# The runs of this folder, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/tasks/run.sh
# Killed and started again, it goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_NUM_THREADS=1
# examples/keypoints.py is the fourth task.
export PYTHONPATH="$here/../../examples${PYTHONPATH:+:$PYTHONPATH}"

bash "$here/../wide.sh" train_small val
python "$here/../../examples/keypoints.py" convert data/voc2012-animals/keypoints.json wide

tutored train "$here/tutor.yaml" --out tutor --resume
for split in train_small val; do
    tutored label instances --boxes stores/vouched-$split --maps stores/segmentation-$split --data voc:wide \
        --split $split --out stores/instances-$split --resume
    tutored label student:tutor/checkpoint --data voc:wide --split $split --out stores/keypoints-$split --resume
done

mkdir -p tasks
cp -n "$here"/{runs.parquet,study.yaml,setting.yaml} tasks/ || true
tutored study run tasks --setting "$here/setting.yaml" --seeds 3 --out tasks
cp tasks/{runs.parquet,study.yaml} "$here/"
tutored study report tasks --out "$here"
