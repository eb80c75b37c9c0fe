import pytest
import yaml
from torch import nn

from made import LABELS, refused
from tutored.config import Config, StudentSection, flat, load_config, make_config
from tutored.errors import InputError
from tutored.students import Head, Student, make_student
from tutored.tasks import DenseTask, open_task, task_class
from tutored.tasks.detection import Detection
from tutored.tasks.segmentation import Segmentation

PLAIN = {"data": {"train": "voc:x"}}


def write(folder, content):
    path = folder / "run.yaml"
    path.write_text(content)
    return path


def test_overrides_win_over_the_file_and_it_over_the_recipe(tmp_path):
    tasks = "tasks: {segmentation: {temperature: 0.7}, detection: {}}"
    path = write(tmp_path, f"recipe: thesis\ndata: {{train: 'voc:x'}}\n{tasks}\ntrain: {{lr: 0.5}}\n")
    made = load_config(path, [("train.lr", "1e-3"), ("tasks.detection.reported", "[cat, dog]")])
    assert made.train.lr == 0.001 and made.train.optimizer == "adam"
    assert made.tasks["segmentation"].temperature == 0.7 and made.tasks["segmentation"].target == "softmax"
    assert made.tasks["detection"].reported == ("cat", "dog")


def test_a_key_of_one_task_leaves_the_usual_ones_in_the_run(tmp_path):
    path = write(tmp_path, "data: {train: 'voc:x'}")
    assert list(load_config(path).tasks) == ["detection", "segmentation"]
    made = load_config(path, [("tasks.parts.kind", "segmentation"), ("tasks.segmentation.weight", "2")])
    assert {name: task.weight for name, task in made.tasks.items()} == {"detection": 1, "segmentation": 2, "parts": 1}
    assert list(load_config(path, [("tasks", "{segmentation: {}}")]).tasks) == ["segmentation"]


def test_the_complete_config_reads_back_with_its_run_id():
    tasks = {"detection": {"hidden": 0.5}, "parts": {"kind": "segmentation", "from": "Parts", "labels": "parts.txt"}}
    made = make_config({**PLAIN, "tasks": tasks})
    again = Config.model_validate(yaml.safe_load(yaml.safe_dump(made.to_dict())))
    assert again == made and again.run_id == made.run_id
    assert again.tasks["parts"].folder == "Parts"
    assert make_config({**PLAIN, "train": {"seed": 1}}).run_id != make_config(PLAIN).run_id
    assert make_config({**PLAIN, "train": {"shown": 6}}).run_id == make_config(PLAIN).run_id, "a default"


def test_each_difference_between_the_recipes_can_be_set_alone(tmp_path):
    path = write(tmp_path, "data: {train: 'voc:x'}\nstudent: {kind: blitznet}")
    corrected, thesis = (flat(load_config(path, [("recipe", name)]).to_dict()) for name in ("corrected", "thesis"))
    differing = {key for key in thesis if thesis[key] != corrected[key]} - {"recipe"}
    assert {key.partition(".")[0] for key in differing} == {"augment", "loss", "student", "tasks", "train"}
    assert corrected["augment.as_specified"] and thesis["augment.as_specified"]
    assert not make_config(PLAIN).augment.as_specified  # of the usual student
    for key in differing:
        made = flat(load_config(path, [(key, yaml.safe_dump(thesis[key]))]).to_dict())
        assert made == corrected | {key: thesis[key]}


def test_a_preset_is_overridden_by_the_keys_beside_it(tmp_path):
    student = "{kind: blitznet, preset: blitznet512-s4, map_width: 32, extra: 3}"
    path = write(tmp_path, f"data: {{train: 'voc:x'}}\nstudent: {student}\n")
    made = load_config(path, [("student.frozen", "8")]).student
    assert (made.size, made.stride, made.scales, made.map_width) == (512, 4, (0.02, 0.08, 0.95), 32)
    assert (made.extra, made.frozen) == (3, 8)
    assert load_config(path, [("student.preset", "light")]).student.backbone == "tf_efficientnet_lite0"


