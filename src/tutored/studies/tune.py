"""Settings are chosen on training images that are held out, each arm alike; never on the evaluation split."""

from __future__ import annotations

from tutored.config import merged
from tutored.errors import InputError
from tutored.studies.beyond import FIFTH, GROUND_TRUTH, TUTORS_ALONE
from tutored.studies.declare import Changes, Row, Study, both
from tutored.studies.setting import AS_SET, Setting

ARMS: dict[str, Changes] = {
    GROUND_TRUTH.label: {},
    FIFTH.label: FIFTH.changes,
    "tutors alone": TUTORS_ALONE,
}


def tune(setting: Setting) -> Study:
    """The setting's candidates in all arms and both recipes, validated on the held-out part."""
    held_out = {"data": {"held_out": setting.held_out}}
    everywhere = {AS_SET: {}, **setting.candidates}
    tried = dict.fromkeys(ARMS, everywhere) | {"tutors alone": {**everywhere, **setting.tutor_candidates}}
    rows = tuple(
        Row(f"{arm}: {name}", merged(merged(dict(taught), candidate), held_out))
        for arm, taught in ARMS.items()
        for name, candidate in tried[arm].items()
    )
    return Study(
        "tune",
        "Settings tried on held-out training images",
        f"Which settings suit each arm? Figures are on {100 * setting.held_out:.0f} % of the training images, which "
        "these runs did not see; the evaluation split plays no part.",
        both(*rows),
    )


def tuned(setting: Setting) -> Study:
    """The arms again, each with what was chosen for it by `tune`, on all training images and the evaluation split.

    Raises:
        InputError: something was chosen for an arm that there is not.
    """
    unknown = setting.chosen.keys() - ARMS.keys()
    if unknown:
        raise InputError(
            f"setting {setting.name}: `chosen` names {', '.join(sorted(unknown))}; possible: {', '.join(ARMS)}"
        )
    rows = tuple(Row(arm, merged(dict(taught), setting.chosen.get(arm, {}))) for arm, taught in ARMS.items())
    return Study(
        "beyond/tuned",
        "Each arm with settings chosen for it",
        "Is an arm ahead because the common settings suit it? Here each has those that were best for it on training "
        "images held out.",
        {"corrected": rows},
        against=(("tutors alone", "ground truth"), ("tutors alone", "a fifth of the ground truth")),
    )
