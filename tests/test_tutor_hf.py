"""Models of transformers as tutors: random networks, saved by the test, against transformers' own post-processing."""

import json
import socket
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import made
from made import ask, ask_boxes, ask_map, refused
from tutored.boxes import iou
from tutored.cli import main
from tutored.errors import InputError
from tutored.labels import VOC, ClassMap
from tutored.softlabels import Store
from tutored.tutors import open_tutor
from tutored.tutors.hf import mask_scores, semantic_scores

transformers = pytest.importorskip("transformers")

"""A folder, and the network and the preprocessor that were saved in it."""
NAMES = ["cat", "N/A", "dog", "horse"]
SIDE = {"height": 64, "width": 96}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "layer_type": "basic"}
LEVELS = {"out_features": ["stage2", "stage3", "stage4"]}
SWIN = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 4, "image_size": 64}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
DETR = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 12, "use_timm_backbone": False}
for side in ("encoder", "decoder"):
    DETR |= {f"{side}_attention_heads": 2, f"{side}_ffn_dim": 16}
QUERIES = {"num_queries": 6, "hidden_dim": 32, "mask_feature_size": 32, "feature_size": 32, "encoder_layers": 1}
QUERIES |= {"decoder_layers": 2, "num_attention_heads": 2, "dim_feedforward": 16, "encoder_feedforward_dim": 16}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    asked = []

    def refuse(*given, **options):
        asked.append(given)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert not asked, "a tutor from a folder asks nobody"


def noise(height=41, width=65):
    return made.noise(height, width)


def opened(folder, **options):
    return open_tutor("hf", model=folder, device="cpu", **options)


def save(folder, model, config, processor, names=NAMES, **settings):
    torch.manual_seed(0)
    config.id2label, config.label2id = dict(enumerate(names)), {name: index for index, name in enumerate(names)}
    network = getattr(transformers, model)(config).eval()
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1 and ("class" in name or "bbox" in name or "query_position" in name):
            torch.nn.init.normal_(parameter, std=0.3)  # scores and boxes that differ
    processor = getattr(transformers, processor)(**{"size": SIDE} | settings)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, network, processor


