import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from made import refused
from tutored.errors import InputError
from tutored.labels import ALIASES, COCO, KNOWN, VOC, ClassMap, LabelSpace


def test_all_voc_classes_are_found_in_coco_six_respelled():
    pairs = ClassMap.by_name(VOC, COCO)
    assert None not in pairs.to
    named = {VOC.names[index]: COCO.names[to] for index, to in enumerate(pairs.to)}
    different = {name: other for name, other in named.items() if name != other}
    furniture = {"diningtable": "dining table", "pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv"}
    assert different == {"aeroplane": "airplane", "motorbike": "motorcycle", **furniture}
    back = ClassMap.by_name(COCO, VOC)
    assert len(back.unmapped) == 60
    assert back.unreached == ()


def test_remapping_by_hand():
    source, target = LabelSpace.of(["truck", "car", "bear"]), LabelSpace.of(["car"])
    probs = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    merged = ClassMap.by_name(source, target, renamed={"truck": "car"})
    assert merged.remap(probs).tolist() == [[pytest.approx(0.5), pytest.approx(0.5)]]
    strict = ClassMap.by_name(source, target, elsewhere="ignore")
    assert strict.remap(probs)[0].tolist() == pytest.approx([0.1, 0.3])
    assert strict.unmapped == ("truck", "bear")
    assert strict.describe() == "1 of the tutor's 3 classes map to ours; the other 2 (truck, bear) are ignored"


def test_each_dropped_class_may_say_where_its_probability_goes():
    source, target = LabelSpace.of(["sofa", "armchair", "wall", "cat"]), LabelSpace.of(["sofa"])
    probs = torch.tensor([[0.05, 0.1, 0.2, 0.25, 0.4]])
    renamed = {"armchair": "ignore"}
    some = ClassMap.by_name(source, target, renamed=renamed)
    assert some.remap(probs)[0].tolist() == pytest.approx([0.7, 0.1])
    assert some.describe().endswith("; 2 (wall, cat) count as background; 1 (armchair) are ignored")
    most = ClassMap.by_name(source, target, renamed={"wall": "background", "cat": None}, elsewhere="ignore")
    assert most.remap(probs)[0].tolist() == pytest.approx([0.3, 0.1]) and most.ignored == {2, 4}


def test_mistakes_name_the_class_and_what_is_near():
    refused("'hourse'; did you mean horse", VOC.index, "hourse")
    with pytest.raises(InputError, match="no class"):
        ClassMap.by_name(LabelSpace.of(["tree"]), VOC)
    with pytest.raises(InputError, match=r"\(tree\) is one of ours \(none\); name them in a file labels\.txt"):
        ClassMap.by_name(LabelSpace.of(["tree"]), LabelSpace.of([]))
    with pytest.raises(InputError, match="unknown class 'tree'; possible: none"):
        LabelSpace.of([]).index("tree")
    refused("unknown class 'lorry'", ClassMap.by_name, COCO, VOC, renamed={"lorry": "car"})
    refused("unknown class 'lorry'; possible: aeroplane", ClassMap.by_name, COCO, VOC, renamed={"car": "lorry"})
    refused("class '2'; classes are given by name, not by number; possible: aeroplane", VOC.index, "2")
    refused("background stays background", ClassMap.by_name, COCO, VOC, renamed={"background": "cat"})
    refused("begins with 'background'", LabelSpace, ("cat", "background"))
    refused("twice: cat", LabelSpace.of, ["cat", "dog", "cat"])


ADE20K, OPEN_IMAGES = KNOWN["ade20k"], KNOWN["open-images"]


