import re
from pathlib import Path

import pytest
import yaml

from tutored.config import PRESETS, THESIS, Config, Loss, Student, load_config, make_config
from tutored.errors import InputError

PLAIN = {"data": {"train": "voc:x"}}


def write(folder: Path, content: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(content)
    return path


def test_overrides_win_over_the_file_and_the_file_over_the_recipe(tmp_path):
    path = write(tmp_path, "recipe: thesis\ndata: {train: 'voc:x'}\nloss: {temperature: 0.7}\ntrain: {lr: 0.5}\n")
    made = load_config(path, [("train.lr", "1e-3"), ("data.reported", "[cat, dog]")])
    assert made.train.lr == 0.001
    assert made.loss.temperature == 0.7
    assert made.loss.map_target == "softmax"
    assert made.data.reported == ("cat", "dog")


def test_run_id_is_of_the_whole_config_and_survives_a_round_trip():
    made = make_config(PLAIN)
    again = Config.model_validate(yaml.safe_load(yaml.safe_dump(made.to_dict())))
    assert again == made
    assert again.run_id == made.run_id
    assert make_config({**PLAIN, "train": {"seed": 1}}).run_id != made.run_id


def test_each_difference_between_the_recipes_can_be_set_alone():
    for field, value in THESIS["loss"].items():
        assert getattr(make_config({**PLAIN, "loss": {field: value}}).loss, field) == value
    assert make_config({**PLAIN, "recipe": "thesis"}).loss == Loss(**THESIS["loss"])


def test_a_preset_sets_what_belongs_together_and_keys_beside_it_win(tmp_path):
    path = write(tmp_path, "data: {train: 'voc:x'}\nstudent: {preset: blitznet512-s4, map_width: 32, extra: 3}\n")
    made = load_config(path, [("student.frozen", "8")]).student
    assert (made.size, made.stride, made.scales, made.map_width) == (512, 4, (0.02, 0.08, 0.95), 32)
    assert (made.extra, made.frozen) == (3, 8)
    assert load_config(path, [("student.preset", "light")]).student.backbone == "tf_efficientnet_lite0"
    assert make_config({**PLAIN, "student": {"preset": "blitznet300-s8"}}).student == Student(preset="blitznet300-s8")
    assert make_config(PLAIN).student.preset is None


@pytest.mark.parametrize("name", PRESETS)
def test_the_complete_config_of_a_preset_reads_back_equal(name):
    made = make_config({**PLAIN, "student": {"preset": name, "up_width": 64}})
    again = Config.model_validate(yaml.safe_load(yaml.safe_dump(made.to_dict())))
    assert again == made and again.run_id == made.run_id
    written_out = {**PRESETS[name], "up_width": 64}
    assert made.student == Student(**written_out).model_copy(update={"preset": name})


def test_every_preset_can_be_named():
    message = "student.preset: .*" + ".*".join(map(re.escape, PRESETS)) + ".*, got 'blitznet'"
    with pytest.raises(InputError, match=message):
        make_config({**PLAIN, "student": {"preset": "blitznet"}})
    with pytest.raises(InputError, match="student.preset: "):
        make_config({**PLAIN, "student": {"preset": ["light"]}})


def test_a_recipe_or_preset_that_a_complete_file_leaves_nothing_to_decide_is_refused(tmp_path):
    """A run's own config.yaml sets every key: another recipe would be a name alone. A short file takes it."""
    whole = make_config({"data": {"train": "voc:x"}, "student": {"preset": "light"}})
    complete = write(tmp_path, yaml.safe_dump(whole.to_dict()))
    for key, value, decided in (
        ("recipe", "thesis", "augment, loss, train"),
        ("student.preset", "blitznet300-s4", "student"),
    ):
        with pytest.raises(InputError, match=rf"--{key} {value}: .* sets every key that it decides \({decided}\)"):
            load_config(complete, [(key, value)])
    assert load_config(complete, [("recipe", "corrected"), ("student.preset", "light")]) == whole
    broken = write(tmp_path, "data: {train: 'voc:x'}\nloss: 3")
    with pytest.raises(InputError, match="loss: Input should be .*, got 3"):
        load_config(broken, [("recipe", "thesis"), ("student.size", "96")])
    short = write(tmp_path, "data: {train: 'voc:x'}\nloss: {mining: image}")
    loss = load_config(short, [("recipe", "thesis")]).loss
    assert (loss.mining, loss.map_target) == ("image", "softmax")


def test_sections_given_as_objects_leave_the_recipe_its_defaults():
    given = Config(recipe="thesis", data={"train": "voc:x"}, loss=Loss(temperature=2.0))
    assert (given.loss.temperature, given.loss.mining, given.train.optimizer) == (2.0, "batch", "adam")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: {train: 'voc:x'}\ntrain: {epoch: 3}", "train.epoch: no such key; did you mean epochs"),
        (
            "data: {train: 'voc:x', more: [{train: 'voc:y', splitt: a}]}",
            "data.more.0.splitt: no such key; did you mean split",
        ),
        ("data: {train: 'voc:x', more: [{train: 'voc:y', xyz: a}]}", "data.more.0.xyz: .* possible: train, split,"),
        ("data: {train: 'voc:x'}\nsupervision: {detection: {polcy: none}}", "detection.polcy: .* did you mean policy"),
        ("data: {train: 'voc:x'}\ntrain: {epochs: 0}", "train.epochs: .* got 0"),
        ("data: {train: 'voc:x'}\ntrain: {precision: no}", "train.precision: .*'fp32', 'bf16' or 'fp16', got False"),
        ("data: {train: 'voc:x', reported: 'cat,dog'}", r"reported: .* a list, such as \[a, b\], got 'cat,dog'"),
        (
            "data: {train: 'voc:x', reported: []}",
            r"data.reported: got \[\], no class at all; name one or more, or give",
        ),
        ("data: {train: 'voc:x', classes: []}", r"data.classes: got \[\], no class at all"),
        ("data: {train: 'voc:x'}\nsupervision: {detection: {policy: fill}}", "needs a tutor's `store`"),
        ("data: {train: 'voc:x'}\ntrain: {clip: 0}", "train.clip: .* greater than 0, got 0"),
        ("data: {train: 'voc:x'}\ntrain: {lr: -1}", "train.lr: .* greater than 0, got -1"),
        ("data: {train: 'voc:x'}\ntrain: {weight_decay: -1}", "train.weight_decay: "),
        ("data: {train: 'voc:x'}\ntrain: {workers: -1}", "train.workers: "),
        ("data: {train: 'voc:x'}\ntrain: {threads: 0}", "train.threads: "),
        ("data: {train: 'voc:x'}\ntrain: {seed: 99999999999999999999}", "train.seed: "),
        ("data: {train: 'voc:x'}\nloss: {detection_weight: -1}", "loss.detection_weight: "),
        ("data: {train: 'voc:x'}\nloss: {match_floor: 0}", "loss.match_floor: .* greater than 0"),
        ("data: {train: 'voc:x'}\nsupervision: {detection: {weights: [-1, 2]}}", "weights.0: .* got -1"),
        ("data: {train: 'voc:x'}\nsupervision: {detection: {weights: [0, 0]}}", "weights: both are 0, so that nobody"),
        ("train: {epochs: 3}", "data: Field required"),
        ("- 1\n- 2", "a config is a mapping"),
        ("data: [", "not valid YAML"),
    ],
)
def test_mistakes_name_the_key_and_what_is_possible(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        load_config(write(tmp_path, content))
    with pytest.raises(InputError, match="can't be read"):
        load_config(tmp_path / "absent.yaml")
