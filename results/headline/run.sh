#!/usr/bin/env bash
# The runs of this folder, from a folder that holds data/ and weights/ (or links to them):
#   bash path/to/results/headline/run.sh
# Killed and started again, it goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_NUM_THREADS=1

bash "$here/../wide.sh" train_small train val+rest val

# examples/defective.py draws the faulty ground truth.
export PYTHONPATH="$here/../../examples${PYTHONPATH:+:$PYTHONPATH}"
run() { # the study's name, its folder here and there, more options
    mkdir -p "$3"
    cp -n "$2"/{runs.parquet,study.yaml,setting.yaml} "$3/" || true
    tutored study run "$1" --setting "$2/setting.yaml" --seeds 3 --out "$3" "${@:4}"
    cp "$3"/{runs.parquet,study.yaml} "$2/"
    tutored study report "$3" --out "$2"
}
run headline/arms "$here" headline
run headline/precision "$here" headline
run headline/defective "$here/defective" defective
run headline/motive "$here/motive" motive

# The tutors of `quality`: the same detector at smaller inputs, asked for mirrored views too, and with the half of its boxes that
# `muted` lets teach.
for side in 160 224; do
    python - weights/yolox_nano.onnx $side yolox_nano-$side.onnx <<'END'
import sys

import onnx

model, side = onnx.load(sys.argv[1]), int(sys.argv[2])
for axis in (2, 3):
    model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = side
model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = sum((side // stride) ** 2 for stride in (8, 16, 32))
model.graph.ClearField("value_info")
onnx.save(model, sys.argv[3])
END
done
boxes() { # the store's name, a split, the rest of the command
    tutored label onnx --data voc:wide --split "$2" --out "stores/$1-$2" --resume "${@:3}"
}
for split in train_small val+rest; do
    boxes weakest $split --weights yolox_nano-160.onnx --score-floor 0.0001
    boxes weak $split --weights yolox_nano-224.onnx --score-floor 0.0001
    boxes flipped $split --weights weights/yolox_nano.onnx --score-floor 0.0001 --flip
done
boxes muted val+rest --weights weights/yolox_nano.onnx --score-floor 0.775

# And the student of a first round, seed 0 of "no ground truth, vouched tutors", trained anew: joined with the detector by the
# odds of their audits, and both vouched by maps.
tutored study show "$here" "headline/arms | corrected | no ground truth, vouched tutors" --json | sed -n 2p |
    python -c 'import json, sys; json.dump(json.load(sys.stdin)["config"], sys.stdout)' > first.yaml
tutored train first.yaml --out first
for split in train_small val+rest; do
    tutored label student:first/checkpoint --tasks detection --data voc:wide --split $split --out stores/first-$split --resume
done
for name in detection first; do
    tutored audit stores/$name-train_small --data voc:wide --split train_small --for stores/$name-val+rest
done
for split in train_small val+rest; do
    tutored label joined --join stores/detection-$split stores/first-$split --data voc:wide --split $split \
        --out stores/joined-$split --resume
    tutored label rescored --boxes stores/joined-$split --maps stores/segmentation-$split --data voc:wide --split $split \
        --out stores/selftaught-$split --resume
done
run headline/quality "$here/quality" quality

# Nearer to the thesis: maps made of instances, figures after every epoch, its own optimiser and augmentation.
for split in train_small val+rest; do
    tutored label instances --boxes stores/detection-$split --maps stores/segmentation-$split --data voc:wide --split $split \
        --out stores/instances-$split --resume
done
run headline/instances "$here/thesis" thesis
run headline/faster "$here/faster" faster --keep
python "$here/faster/curves.py" faster
run thesis/table-12 "$here/recipe" recipe --recipe thesis
