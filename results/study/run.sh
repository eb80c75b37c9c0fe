#!/usr/bin/env bash
# Every run of the declared studies, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/study/run.sh
# Two trainings at a time, one CPU thread each. Killed and started again, it goes on where it was; what this
# folder's runs.parquet holds is not trained again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data=voc:data/voc2012-animals
export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000

for split in train_small train val; do
    tutored label onnx --weights weights/yolox_nano.onnx --score-floor 0.0001 --data $data --split $split \
        --out stores/detection-$split --resume
    tutored label files --from data/voc2012-animals-deeplab --data $data --split $split \
        --out stores/segmentation-$split --resume
    tutored label instances --boxes stores/detection-$split --maps stores/segmentation-$split --data $data --split $split \
        --out stores/instances-$split --resume
    tutored label rescored --boxes stores/detection-$split --maps stores/segmentation-$split --data $data --split $split \
        --out stores/vouched-$split --resume
done

mkdir -p study
cp -n "$here"/{runs.parquet,study.yaml,setting.yaml} study/
tutored study run tune --setting "$here/setting.yaml" --seeds 1 --jobs 2 --out study
tutored study run all --setting "$here/setting.yaml" --seeds 3 --jobs 2 --out study
cp study/runs.parquet "$here/"
tutored study report study --out "$here"