def edit(file, changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@torch.no_grad()
def raw(made, image, **more):
    _, network, processor = made
    return network(pixel_values=processor(images=image, return_tensors="pt", **more)["pixel_values"])


# Detection


def detr(folder):
    config = transformers.DetrConfig(backbone_config=transformers.ResNetConfig(**RESNET, **LEVELS), **DETR)
    return save(folder, "DetrForObjectDetection", config, "DetrImageProcessor", ["cat", "dog", "horse"])


def detr_of_timm(folder):
    """As transformers 4 wrote it: the backbone is a name of timm's, and its pretrained weights are wanted."""
    outputs = {"out_indices": [1, 2, 3, 4]}
    backbone = transformers.TimmBackboneConfig(backbone="resnet10t", use_pretrained_backbone=False, **outputs)
    config = transformers.DetrConfig(backbone_config=backbone, **DETR)
    made = save(folder, "DetrForObjectDetection", config, "DetrImageProcessor", ["cat", "dog", "horse"])
    settings = {"use_timm_backbone": True, "backbone": "resnet10t"}
    settings |= {"use_pretrained_backbone": True, "backbone_config": None, "backbone_kwargs": outputs | {"in_chans": 3}}
    edit(folder / "config.json", settings)
    return made


def conditional(folder, names=NAMES):
    config = transformers.ConditionalDetrConfig(backbone_config=transformers.ResNetConfig(**RESNET, **LEVELS), **DETR)
    return save(folder, "ConditionalDetrForObjectDetection", config, "ConditionalDetrImageProcessor", names)


def yolos(folder, names=NAMES[::2] + NAMES[3:]):
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.YolosConfig(image_size=[64, 96], num_detection_tokens=9, **size)
    return save(folder, "YolosForObjectDetection", config, "YolosImageProcessor", names)


def rt_detr(folder):
    shape = {"d_model": 32, "encoder_hidden_dim": 32, "encoder_in_channels": [8, 16, 16], "num_denoising": 0}
    shape |= {"decoder_in_channels": [32] * 3, "decoder_layers": 2, "num_queries": 40}
    shape |= {name: size for name, size in DETR.items() if "ffn" in name or "heads" in name}
    backbone = transformers.RTDetrResNetConfig(**RESNET | {"hidden_sizes": [8, 8, 16, 16]}, **LEVELS)
    config = transformers.RTDetrConfig(backbone_config=backbone, **shape)
    return save(folder, "RTDetrForObjectDetection", config, "RTDetrImageProcessor")


@pytest.mark.parametrize("make", [detr, detr_of_timm, yolos, conditional, rt_detr])
def test_detectors_answer_as_transformers_does(make, tmp_path):
    made, image = make(tmp_path), noise()
    names = list(made[1].config.id2label.values())
    tutor = open_tutor(f"hf:{tmp_path}", device="cpu", score_floor=0.0)
    assert tutor.labels.classes == ("cat", "dog", "horse"), "read from the model, without what is nothing"
    found = ask_boxes(tutor, image)
    outputs = raw(made, image)
    (theirs,) = made[2].post_process_object_detection(outputs, threshold=0.0, target_sizes=[(41, 65)])
    order = theirs["scores"].argsort(descending=True, stable=True)
    boxes, scores, labels = (theirs[name][order] for name in ("boxes", "scores", "labels"))
    boxes = boxes.clamp(min=0).minimum(torch.tensor([65, 41, 65, 41]))
    named = [names[label] for label in labels]
    kept = torch.tensor([name != "N/A" for name in named]) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    count = int(kept.sum())
    assert count >= 5, "the test tests something"
    assert torch.allclose(found.scores[:count], scores[kept], atol=1e-4)
    ours = [tutor.labels.names[index] for index in found.classes]
    for box, score, name in [row for row, use in zip(zip(boxes, scores, named, strict=True), kept, strict=True) if use]:
        same = torch.tensor([other == name for other in ours]) & ((found.boxes_xyxy - box).abs().amax(1) < 1e-4)
        assert (same & ((found.scores - score).abs() < 1e-4)).any(), "each of theirs is one of ours; ties in any order"
    assert torch.allclose(found.probs.sum(1), torch.ones(len(found.probs)), atol=1e-5)


def test_boxes_of_a_padded_picture_come_back_as_drawn(tmp_path):
    processor = rt_detr(tmp_path)[2]
    padded = {"size": {"max_height": 96, "max_width": 96}, "do_pad": True, "pad_size": {"height": 96, "width": 96}}
    edit(tmp_path / "preprocessor_config.json", padded)
    processor, tutor = type(processor).from_pretrained(tmp_path), opened(tmp_path)
    image = noise(50, 80)  # 60 x 96 of 96 x 96
    drawn = {"image_id": 1, "category_id": 0, "bbox": [20, 10, 40, 30], "area": 1200, "iscrowd": 0}
    (taught,) = processor(images=image, annotations={"image_id": 1, "annotations": [drawn]})["labels"]
    boxes = torch.as_tensor(taught["boxes"])[None].float()
    assert torch.allclose(boxes[0, 0], torch.tensor([40 / 80, 25 / 80, 40 / 80, 30 / 80])), "shares of the square"
    found = SimpleNamespace(logits=torch.tensor([[[3.0, -9, -9, -9]]]), pred_boxes=boxes)
    tutor.network = lambda **inputs: found
    assert ask_boxes(tutor, image).boxes_xyxy.tolist() == [pytest.approx([20, 10, 60, 40])]


@pytest.mark.parametrize("background", ["background", "N/A"])
def test_lines_name_outputs_of_sigmoids_and_softmaxes(tmp_path, background):
    (tmp_path / "names.txt").write_text(f"{background}\ncat\nN/A\ndog\n")
    for make in (conditional, yolos):
        made = make(tmp_path / make.__name__, [f"LABEL_{number}" for number in range(4)])
        tutor = opened(made[0], labels=tmp_path / "names.txt", score_floor=0.0)
        assert tutor.labels.classes == ("cat", "dog")
        logits = raw(made, noise()).logits[0]
        own = (logits.sigmoid() if make is conditional else logits.softmax(-1))[:, [1, 3]]
        found = ask_boxes(tutor, noise())
        assert float(found.scores[0]) == pytest.approx(float(own.max()), abs=1e-4)
        assert int(found.classes[0]) == int(own.amax(0).argmax()) + 1


def test_a_floor_and_suppression_are_what_the_identity_says(tmp_path):
    conditional(tmp_path)
    image = noise()
    plain = ask_boxes(opened(tmp_path, score_floor=0.0), image)
    floor = float(plain.scores[10])
    tutor = opened(tmp_path, score_floor=floor, nms_iou=0.5, max_boxes=4)
    assert (tutor.identity["score_floor"], tutor.identity["nms_iou"], tutor.identity["max_boxes"]) == (floor, 0.5, 4)
    assert tutor.identity["tutor"] == "ConditionalDetrForObjectDetection"
    assert '"size": {"height": 64, "width": 96}' in tutor.identity["preprocessing"]
    assert len(tutor.identity["weights_sha256"]) == 64 and str(tmp_path) not in json.dumps(tutor.identity)
    found = ask_boxes(tutor, image)
    assert len(found.scores) <= 4 and found.scores.min() > floor and found.scores[0] == plain.scores[0]
    apart = ask_boxes(opened(tmp_path, score_floor=0.0, nms_iou=0.0), image)
    same = apart.classes[:, None] == apart.classes
    assert (iou(apart.boxes_xyxy, apart.boxes_xyxy) * same).fill_diagonal_(0).max() == 0 < len(apart.scores)
    assert len(apart.scores) < len(plain.scores)


# Semantic segmentation


def segformer(folder, names=NAMES):
    shape = {"depths": [1] * 4, "hidden_sizes": [8] * 4, "num_attention_heads": [1, 1, 2, 2]}
    config = transformers.SegformerConfig(decoder_hidden_size=8, **shape)
    return save(folder, "SegformerForSemanticSegmentation", config, "SegformerImageProcessor", names)


def test_segformer_answers_as_transformers_does(tmp_path):
    made, image = segformer(tmp_path, ["wall", "bed ", "sofa, couch, lounge"]), noise()
    tutor = opened(tmp_path, stride=1)
    assert tutor.labels.classes == ("wall", "bed", "sofa, couch, lounge")
    found = ask_map(tutor, image)
    assert found.shape == (4, 16, 24), "the network's own grid: a quarter of 64 x 96"
    assert found[0].abs().max() == 0, "no background: each pixel is one of the classes"
    logits = raw(made, image).logits[0]
    assert torch.allclose(found[1:], logits.softmax(0), atol=1e-4)
    (theirs,) = made[2].post_process_semantic_segmentation(raw(made, image), target_sizes=[(41, 65)])
    enlarged = torch.nn.functional.interpolate(found[None, 1:].log(), (41, 65), mode="bilinear")[0]
    assert (enlarged.argmax(0) == theirs).float().mean() > 0.999, "interpolated logits, but for ties"
    coarse = ask_map(opened(tmp_path), image)
    assert coarse.shape == (4, 6, 9) and torch.allclose(coarse.sum(0), torch.ones(6, 9), atol=1e-5)
    assert torch.allclose(coarse.mean((1, 2)), found.mean((1, 2)), atol=0.02)
    assert [VOC.names[to] for to in ClassMap.by_name(tutor.labels, VOC).to if to] == ["sofa"]


def test_maps_and_masks_that_are_not_finite_are_refused(tmp_path):
    network = segformer(tmp_path / "map")[1]
    torch.nn.init.constant_(network.decode_head.classifier.bias, float("nan"))
    network.save_pretrained(tmp_path / "map")
    with pytest.raises(InputError, match="image a: 1536 of the network's 1536 map values are NaN"):  # 4 x 16 x 24
        ask(opened(tmp_path / "map"), noise())
    network = mask2former(tmp_path / "masks")[1]
    torch.nn.init.constant_(network.model.pixel_level_module.decoder.mask_projection.bias, float("nan"))
    network.save_pretrained(tmp_path / "masks")
    with pytest.raises(InputError, match="image a: 2304 of the network's 2304 mask values are NaN"):  # 6 x 16 x 24
        ask(opened(tmp_path / "masks", instances=True), noise())


# Universal models


def swin():
    return transformers.SwinConfig(**SWIN, **STAGES)


def mask2former(folder):
    config = transformers.Mask2FormerConfig(backbone_config=swin(), **QUERIES)
    return save(folder, "Mask2FormerForUniversalSegmentation", config, "Mask2FormerImageProcessor", size_divisor=32)


def maskformer(folder):
    decoder = transformers.DetrConfig(backbone_config=transformers.ResNetConfig(**RESNET, **LEVELS), **DETR)
    backbone = transformers.ResNetConfig(**RESNET, **STAGES)
    parts = {"backbone_config": backbone, "decoder_config": decoder}
    config = transformers.MaskFormerConfig(**parts, fpn_feature_size=32, mask_feature_size=32)
    return save(folder, "MaskFormerForInstanceSegmentation", config, "MaskFormerImageProcessor", size_divisor=32)


def test_maskformers_map_is_its_own_scores(tmp_path):
    made, image = maskformer(tmp_path), noise()
    tutor = opened(tmp_path, stride=1)
    found = ask_map(tutor, image)
    grid = found.shape[1:]
    how = {"target_sizes": [tuple(grid)], "return_segmentation_scores": True}
    (theirs,) = made[2].post_process_semantic_segmentation(raw(made, image), **how)
    scores = theirs["segmentation_scores"]
    assert grid == (16, 24) and torch.allclose(found.sum(0), torch.ones(grid), atol=1e-5)
    classes = scores[[0, 2, 3]]
    total = scores.sum(0).clamp(min=1)
    assert torch.allclose(found[1:], classes / total, atol=1e-4)
    assert torch.allclose(found[0], 1 - classes.sum(0) / total, atol=1e-4), "N/A and what nobody claims"


def test_mask2formers_scores_are_those_of_transformers(tmp_path):
    processor = mask2former(tmp_path)[2]
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(1, 6, 5, generator=generator) * 2
    # On the grid of 384 x 384 that theirs enlarges every mask to, both compute from the same numbers.
    masks = torch.nn.functional.interpolate(torch.randn(1, 6, 12, 12, generator=generator) * 4, (384, 384))
    outputs = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks)
    (theirs,) = processor.post_process_semantic_segmentation(outputs, return_segmentation_scores=True)
    assert torch.allclose(semantic_scores(classes[0], masks[0]), theirs["segmentation_scores"], atol=1e-4)
    (objects,) = processor.post_process_instance_segmentation(outputs, threshold=0.0, return_binary_maps=True)
    probs = classes[0].softmax(-1)[:, :-1]
    # Theirs takes the likeliest pairs by class before it knows the masks' scores.
    ours = (probs * mask_scores(masks[0].sigmoid())[:, None]).flatten()[probs.flatten().topk(6).indices]
    expected = [segment["score"] for segment in objects["segments_info"]]
    assert sorted(ours.tolist()) == pytest.approx(sorted(expected), abs=1e-4)


