#!/usr/bin/env bash
# What several studies need, in a folder that holds data/ and weights/ (or links to them); the arguments are splits:
#   bash path/to/results/wide.sh train_small val
# Killed and started again, it goes on where it was.
set -euo pipefail

# The same photographs with one more list, `rest`: those of `train` that no student here is trained on.
mkdir -p wide/ImageSets/Main
for folder in JPEGImages Annotations SegmentationClass SegmentationObject; do
    ln -sfn "$PWD/data/voc2012-animals/$folder" wide/
done
cp data/voc2012-animals/ImageSets/Main/*.txt wide/ImageSets/Main/
comm -23 <(sort wide/ImageSets/Main/train.txt) <(sort wide/ImageSets/Main/train_small.txt) > wide/ImageSets/Main/rest.txt

# The two tutors' answers, and the boxes once more as the maps vouch for them.
for split in "$@"; do
    tutored label onnx --weights weights/yolox_nano.onnx --score-floor 0.0001 --data voc:wide --split "$split" \
        --out "stores/detection-$split" --resume
    tutored label files --from data/voc2012-animals-deeplab --data voc:wide --split "$split" \
        --out "stores/segmentation-$split" --resume
    tutored label rescored --boxes "stores/detection-$split" --maps "stores/segmentation-$split" --data voc:wide \
        --split "$split" --out "stores/vouched-$split" --resume
done
