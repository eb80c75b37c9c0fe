import random

from hypothesis import given
from hypothesis import strategies as st

from made import MadeDataset
from tutored.config import Task, make_config
from tutored.data.sources import ranks, source_weights
from tutored.data.training import TrainingSet

IDS = [f"made{index}" for index in range(100)]


def training_set(seed: int, task: Task) -> TrainingSet:
    supervision = {"detection": task, "seed": seed}
    return TrainingSet(MadeDataset(100), make_config({"data": {"train": "made"}, "supervision": supervision}), 8)


def hidden(share: float, seed: int = 0) -> set[str]:
    task = Task(hidden=share)
    made = training_set(seed, task)
    return set(IDS) - made.drawn["detection"]


def test_a_hidden_share_is_exact_and_nested():
    sizes = [len(hidden(share)) for share in (0, 0.2, 0.5, 0.8, 1)]
    assert sizes == [0, 20, 50, 80, 100]
    assert hidden(0.2) < hidden(0.5) < hidden(0.8)


@given(st.integers(0, 1000), st.randoms())
def test_ranks_do_not_depend_on_the_order_of_ids(seed, rng):
    shuffled = list(IDS)
    rng.shuffle(shuffled)
    assert ranks(shuffled, seed, "detection") == ranks(IDS, seed, "detection")


def test_seeds_and_tasks_hide_different_images():
    assert hidden(0.5, seed=0) != hidden(0.5, seed=1)
    assert ranks(IDS, 0, "detection") != ranks(IDS, 0, "segmentation")


def test_every_policy_in_every_state():
    def weights(task, rank=0.6):
        return [
            source_weights(task, rank, drawn=drawn, answered=answered)
            for drawn, answered in ((True, True), (True, False), (False, True), (False, False))
        ]

    store = "store"
    none = (0.0, 0.0)
    assert weights(Task()) == [(1, 0), (1, 0), none, none]
    assert weights(Task(policy="none")) == [none] * 4
    assert weights(Task(policy="fill", store=store)) == [(1, 0), (1, 0), (0, 1), none]
    assert weights(Task(policy="replace", store=store, share=0.7)) == [(0, 1), none, (0, 1), none]
    assert weights(Task(policy="replace", store=store, share=0.5)) == [(1, 0), (1, 0), none, none]
    both = Task(policy="both", store=store, weights=(0.3, 0.7))
    assert weights(both) == [(0.3, 0.7), (1, 0), (0, 1), none]
    assert source_weights(both, 0.6, drawn=True, answered=True, joint=False) == (1, 1)


def test_resampling_gives_every_image_to_the_tutor_sometimes():
    task = Task(policy="replace", store="store", share=0.5, resampled=True)
    rng = random.Random(0)
    drawn = [source_weights(task, 0.9, drawn=True, answered=True, rng=rng) for _ in range(400)]
    assert 150 < drawn.count((0.0, 1.0)) < 250