def test_mask2former_gives_a_map_or_instances(tmp_path):
    made, image = mask2former(tmp_path), noise()
    drawn = ask_map(opened(tmp_path, stride=1), image)
    outputs = raw(made, image)
    scores = semantic_scores(outputs.class_queries_logits[0], outputs.masks_queries_logits[0])
    assert drawn.shape == (4, 16, 24)
    assert torch.allclose(drawn[2], scores[2] / scores.sum(0).clamp(min=1), atol=1e-5)
    tutor = opened(tmp_path, instances=True, score_floor=0.0)
    answer = ask(tutor, image).tasks
    found, seen = answer["detection"], answer["instances"]
    assert len(answer) == 2 and torch.equal(seen.boxes_xyxy, found.boxes_xyxy)
    assert torch.equal(seen.scores, found.scores) and seen.masks.shape[1:] == (28, 28)
    assert len(found.classes) == 18, "six queries under three classes"
    masks = outputs.masks_queries_logits[0].sigmoid()
    own = outputs.class_queries_logits[0].softmax(-1)[:, [0, 2, 3]] * mask_scores(masks)[:, None]
    assert torch.allclose(found.scores, own.flatten().sort(descending=True).values, atol=1e-5)
    query = int(own.flatten().argmax()) // 3
    rows, columns = (masks[query] > 0.5).nonzero(as_tuple=True)
    box = [columns.min() * 65 / 24, rows.min() * 41 / 16, (columns.max() + 1) * 65 / 24, (rows.max() + 1) * 41 / 16]
    assert found.boxes_xyxy[0].tolist() == pytest.approx([float(side) for side in box], abs=1e-4)


