"""The commands `tutored study ...`."""

from __future__ import annotations

import argparse

from tutored.cli.output import quoted, say, say_next


def study_list(given: argparse.Namespace) -> None:
    from tutored.studies import load_setting, plan, studies_of

    setting = load_setting(given.setting, data=given.data).scaled(given.scale)
    for study in studies_of(setting):
        lacks = f" (without the rows that need a tutor {', '.join(study.lacks)})" if study.lacks else ""
        say(f"{study.name:26} {len(plan([study], setting, [0])):3} runs a seed   {study.title}{lacks}")
    say_next("tutored study run STUDY --setting FILE.yaml --out FOLDER")


def study_run(given: argparse.Namespace) -> None:
    from tutored.cli.progress import watch_study
    from tutored.studies import load_setting
    from tutored.studies.folder import open_folder, work

    setting = load_setting(given.setting, data=given.data).scaled(given.scale)
    folder = open_folder(given.out, setting, given.names, given.seeds)
    with watch_study() as watch:
        limits = {"recipe": given.recipe, "seeds": given.seeds, "hours": given.hours, "jobs": given.jobs}
        done, failed, total = work(folder, given.names, **limits, watch=watch, tell=lambda note: say(f"note: {note}"))
    say(f"{given.out}: {done} of {total} runs are done" + (f", {failed} of them failed" if failed else ""))
    if given.hours is not None and done < total:
        say(
            f"the other {total - done} did not fit into --hours {given.hours:g}, or went to another process; "
            "the same command with more hours goes on"
        )
    say_next(quoted("tutored", "study", "report", given.out))


def study_report(given: argparse.Namespace) -> None:
    from tutored.studies.folder import load_folder
    from tutored.studies.report import write_report

    folder = load_folder(given.folder)
    names = given.names or folder.names
    page, text = write_report(
        folder.outcomes(names),
        folder.setting,
        given.out or given.folder,
        seeds=folder.seeds,
        command=folder.command,
        photos=given.photos,
        tutors=folder.tutors(),
    )
    say(f"wrote {page} and {text}")