def test_a_recipe_that_would_decide_nothing_is_refused(tmp_path):
    """A run's own config.yaml sets every key: another recipe or preset would be a name alone. A short file takes it."""
    whole = make_config({**PLAIN, "student": {"kind": "blitznet", "preset": "light"}})
    complete = write(tmp_path, yaml.safe_dump(whole.to_dict()))
    for key, value, decided in (
        ("recipe", "thesis", "augment, loss, train, tasks, student"),
        ("student.preset", "blitznet300-s4", "student"),
    ):
        with pytest.raises(InputError, match=rf"--{key} {value}: .* sets every key that it decides \({decided}\)"):
            load_config(complete, [(key, value)])
    assert load_config(complete, [("recipe", "corrected"), ("student.preset", "light")]) == whole
    broken = write(tmp_path, "data: {train: 'voc:x'}\nloss: 3")
    refused("loss: Input should be .*, got 3", load_config, broken, [("recipe", "thesis"), ("student.size", "96")])
    short = write(tmp_path, "data: {train: 'voc:x'}\nstudent: {kind: blitznet, mining: image}")
    made = load_config(short, [("recipe", "thesis")])
    assert (made.student.mining, made.student.normaliser, made.loss.joint) == ("image", "positives", False)


BOTH = "detection, segmentation"
BLITZ = "student: {kind: blitznet, "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: {epoch: 3}", "train.epoch: no such key; did you mean epochs"),
        ("train: {epochs: 0}", "train.epochs: .* got 0"),
        ("train: {lr: -1}", "train.lr: .* greater than 0, got -1"),
        ("train: {seed: 99999999999999999999}", "train.seed: "),
        ("train: {batch: 8, micro_batch: 3}", "train: micro_batch 3 must divide batch 8"),
        ("supervision: {}", "supervision: no such key; possible: recipe, data, tasks,"),
        ("- 1\n- 2", "a config is a mapping"),
        ("data: [", "not valid YAML"),
        ("data: {split: train}", "data.train: Field required"),
        ("data: {train: 'voc:x', more: [{train: 'voc:y', splitt: a}]}", "data.more.0.splitt: .* did you mean split"),
        ("data: {train: 'voc:x', more: [{train: y, tasks: [parts]}]}", f"data.more.0.tasks names 'parts'; .* {BOTH}"),
        ("data: {train: 'voc:x', tasks: [parts]}", f"data.tasks names 'parts'; possible: {BOTH}"),
        ("data: {train: 'voc:x', tasks: [detection]}", "tasks.segmentation: no data set is read for it and no tutor"),
        ("data: {train: 'voc:x', annotated: {parts: [cat]}}", f"data.annotated names 'parts'; possible: {BOTH}"),
        ("data: {train: 'voc:x', annotated: {detection: cat}}", "l: data.annotated.detection: got 'cat', .* in"),
        ("tasks: {detection: {}, segmentation: {}, detection: {policy: none}}", "'detection' is there twice"),
        ("tasks: {objects: {kind: segmntation}}", f"tasks.objects: .*; did you mean segmentation. possible: {BOTH}"),
        ("tasks: {bananas: {}}", f"tasks.bananas: unknown kind of task 'bananas'; possible: {BOTH}.*, or a class of"),
        ("tasks: {}", r"tasks: got {}, no task at all"),
        ("tasks: {My-Task: {kind: detection}}", "tasks: a task's name is of small letters, .* got 'My-Task'"),
        ("tasks: {detection: {polcy: none}}", "tasks.detection.polcy: no such key; did you mean policy"),
        ("tasks: {segmentation: {box_floor: 0.1}}", "tasks.segmentation.box_floor: no such key; possible: kind, pol"),
        ("tasks: {detection: {decode: {nms: 1}}}", "tasks.detection.decode.nms: .* did you mean nms_iou"),
        ("tasks: {detection: {policy: fill}}", "tasks.detection: .* needs a `tutor`"),
        ("tasks: {detection: {weights: [-1, 2]}}", "tasks.detection.weights.0: .* got -1"),
        ("tasks: {detection: {weights: [0, 0]}}", "tasks.detection.weights: both are 0, so that nobody"),
        ("tasks: {detection: {reported: 'cat,dog'}}", r"got 'cat,dog', .* list; give names in brackets, .* \[a, b\]$"),
        ("tasks: {detection: {renamed: 'a=b'}}", "renamed: Input should be a mapping, such as {a: b}, got 'a=b'$"),
        ("tasks: {detection: {store: 3}}", "l: tasks.detection.store: Input is not a valid path, got 3, which YAML"),
        ("tasks: {detection: {classes: []}}", r"tasks.detection.classes: got \[\], no class at all; name one or more"),
        ("tasks: {detection: {vetted_by: parts}}", "tasks.detection.vetted_by names 'parts'; possible: there is no"),
        ("tasks: {detection: {hidden_like: boxes}}", "hidden_like names 'boxes'; possible: detection"),
        ("tasks: {detection: {vetted_by: detection}, parts: {kind: segmentation}}", "'detection'; possible: parts"),
        ("tasks: {segmentation: {vetted_by: parts}, parts: {kind: segmentation}, detection: {}}", "ble: detection"),
        ("student: {kind: blitz}", "student: unknown student 'blitz'; did you mean blitznet. possible: .*, or a class"),
        (BLITZ + "width: 3}", "student.width: .*; it is a key of student.kind compact and ubernet; here did you mean"),
        (BLITZ + "preset: blitznet}", "student.preset: .*'blitznet300-s8', .*'light', got 'blitznet'"),
        (BLITZ + "mining: batch}\ntrain: {batch: 4, micro_batch: 2}", "mining 'batch' needs the whole batch at once"),
    ],
)
def test_mistakes_name_the_key_and_what_is_possible(tmp_path, content, message):
    whole = content if content.startswith(("data", "-")) else f"data: {{train: 'voc:x'}}\n{content}"
    with pytest.raises(InputError, match=message):
        load_config(write(tmp_path, whole))
    refused("can't be read", load_config, tmp_path / "absent.yaml")