def test_oneformer_is_told_its_task_and_needs_no_class_file(tmp_path):
    shape = {name: size for name, size in QUERIES.items() if name not in ("mask_feature_size", "feature_size")}
    text = {"text_encoder_width": 16, "text_encoder_num_layers": 1, "text_encoder_vocab_size": 40, "task_seq_len": 8}
    shape |= text | {"conv_dim": 32, "mask_dim": 32, "text_encoder_n_ctx": 2}
    config = transformers.OneFormerConfig(backbone_config=swin(), is_training=False, **shape)
    made = save(tmp_path, "OneFormerForUniversalSegmentation", config, "OneFormerImageProcessor")
    edit(tmp_path / "preprocessor_config.json", {"class_info_file": "elsewhere.json"})
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "ekcst")]
    vocab = {token: number for number, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=[])
    tokenizer.save_pretrained(tmp_path)
    image = noise()
    pixels = made[2](images=image, task_inputs=["semantic"], return_tensors="pt")["pixel_values"]
    for task, options in (("semantic", {}), ("instance", {"instances": True, "score_floor": 0.0})):
        tokens = tokenizer([f"the task is {task}"], padding="max_length", max_length=8, truncation=True)
        given = torch.tensor(tokens["input_ids"]) * torch.tensor(tokens["attention_mask"])
        with torch.no_grad():
            outputs = made[1](pixel_values=pixels, task_inputs=given)
        found = ask(opened(tmp_path, stride=1, **options), image).tasks
        if task == "semantic":
            drawn = found["segmentation"].map
            how = {"target_sizes": [drawn.shape[1:]], "return_segmentation_scores": True}
            (theirs,) = made[2].post_process_semantic_segmentation(outputs, **how)
            scores = theirs["segmentation_scores"]
            assert torch.allclose(drawn[1], scores[0] / scores.sum(0).clamp(min=1), atol=1e-4)
        else:
            best = (outputs.class_queries_logits[0].softmax(-1)[:, [0, 2, 3]]).amax(1)
            best = best * mask_scores(outputs.masks_queries_logits[0].sigmoid())
            assert float(found["detection"].scores[0]) == pytest.approx(float(best.max()), abs=1e-4)


