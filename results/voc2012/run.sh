#!/usr/bin/env bash
# The thesis' studies and those beyond on VOC2012 as the thesis has it, from a folder that holds VOCdevkit/VOC2012:
#   bash path/to/results/voc2012/run.sh [--scale small] [--seeds 1] [--jobs 2] [--hours 10]
# Fetches the tutors' weights (torchvision) and the backbone's (timm). Killed and started again, it goes on where it was;
# several machines may run it in one shared folder. What it costs: docs/studies.md; a first look, --scale small --seeds 1, is
# 4 million training images. Nothing is tuned: the settings are the recipes' own.
set -euo pipefail
data=voc:VOCdevkit/VOC2012

for split in Segmentation/train Main/train Segmentation/val; do
    name=${split//\//-}
    tutored label torchvision --model fasterrcnn_resnet50_fpn_v2 --weights COCO_V1 --download --score-floor 0.00001 \
        --data $data --split $split --out stores/detection-$name --resume
    tutored label torchvision --model deeplabv3_resnet101 --weights COCO_WITH_VOC_LABELS_V1 --download \
        --data $data --split $split --out stores/segmentation-$name --resume
    tutored label torchvision --model maskrcnn_resnet50_fpn_v2 --weights COCO_V1 --download \
        --data $data --split $split --out stores/instances-$name --resume
    tutored label rescored --boxes stores/detection-$name --maps stores/segmentation-$name --data $data --split $split \
        --out stores/vouched-$name --resume
done
tutored study run all --out study "$@"
tutored study report study
