#!/usr/bin/env bash
# The runs of this folder, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/tasks/run.sh
# Killed and started again, it goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_NUM_THREADS=1
# examples/keypoints.py is the fourth task.
export PYTHONPATH="$here/../../examples${PYTHONPATH:+:$PYTHONPATH}"

# The same photographs with keypoints, and with one more list, `rest`: those of `train` that no student here is trained on.
mkdir -p wide/ImageSets/Main
for folder in JPEGImages Annotations SegmentationClass SegmentationObject; do
    ln -sfn "$PWD/data/voc2012-animals/$folder" wide/
done
cp data/voc2012-animals/ImageSets/Main/*.txt wide/ImageSets/Main/
comm -23 <(sort wide/ImageSets/Main/train.txt) <(sort wide/ImageSets/Main/train_small.txt) > wide/ImageSets/Main/rest.txt
python "$here/../../examples/keypoints.py" convert data/voc2012-animals/keypoints.json wide

tutored train "$here/tutor.yaml" --out tutor --resume
for split in train_small val; do
    tutored label onnx --weights weights/yolox_nano.onnx --score-floor 0.0001 --data voc:wide --split $split \
        --out stores/detection-$split --resume
    tutored label files --from data/voc2012-animals-deeplab --data voc:wide --split $split \
        --out stores/segmentation-$split --resume
    tutored label rescored --boxes stores/detection-$split --maps stores/segmentation-$split --data voc:wide \
        --split $split --out stores/vouched-$split --resume
    tutored label instances --boxes stores/vouched-$split --maps stores/segmentation-$split --data voc:wide \
        --split $split --out stores/instances-$split --resume
    tutored label student:tutor/checkpoint --data voc:wide --split $split --out stores/keypoints-$split --resume
done

mkdir -p tasks
cp -n "$here"/{runs.parquet,study.yaml,setting.yaml} tasks/ || true
tutored study run tasks --setting "$here/setting.yaml" --seeds 3 --out tasks
cp tasks/{runs.parquet,study.yaml} "$here/"
tutored study report tasks --out "$here"