# What is refused


def test_models_that_are_refused(tmp_path):
    made = segformer(tmp_path / "m", ["LABEL_0", "LABEL_1"])
    refused("its 2 classes have no names; give labels=FILE", opened, tmp_path / "m")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert opened(tmp_path / "m", labels=tmp_path / "names.txt").labels.classes == ("cat", "dog")
    refused("2 classes, but 20 names", opened, tmp_path / "m", labels="voc")
    with pytest.raises(InputError, match="gives no instances; leave `instances` out"):
        opened(tmp_path / "m", labels=tmp_path / "names.txt", instances=True)
    with pytest.raises(InputError, match="score_floor: the tutor SegformerForSemanticSegmentation has no use for"):
        opened(tmp_path / "m", labels=tmp_path / "names.txt", score_floor=0.3)
    refused(r"nobody/nothing: no such folder, and no such repository .*--download", open_tutor, "hf:nobody/nothing")
    refused(r"no config\.json", open_tutor, "hf", model=tmp_path)
    torch.save(made[1].state_dict(), tmp_path / "m" / "pytorch_model.bin")
    (tmp_path / "m" / "model.safetensors").unlink()
    refused("no weights as safetensors, and pickles are never loaded", opened, tmp_path / "m")


def test_a_model_without_its_head_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    segformer(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    headless = {name: value for name, value in weights.items() if "classifier" not in name}
    save_file(headless, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refused(r"lacks weights of SegformerForSemanticSegmentation, such as decode_head\.cl", opened, tmp_path)
    for name in ("SegformerForImageClassification", "EomtForUniversalSegmentation"):
        edit(tmp_path / "config.json", {"architectures": [name]})
        refused(f"{name} is no tutor; possible: object detection", opened, tmp_path)


def test_a_preprocessor_that_does_not_fit_is_refused(tmp_path):
    shape = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    shape |= {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}
    config = transformers.DPTConfig(image_size=64, patch_size=16, **shape)
    save(tmp_path, "DPTForSemanticSegmentation", config, "DPTImageProcessor", do_resize=False)
    refused(r"does not take what its preprocessor makes of a picture of 96 x 64 .*`size`", opened, tmp_path)


# Scales, and the command


def test_scales_are_those_of_the_networks_input(tmp_path):
    segformer(tmp_path)
    tutor = opened(tmp_path, stride=1)
    assert ask_map(tutor.at_scale(2), noise()).shape == (4, 32, 48) and ask_map(tutor, noise()).shape == (4, 16, 24)
    joined = open_tutor(f"hf:{tmp_path}", device="cpu", stride=1, flip=True, scales=(1, 2))
    assert (joined.identity["flip"], joined.identity["scales"]) == (True, [1.0, 2.0])
    found = ask_map(joined, noise())
    assert found.shape == (4, 32, 48) and torch.allclose(found.sum(0), torch.ones(32, 48), atol=1e-5)
    mirrored = ask_map(joined, noise().transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert torch.allclose(found, mirrored.flip(-1), atol=1e-5), "the mean over both sides has no side"
    edit(tmp_path / "preprocessor_config.json", {"do_resize": False})
    refused("takes pictures as they are; leave scales out", opened, tmp_path, scales=(0.5, 1))


def test_the_command_labels_with_a_folder_by_its_short_name(voc_folder, tmp_path, capsys):
    rt_detr(tmp_path / "model")
    data = ["--data", f"voc:{voc_folder}", "--split", "val"]
    words = ["label", f"hf:{tmp_path / 'model'}", "--score-floor", "0.2", "--device", "cpu", "--flip", *data]
    assert main([*words, "--out", str(tmp_path / "store")]) == 0, capsys.readouterr().err
    made = Store.open(tmp_path / "store")
    assert made.labels.classes == ("cat", "dog", "horse") and made.kinds == ("detection",)
    assert made.identity["weights"] == "model" and made.identity["flip"] is True
    assert main(["evaluate", str(tmp_path / "store"), *data]) == 0
