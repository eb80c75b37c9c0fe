"""A picture's boxes and mask as `tutored predict` gives them: python onnx_only.py STUDENT.onnx PICTURE MASK.png

STUDENT.onnx: `tutored export CHECKPOINT --nms --out STUDENT.onnx`, of a student with the tasks `detection` and
`segmentation`. Needs onnxruntime, numpy and pillow.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
tasks, size = json.loads(session.get_modelmeta().custom_metadata_map["tasks"]), session.get_inputs()[0].shape[2]
picture = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
pixels = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32) / 255
(boxes,), (scores,), (classes,), (count,), (logits,) = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})
boxes = boxes * np.tile(picture.size, 2) / size
for box, score, number in zip(boxes[:count], scores, classes, strict=False):
    print(tasks["detection"]["names"][number], f"{score:.3f}", *box.round(2))
enlarged = [Image.fromarray(layer).resize(picture.size, Image.Resampling.BILINEAR) for layer in logits]
Image.fromarray(np.stack(enlarged).argmax(axis=0).astype(np.uint8)).save(sys.argv[3])
