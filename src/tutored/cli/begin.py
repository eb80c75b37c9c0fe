"""The commands to begin with: what is there, and what tutors say about it."""

import os
import re
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from tutored.cli import common
from tutored.cli.common import Made, commands, note, say, say_next, write_json
from tutored.errors import InputError
from tutored.files import STORE

OR_CONFIG: dict[str, Any] = {"callback": common.or_config}
store_argument = click.argument("store", type=Made(STORE))


@commands.command()
@click.option(
    "--out", type=common.NEW_FOLDER, default=Path("quickstart"), show_default=True, metavar="FOLDER", help="a folder"
)
@click.option("--seed", type=common.SEED, default=0, show_default=True, help="of data, weights and order")
@click.option("--scale", type=common.SHARE, default=1.0, show_default=True, help="share of the usual images and epochs")
def quickstart(out: Path, seed: int, scale: float) -> None:
    """Make data, train tutors and students, and compare them."""
    from tutored.quickstart import run_quickstart

    run_quickstart(out, seed=seed, scale=scale)


def _tutors(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> list[tuple[str | None, Any]]:
    """Each with the task that it is for, if that is said; options as a config has them, `{kind: onnx:FILE, ...}`."""
    found: list[tuple[str | None, Any]] = []
    for text in given:
        task, equals, named = text.partition("=")
        own = equals and re.fullmatch("[a-z_]+", task)
        tutor: Any = named if own else text
        if tutor.startswith("{"):
            import yaml

            try:
                tutor = yaml.safe_load(tutor)
            except yaml.YAMLError as error:
                raise click.BadParameter(
                    f"{tutor}: no YAML such as {{kind: onnx:FILE, labels: coco}}", ctx, param
                ) from error
        common.check_tutor(tutor, "--tutor")
        found.append((task if own else None, tutor))
    return found


@commands.command()
@click.argument("folder", type=common.PLACE)
@click.option(
    "--out", type=common.NEW_FILE, default=Path("tutored.yaml"), show_default=True, metavar="FILE", help="the config"
)
@click.option(
    "--tutor",
    "tutors",
    multiple=True,
    callback=_tutors,
    metavar="[TASK=]KIND:NAME",
    help="who answers for what is missing, such as onnx:FILE, hf:FOLDER or files:FOLDER; may be given for each task",
)
@click.option("--example", is_flag=True, help="instead: make FOLDER, with made-up pictures to practise on")
@click.pass_context
def init(ctx: click.Context, folder: Path, out: Path, tutors: Any, example: bool) -> int:
    """Look at a folder of pictures and write a config to start from.

    FOLDER holds pictures, XMLs and masks in any folders, or is one of VOC, COCO, YOLO (as Ultralytics, Roboflow and
    FiftyOne have it), CVAT, Labelme or Label Studio. Links, where some are needed, go into a folder beside the config.
    """
    if example:
        common.refuse(ctx, "is not for --example, which makes pictures and no config", "out", "tutors")
        from tutored.scenes import make_example

        make_example(folder)
        say(f"wrote {folder}: photos, boxes of some, masks of some, labels.txt")
        say_next("tutored", "init", folder)
        return 0
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; give the one that holds your pictures")
    from tutored.cli.progress import Lasting, bar
    from tutored.init import TUTORS
    from tutored.init import init as look

    with bar("reading") as step:
        start = look(folder, out, step, tutors)
    layout = start.layout
    say(f"{folder}: {layout.what}")
    start.report.show(Lasting())
    for each in layout.notes:
        note(each)
    if start.arranged:
        say(f"wrote {start.arranged}: a VOC folder of links to your files, which stay as they are")
    say(f"wrote {start.config}")
    images, taught = start.report.splits[layout.train].images, any(start.annotated.values())
    for task, count in start.annotated.items():
        if count < images:
            say(f"missing: {images - count:,} of {images:,} training images are not annotated for {task}")
        if task in start.tutors:
            asked = "before training" if count < images else "if you set its policy to `both`, since nothing is missing"
            say(f"tutor of {task}: {start.tutors[task].told}; it is asked {asked}")
        elif count < images:
            must = "may" if taught or start.tutors else "must"
            say(f"a tutor {must} answer: put it into {out}, such as `tutor: {TUTORS[task]}`, or begin with --tutor")
    if not taught and not start.tutors:
        say(f"then put the classes to learn into {out}")
    if not start.report.ok:
        say(f"training would stumble over the problems above; correct them, and `tutored data check --config {out}`")
        return 2
    say_next("tutored", "train", out, "--out", "runs/first")
    return 0


@commands.group()
def data() -> None:
    """Look at data sets."""


@data.command("check")
@click.option("--data", **common.DATA | OR_CONFIG, help=common.DATA_SETS)
@click.option("--split", "splits", multiple=True, metavar="SPLIT...", **OR_CONFIG, help="such as train, or train val")
@click.option("--config", type=common.FILE, is_eager=True, help="instead: what this run trains on and is validated on")
@common.json_option
def check_data(data: str | None, splits: tuple[str, ...], config: Path | None, json_: Path | None) -> int:
    """Read all of a data set and name what training would stumble over."""
    from tutored.config import load_config

    run = load_config(config) if config else None
    from tutored.cli.progress import Lasting, bar
    from tutored.data import open_dataset
    from tutored.data.check import check
    from tutored.data.images import files_in
    from tutored.data.text import gather
    from tutored.init.loose import unread

    if run:
        from tutored.engine.data_sets import open_all

        opened = open_all(run)
        splits = tuple(each.name for each in opened)
    else:
        opened = gather(partial(open_dataset, str(data), split) for split in splits)
    there = dict(zip(splits, opened, strict=True))
    with bar("reading") as step:
        report = check(there, step)
    write_json(json_, report.to_dict())
    taught = any(task.images for split in report.splits.values() for task in split.tasks.values())
    if report.ok and not taught and not any(each.blank for each in opened):
        for each in unread(list(files_in(opened[0].folder))):
            say(f"nothing is annotated: {each}")
    report.show(Lasting())
    return 0 if report.ok else 2


@click.command()
@common.data_option
@common.split_option
@click.option("--out", type=common.NEW_FOLDER, required=True, metavar="STORE", help="folder of the store")
@click.option("--resume", is_flag=True, help="go on where labelling stopped")
@click.option("--processes", type=common.POSITIVE, help="how many share the work  [default: what torchrun says, or 1]")
@click.option("--rank", type=common.COUNT, help="which of them this is, from 0")
@click.option("--skip-broken", is_flag=True, help="record pictures that can't be read, and go on")
@click.option("--engine", type=click.Choice(["here", "ray"]), default="here", help="ray: on a cluster of machines")
@click.option("--workers", type=common.POSITIVE, help="tutors that Ray runs at once  [default: 1]")
@click.option("--worker-gpus", type=common.AMOUNT, help="GPUs of each of them  [default: 0]")
@click.option("--batch", type=common.POSITIVE, default=8, show_default=True, help="images read at once")
@click.pass_context
def any_tutor(
    ctx: click.Context, /, data: str, split: str, out: Path, engine: str, skip_broken: bool, **given: Any
) -> None:
    """What all kinds of tutor have in common."""
    from tutored.tutors import checked

    kind, how = str(ctx.info_name), {"resume": given.pop("resume"), "batch": given.pop("batch")}
    rank, processes, workers, gpus = map(given.pop, ("rank", "processes", "workers", "worker_gpus"))
    options = {name: value for name, value in given.items() if value is not None and value is not False and value != ()}
    checked(kind, **options)
    if engine == "ray":
        common.refuse(ctx, "is not for --engine ray, whose --workers share the work", "processes", "rank")
    else:
        common.refuse(ctx, "is for --engine ray; here --processes share the work", "workers", "worker_gpus")
    from tutored.cli.progress import bar
    from tutored.data import open_dataset
    from tutored.data.check import told_first
    from tutored.softlabels import read_manifest
    from tutored.tutors import open_tutor
    from tutored.tutors.label import label as label_split
    from tutored.tutors.label import label_with_ray, told

    dataset = open_dataset(data, split)
    for each in told_first(dataset):
        note(each)
    with bar("labelling") as step:
        how["progress"] = step
        if engine == "ray":
            label_with_ray(kind, options, data, split, out, workers=workers or 1, gpus=gpus or 0.0, **how)
        else:
            if rank is None:
                rank = 0 if processes else int(os.environ.get("RANK", 0))
            how |= {"rank": rank, "processes": processes or int(os.environ.get("WORLD_SIZE", 1))}
            tutor = open_tutor(kind, dataset=dataset, **options)
            for each in tutor.notes:
                note(each)
            label_split(tutor, dataset, out, skip_broken=skip_broken, **how)
    manifest = read_manifest(out)
    if manifest is None or not manifest["complete"]:
        return say("this process' share is done; the process that ends last finishes the store")
    lines = told(out)
    for line in lines:
        say(line)
    known = {*dataset.labels, *dataset.further} & {kind for part in manifest["parts"] for kind in part["answers"]}
    if len(lines) == 1 and known and any(map(dataset.annotated_tasks, dataset.ids)):
        return say_next("tutored", "evaluate", out, "--data", data, "--split", split)
    return say("next: tutored train CONFIG.yaml --out RUN, with this store in tasks.TASK.store")


class Tutors(common.Group):
    """One command for each kind of tutor, with the options that `tutored.tutors` states for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from tutored.tutors import KINDS

        return list(KINDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from tutored.tutors import KINDS, flags_of, value_type

        if cmd_name not in KINDS:
            return None
        params: list[click.Parameter] = []
        for name, flag in flags_of(cmd_name).items():
            field = KINDS[cmd_name].model_fields[name]
            value, several = value_type(field.annotation)
            repeated, default = several and value is Path, None if field.is_required() else field.default
            of: Any = click.Choice(get_args(value)) if get_args(value) else common.PLACE if value is Path else value
            metavar = next((each for each in field.metadata if isinstance(each, str)), None)
            told = f"  [default: {str(default).strip('(,)')}]" if default else ""
            params.append(
                click.Option(
                    [flag, name],
                    is_flag=value is bool,
                    type=None if value is bool else common.Commas(of) if several and not repeated else of,
                    multiple=repeated,
                    required=field.is_required(),
                    metavar=f"{metavar}..." if repeated else metavar,
                    help=" ".join(str(field.description).split()) + told,
                )
            )
        about = (KINDS[cmd_name].__doc__ or "").partition("\n")[0]
        return common.Command(
            cmd_name, params=params + any_tutor.params, callback=any_tutor.callback, help=about, short_help=about
        )

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Of `hf:FOLDER`, what is behind the colon is the kind's first option."""
        from tutored.tutors import KINDS, flags_of, refuse_weights

        refuse_weights(args[0])
        kind, colon, name = args[0].partition(":")
        first = KINDS[kind].FIRST if colon and kind in KINDS else None
        return super().resolve_command(ctx, [kind, f"{flags_of(kind)[first]}={name}", *args[1:]] if first else args)


@commands.group(cls=Tutors)
def label() -> None:
    """Ask a tutor and keep its soft labels in a store."""


@commands.command()
@store_argument
def verify(store: Path) -> None:
    """Check a store's files against their hashes."""
    from tutored.softlabels import Store

    opened = Store.open(store)
    opened.verify()
    say(f"{store}: {len(opened)} images, every part is what was written")


def _pairs(ctx: click.Context, param: click.Parameter, given: tuple[str, ...] | None) -> dict[str, str | None]:
    parted = [pair.partition("=") for pair in given or ()]
    if not all(equals for _, equals, _ in parted):
        told = "give pairs such as couch=sofa, with commas; NAME=ignore or NAME=background drops a class"
        raise click.BadParameter(told, ctx, param)
    return {theirs.strip(): ours.strip() or None for theirs, _, ours in parted}


@commands.command()
@store_argument
@click.option("--data", **common.DATA | OR_CONFIG, help="images to train on that have ground truth")
@click.option("--split", **OR_CONFIG, help="their split; never one that you evaluate on")
@click.option("--config", type=common.FILE, is_eager=True, help="instead: what this run trains on and may see")
@click.option("--renamed", type=common.Commas(), callback=_pairs, metavar="A=B,C=D", help="as tasks.TASK.renamed")
@click.option("--against", type=Made(STORE), metavar="STORE", help="without ground truth: agreement with this store")
@click.option("--for", "others", multiple=True, type=Made(STORE), metavar="STORE...", help="same tutor: audited, too")
@click.option("--page", type=common.NEW_FILE, metavar="FILE", help="to write  [default: audit.html in the store]")
@common.json_option
@click.option("--photos", is_flag=True, help="with the data's own photographs in the page")
@click.option("--worst", type=common.COUNT, default=12, show_default=True, help="images of the disagreement report")
@click.pass_context
def audit(
    ctx: click.Context, /, store: Path, data: Any, split: Any, config: Any, against: Any, page: Any, **given: Any
) -> None:
    """Compare a store with ground truth before it teaches.

    Verdicts, advice that training takes, and a page.
    """
    if against:
        why = "is not for --against, which compares two stores by class names, without ground truth"
        common.refuse(ctx, why, "others", "renamed", "photos", "worst")
    from tutored.config import load_config

    run = load_config(config) if config else None
    from tutored import audit as audits
    from tutored.cli.progress import bar
    from tutored.data import open_dataset
    from tutored.data.check import told_first
    from tutored.engine.data_sets import open_visible
    from tutored.softlabels import Store
    from tutored.softlabels.advice import tutor_of, write_sidecar
    from tutored.tasks import task_class

    opened = Store.open(store)
    dataset = open_visible(run) if run else open_dataset(str(data), str(split))
    for told in told_first(dataset):
        note(told)
    if against:
        return _compare_stores(opened, Store.open(against), dataset, page or store / "agreement.html", given["json_"])
    sections = run.tasks if run else {kind: task_class(kind).Section(kind=kind) for kind in dataset.labels}
    stores = [opened, *audits.stores_for(given["others"], tutor_of(opened))]
    with bar("auditing") as step:
        found = audits.audit(opened, dataset, audits.as_a_run_sees(opened, sections, given["renamed"]), progress=step)
    write_json(given["json_"], found.sidecar.model_dump(mode="json"))
    for told in found.notes:
        note(told)
    for line in found.told:
        say(line)
    for each in stores:
        say(f"wrote {write_sidecar(each, found.sidecar)}; training uses it (tasks.TASK.audit: ignore does not)")
    page = page or store / "audit.html"
    audits.write_page(found, page, photos=given["photos"], worst=given["worst"])
    say(f"wrote {page}")
    tasks = " and ".join(f"tasks.{name}.store" for name in found.sidecar.tasks)
    return say(f"next: tutored train CONFIG.yaml --out RUN, with this store in {tasks}")


def _compare_stores(one: Any, other: Any, dataset: Any, page: Path, json_: Path | None) -> None:
    from tutored.audit import agreement, draw_agreement
    from tutored.cli.progress import bar

    with bar("comparing") as step:
        found = agreement(one, other, dataset, step)
    write_json(json_, found)
    say(f"{found['images']} images")
    for kind, part in found["tasks"].items():
        say(f"{kind}, {len(part['classes'])} classes that both know: {part['summary']}")
    draw_agreement(page, found, (one.path, other.path), f"{dataset.source}, {dataset.split}")
    say(f"wrote {page}")


@commands.command()
@store_argument
@click.option("--to", required=True, type=click.Choice(["coco", "voc", "cleanlab", "fiftyone"]), help="the format")
@common.data_option
@common.split_option
@click.option("--out", type=common.NEW, required=True, metavar="PATH", help="a file for coco (results), else a folder")
@click.option("--score", type=common.SHARE, help="boxes from this score on  [default: what suits the format]")
def convert(store: Path, to: str, data: str, split: str, out: Path, score: float | None) -> None:
    """Write a store's soft labels in other tools' formats."""
    from tutored.cli.progress import bar
    from tutored.convert import convert as convert_store

    with bar("converting") as step:
        convert_store(store, to, data, split, out, score, step, tell=note)
    say(f"wrote {out}")
