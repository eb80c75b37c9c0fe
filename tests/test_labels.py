import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutored.errors import InputError
from tutored.labels import COCO, VOC, ClassMap, LabelSpace


def test_all_twenty_voc_classes_are_found_in_coco_the_six_respelled_ones_too():
    pairs = ClassMap.by_name(VOC, COCO)
    assert None not in pairs.to
    named = {VOC.names[index]: COCO.names[to] for index, to in enumerate(pairs.to)}
    different = {name: other for name, other in named.items() if name != other}
    assert different == {
        "aeroplane": "airplane",
        "motorbike": "motorcycle",
        "diningtable": "dining table",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }
    back = ClassMap.by_name(COCO, VOC)
    assert len(back.unmapped) == 60
    assert back.unreached == ()


def test_folding_by_hand():
    source, target = LabelSpace.of(["truck", "car", "bear"]), LabelSpace.of(["car"])
    probs = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    merged = ClassMap.by_name(source, target, renamed={"truck": "car"})
    assert merged.fold(probs).tolist() == [[pytest.approx(0.5), pytest.approx(0.5)]]
    strict = ClassMap.by_name(source, target, elsewhere="ignore")
    assert strict.fold(probs)[0].tolist() == pytest.approx([0.1, 0.3])
    assert strict.unmapped == ("truck", "bear")
    assert "count as ignore" in strict.describe()


@given(st.lists(st.floats(0, 1), min_size=81, max_size=81))
def test_folding_keeps_all_probability_where_the_rest_is_background(values):
    probs = torch.tensor(values).reshape(81, 1, 1)
    folded = ClassMap.by_name(COCO, VOC).fold(probs, dim=0)
    assert folded.shape == (21, 1, 1)
    assert folded.sum().item() == pytest.approx(probs.sum().item(), abs=1e-4)


def test_mistakes_name_the_class_and_what_is_near():
    with pytest.raises(InputError, match="'hourse'; did you mean horse"):
        VOC.index("hourse")
    with pytest.raises(InputError, match="no class"):
        ClassMap.by_name(LabelSpace.of(["tree"]), VOC)
    with pytest.raises(InputError, match="unknown class 'lorry'"):
        ClassMap.by_name(COCO, VOC, renamed={"lorry": "car"})
    with pytest.raises(InputError, match="begins with 'background'"):
        LabelSpace(("cat", "background"))
    with pytest.raises(InputError, match="twice: cat"):
        LabelSpace.of(["cat", "dog", "cat"])


def test_a_tutor_that_lacks_a_class_of_ours_says_so():
    pairs = ClassMap.by_name(LabelSpace.of(["dog"]), LabelSpace.of(["dog", "cat"]))
    assert pairs.unreached == ("cat",)
    assert "knows nothing about cat" in pairs.describe()