class Doubled(Segmentation):
    """A user's own kind of task."""

    kind = "doubled"

    class Section(Segmentation.Section):
        factor: int = 2


class Halved(Doubled):
    channels = DenseTask.channels


class Bare:
    pass


class Section(StudentSection):
    width: int = 8


class Wide(Student):
    """A user's own student."""

    Section = Section

    def __init__(self, config, tasks):
        super().__init__(config, tasks)
        self.backbone = nn.Identity()
        for name in tasks:
            self.heads[name] = Whole(tasks[name], {})


class Whole(Head):
    def assign(self, targets, *, tutor):
        return targets

    def decode(self, raw, sizes):
        return []

    soften = decode


class Half(Whole):
    decode = Head.decode


class Headless(Wide):
    def __init__(self, config, tasks):
        super().__init__(config, tasks)
        del self.heads["detection"]
        self.heads["more"] = Half(tasks["more"], {})

    def forward(self, images):
        return {}


class Bodiless:
    """A class that is no `Student`."""

    Section = Section

    def __init__(self, config, tasks):
        pass


def test_a_users_own_class_brings_its_keys():
    tasks = {"maps": {"kind": "test_config:Doubled", "factor": 3, "temperature": 2}}
    made = make_config({**PLAIN, "tasks": tasks, "student": {"kind": "test_config:Wide", "width": 4}})
    assert (made.tasks["maps"].factor, made.tasks["maps"].temperature, made.student.width) == (3, 2, 4)
    assert Config.model_validate(made.to_dict()) == made
    assert open_task("maps", LABELS, made.tasks["maps"]).section.factor == 3
    with pytest.raises(InputError, match=r"student\.up_width: no such key; it is a key of student.kind blitznet; here"):
        make_config({**PLAIN, "student": {"kind": "test_config:Wide", "up_width": 4}})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere:Task", "can't be imported .*nowhere.*; give module:name"),
        ("test_config:Nothing", "can't be imported .*Nothing.*; give module:name"),
        (":Task", "can't be imported"),
        ("..test_config:Task", "can't be imported"),
        ("test_config:Bare", r"lacks Section; see docs/extend\.md"),
        ("test_config:Halved", r"lacks channels; see docs/extend\.md"),
    ],
)
def test_a_users_class_that_can_not_be_used_is_named(path, message):
    for given in ({"tasks": {"maps": {"kind": path}}}, {"student": {"kind": path}}):
        refused(f"(tasks.maps|student): .*'{path}': .*{message}", make_config, {**PLAIN, **given})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Wide", "the student lacks forward; see"),
        ("Headless", r"the student lacks heads\['detection'\], Half.decode; see"),
        ("Bodiless", r"derive the class from tutored\.students\.Student"),
    ],
)
def test_a_users_student_that_lacks_a_member_is_named(name, message):
    tasks = {name: Detection(name, LABELS) for name in ("detection", "more")}
    section = make_config({**PLAIN, "student": {"kind": f"test_config:{name}"}}).student
    refused(rf"student\.kind 'test_config:{name}': {message}", make_student, section, tasks)


def test_a_users_task_that_lacks_a_member_is_named():
    refused("kind of task 'test_config:Bodiless': the class lacks kind, answers,", task_class, "test_config:Bodiless")