def test_known_label_spaces_map_to_voc_and_coco():
    counts = {name: len(space.classes) for name, space in KNOWN.items()}
    assert counts == {"voc": 20, "coco": 80, "ade20k": 150, "cityscapes": 19, "open-images": 601}
    assert (ADE20K.names[1], ADE20K.names[13], ADE20K.names[150]) == ("wall", "person", "flag")
    assert ClassMap.by_name(OPEN_IMAGES, COCO).unreached == ("sports ball", "cup")
    assert ClassMap.by_name(OPEN_IMAGES, VOC).unreached == ()
    lacking = ClassMap.by_name(ADE20K, VOC).unreached
    assert lacking == ("bird", "cat", "cow", "diningtable", "dog", "horse", "pottedplant", "sheep", "train")
    city = ClassMap.by_name(KNOWN["cityscapes"], VOC)
    there = [VOC.names[to] for to in city.to[1:] if to]
    assert there == ["person", "car", "bus", "train", "motorbike", "bicycle"]


def test_names_that_only_look_alike_are_other_classes():
    pairs = zip(OPEN_IMAGES.names, ClassMap.by_name(OPEN_IMAGES, COCO).to, strict=True)
    named = {name: to and COCO.names[to] for name, to in pairs}
    assert named["Mouse"] is None and named["Computer mouse"] == "mouse"
    assert named["Table"] is None and named["Kitchen & dining room table"] == "dining table"
    assert named["Plant"] is None and named["Man"] is None


SPACE = st.lists(st.sampled_from([*COCO.classes, *ADE20K.classes]), min_size=1, max_size=12, unique=True)


@given(SPACE, st.data())
def test_remapping_moves_keeps_or_removes_as_the_map_says(classes, data):
    source, target = LabelSpace.of(classes), LabelSpace.of(["person", "cat", "everything"])
    choice = st.sampled_from([None, *target.classes])
    renamed = {classes[0]: "everything"} | {name: data.draw(choice) for name in classes[1:]}
    values = data.draw(st.lists(st.integers(0, 100), min_size=len(source), max_size=len(source)))
    probs = torch.tensor(values, dtype=torch.float32)
    dropped = sum(value for name, value in zip(classes, values[1:], strict=True) if renamed[name] is None)
    for elsewhere in ("background", "ignore"):
        remapped = ClassMap.by_name(source, target, renamed=renamed, elsewhere=elsewhere).remap(probs)
        own = [sum(v for n, v in zip(classes, values[1:], strict=True) if renamed[n] == c) for c in target.classes]
        assert remapped[1:].tolist() == own, "many to one"
        assert remapped[0] == values[0] + (dropped if elsewhere == "background" else 0)
        assert sum(values) - remapped.sum() == (0 if elsewhere == "background" else dropped)


@given(st.lists(st.floats(0, 1), min_size=81, max_size=81))
def test_all_probability_is_kept_where_the_rest_is_background(values):
    probs = torch.tensor(values).reshape(81, 1, 1)
    remapped = ClassMap.by_name(COCO, VOC).remap(probs, dim=0)
    assert remapped.shape == (21, 1, 1)
    assert remapped.sum().item() == pytest.approx(probs.sum().item(), abs=1e-4)


def test_a_tutor_that_lacks_a_class_of_ours_says_so():
    pairs = ClassMap.by_name(LabelSpace.of(["dog"]), LabelSpace.of(["dog", "cat"]))
    assert pairs.unreached == ("cat",)
    assert "knows nothing about cat" in pairs.describe()


def test_of_synonyms_behind_commas_the_first_counts():
    full = LabelSpace.of(["airplane, aeroplane, plane", "minibike, motorbike", "screen door, screen", "pot, flowerpot"])
    assert ClassMap.by_name(full, VOC).to == (0, VOC.index("aeroplane"), VOC.index("motorbike"), None, None)
    assert ClassMap.by_name(full, ADE20K).to[3:] == (ADE20K.index("screen door"), ADE20K.index("pot"))


def test_every_alias_is_a_name_of_some_data_set():
    known = {name for space in KNOWN.values() for name in space.names}
    named = [name for alias in ALIASES for name in alias]
    assert set(named) <= known and len(named) == len(set(named))
    for space in KNOWN.values():
        assert all(len(alias & set(space.names)) <= 1 for alias in ALIASES), "no two classes of one space are one"
