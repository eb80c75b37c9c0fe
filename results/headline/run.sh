#!/usr/bin/env bash
# The runs of this folder, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/headline/run.sh
# Killed and started again, it goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_NUM_THREADS=1

# The same photographs with one more list, `rest`: those of `train` that no student here is trained on.
mkdir -p wide/ImageSets/Main
for folder in JPEGImages Annotations SegmentationClass; do ln -sfn "$PWD/data/voc2012-animals/$folder" wide/; done
cp data/voc2012-animals/ImageSets/Main/*.txt wide/ImageSets/Main/
comm -23 <(sort wide/ImageSets/Main/train.txt) <(sort wide/ImageSets/Main/train_small.txt) > wide/ImageSets/Main/rest.txt

for split in train_small train val+rest val; do
    tutored label onnx --weights weights/yolox_nano.onnx --score-floor 0.0001 --data voc:wide --split $split \
        --out stores/detection-$split --resume
    tutored label files --from data/voc2012-animals-deeplab --data voc:wide --split $split \
        --out stores/segmentation-$split --resume
    tutored label rescored --boxes stores/detection-$split --maps stores/segmentation-$split --data voc:wide \
        --split $split --out stores/vouched-$split --resume
done

# examples/defective.py draws the faulty ground truth.
export PYTHONPATH="$here/../../examples${PYTHONPATH:+:$PYTHONPATH}"
run() { # the study's name, and its folder here and there
    mkdir -p "$3"
    cp -n "$2"/{runs.parquet,study.yaml,setting.yaml} "$3/" || true
    tutored study run "$1" --setting "$2/setting.yaml" --seeds 3 --out "$3"
    cp "$3"/{runs.parquet,study.yaml} "$2/"
    tutored study report "$3" --out "$2"
}
run headline/arms "$here" headline
run headline/precision "$here" headline
run headline/defective "$here/defective" defective
run headline/motive "$here/motive" motive
