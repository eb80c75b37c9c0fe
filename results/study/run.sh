#!/usr/bin/env bash
# Every number of this folder, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/study/run.sh
# Two trainings at a time, one CPU thread each. Killed and started again, it goes on where it was; what lies in this
# folder's runs/ is not trained again.
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
    tutored label vouched --boxes stores/detection-$split --maps stores/segmentation-$split --data $data --split $split \
        --out stores/vouched-$split --resume
done

mkdir -p study
cp -rn "$here"/{runs,study.yaml,setting.yaml} study/
tutored study run tune --setting "$here/setting.yaml" --seeds 1 --jobs 2 --out study
tutored study run all --setting "$here/setting.yaml" --seeds 3 --jobs 2 --out study

for run in study/runs/*/; do
    [ -f "$run/result.json" ] || continue
    kept="$here/runs/$(basename "$run")"
    mkdir -p "$kept"
    cp -r "$run"/{config.yaml,result.json,resamples.npz} "$kept/"
    if [ -d "$run/answers" ]; then cp -r "$run/answers" "$kept/"; fi
done
python "$here/vetting.py"
python "$here/vouching.py"
python "$here/doubt.py"
python "$here/weak.py"
python "$here/ceiling.py"
cp -rn "$here/conflict" .
for arm in "ground truth" "tutors alone" "tutors alone, vouched boxes"; do python "$here/conflict.py" "$arm" sum; done
for how in project level; do python "$here/conflict.py" "tutors alone" $how; done
python "$here/conflict.py" "ground truth" level
cp -rn "$here/literature" .
for seed in 0 1 2; do
    for how in dist cwd worst uncertainty; do python "$here/literature.py" "tutors alone" $how $seed; done
    python "$here/literature.py" "ground truth" uncertainty $seed
done
cp study/study.yaml "$here/"
mkdir -p "$here/tutors" && cp study/tutors/*.json "$here/tutors/"
python "$here/baselines.py"
tutored study report study tune all --out "$here"
