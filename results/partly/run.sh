#!/usr/bin/env bash
# The three runs of this folder, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/partly/run.sh
# Killed and started again, it goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
voc=voc:data/voc2012-animals
classes=(cat cow dog horse sheep)
export OMP_NUM_THREADS=1

tutored label files --from data/voc2012-animals-deeplab --data $voc --split train_small \
    --out stores/segmentation-train_small --resume
tutored label instances --boxes ground_truth --maps stores/segmentation-train_small --data $voc --split train_small \
    --out stores/drawn-train_small --resume
tutored train "$here/alone.yaml" --out runs/alone --resume

# A split for each class: the images on which it, and nothing else, was drawn.
mkdir -p boxes-only/ImageSets/Main
for part in Annotations JPEGImages; do
    ln -sfn "$(realpath data/animals-boxes-only/$part)" boxes-only/$part
done
for class in "${classes[@]}"; do
    (cd boxes-only/Annotations && grep -l "<name>$class</name>" ./*.xml) | sed 's,^\./,,; s,\.xml$,,' \
        > boxes-only/ImageSets/Main/$class.txt
done
every=$(IFS=+; echo "${classes[*]}")
tutored label onnx --weights weights/yolox_nano.onnx --score-floor 0.01 --data voc:boxes-only --split "$every" \
    --out stores/detection-boxes-only --resume
tutored label student --weights runs/alone/checkpoint --tasks segmentation --data voc:boxes-only --split "$every" \
    --out stores/maps-boxes-only --resume
for class in "${classes[@]}"; do
    tutored label instances --boxes ground_truth --classes "$class" --maps stores/maps-boxes-only \
        --data voc:boxes-only --split "$class" --out stores/drawn-"$class" --resume
done
tutored train "$here/all.yaml" --out runs/all --resume

# As many steps as `all` has, on the first data set alone.
tutored train "$here/alone.yaml" --train.epochs 22 --out runs/longer --resume
tutored compare runs/all --against runs/alone
tutored compare runs/all --against runs/longer
