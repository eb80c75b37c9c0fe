#!/usr/bin/env bash
# Every number of this folder, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/animals/run.sh
# Two trainings at a time, one CPU thread each. Killed and started again, it goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
animals=cat,cow,dog,horse,person,sheep
data=voc:data/voc2012-animals
seeds=${SEEDS:-0 1}
export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000

mkdir -p stores runs
for split in train_small val; do
    tutored label onnx --weights weights/yolox_nano.onnx --data $data --split $split \
        --out stores/yolox-nano-$split --resume & boxes=$!
    tutored label files --from data/voc2012-animals-deeplab --data $data --split $split \
        --out stores/deeplab-$split --resume & maps=$!
    wait $boxes
    wait $maps
done
for tutor in yolox-nano deeplab; do
    tutored evaluate stores/$tutor-val --data $data --split val --classes $animals --json "$here/tutors/$tutor.json"
done

for seed in $seeds; do
    for student in gt gt20 tutors gt20-tutors; do
        echo "$student $seed"
    done
done | xargs -P 2 -L 1 bash -c \
    'tutored train "$0"/$1.yaml --train.seed $2 --out runs/$1-$2 --resume > runs/$1-$2.log 2>&1' "$here"

for seed in $seeds; do
    for student in gt gt20 tutors gt20-tutors; do
        mkdir -p "$here/runs/$student-$seed"
        cp runs/$student-$seed/result.json "$here/runs/$student-$seed/"
    done
done
python "$here/table.py" runs
