"""The commands that train, measure and use students."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from tutored.cli import common
from tutored.cli.common import POSITIVE, SHARE, Made, commands, note, say, say_next, write_json
from tutored.errors import InputError
from tutored.files import CHECKPOINT, FINISHED, RUN, STORE, STUDY

RECORDED = ("run", "seed", "figures", "config", "seconds", "device", "threads", "versions", "commit", "stores")
"""What `study show --json` prints of a run."""
checkpoint_argument = click.argument("checkpoint", type=Made(CHECKPOINT))
student_argument = click.argument("checkpoint", type=Made(CHECKPOINT, or_file=".onnx"), metavar="CHECKPOINT|FILE.onnx")


class ConfigFile(click.Path):
    """A YAML file that exists."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        if path.is_dir():
            self.fail(f"{path} is a folder; `tutored init {path}` writes the config that is given here", param, ctx)
        if not path.exists():
            self.fail(f"{path} does not exist; `tutored init FOLDER` writes a config", param, ctx)
        return path


class Train(common.Command):
    """Takes out the config's own options, such as `--train.epochs 40`, `--tasks.TASK.policy=fill`, `--recipe R`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words, left = [], list(args)
        ctx.obj = []
        while left:
            word = left.pop(0)
            key, equals, value = word.partition("=")
            if not key.startswith("--") or ("." not in key and key != "--recipe"):
                words.append(word)
                continue
            if not equals and (not left or left[0].startswith("--")):
                raise click.UsageError(f"{key}: give a value", ctx)
            ctx.obj.append((key.removeprefix("--"), value if equals else left.pop(0)))
        return super().parse_args(ctx, words)


@commands.command(cls=Train, epilog="Any key of the config may be set, too: --train.epochs 80 --tasks.TASK.policy fill")
@click.argument("config", type=ConfigFile(), metavar="CONFIG.yaml")
@click.option("--out", type=common.NEW_FOLDER, metavar="RUN", help="folder of the run  [default: runs/CONFIG]")
@click.option("--resume", is_flag=True, help="go on where the run in this folder stopped")
@common.json_option
@click.pass_obj
def train(overrides: list[tuple[str, str]], config: Path, out: Path | None, resume: bool, json_: Path | None) -> None:
    """Train a student; tutors that the config names are asked first."""
    from tutored.config import load_config

    out = out or Path("runs", config.stem)
    run = load_config(config, overrides)
    for place in (run.data.train, run.data.val, *(each.train for each in run.data.more)):
        common.check_data(place or run.data.train)
    for name, task in run.tasks.items():
        common.check_tutor(task.tutor, f"tasks.{name}.tutor")
    from tutored.cli.progress import Lasting, bar, course_of, course_table, watch_training
    from tutored.engine import train as train_run
    from tutored.evaluate import table
    from tutored.pages.run import RunPage
    from tutored.prepare import ask_tutors
    from tutored.watch import Watchers

    ask_tutors(run, out, bar=bar, tell=say, resume=resume)
    with watch_training() as line:
        watch = Watchers(line, RunPage())
        result = train_run(run, out, resume=resume, watch=watch, tell=note)
    if not common.is_main():
        return None
    course = course_of(out / "log.jsonl", {name: run.tasks[name].kind for name in run.taught})
    write_json(json_, {**result, "course": course})
    if line.result:
        Lasting().print(table(line.result))
    if course:
        Lasting().print(course_table(course))
    checkpoint, data = out / "checkpoint", run.data
    say(f"wrote {checkpoint}: the student after the last epoch, to predict with, evaluate and export")
    say(f"wrote {out / 'report.html'}: losses, figures and pictures; {out / 'result.json'}: the same in numbers")
    if data.held_out or not result["figures"]:
        return say_next("tutored", "predict", checkpoint, "PICTURES", "--out", "seen")
    annotated = (data.val_annotated if data.val else data.annotated) or {}
    named = annotated.items() if isinstance(annotated, dict) else [("", annotated)]
    words = [word for task, names in named for word in ("--annotated", f"{task}={','.join(names)}".removeprefix("="))]
    words += ["--empty", data.empty] * (data.empty == "annotated")
    split = ("--data", data.val or data.train, "--split", data.val_split)
    return say_next("tutored", "evaluate", checkpoint, *split, *words)


@commands.command()
@click.argument("folder", type=Made(RUN), metavar="RUN")
def report(folder: Path) -> None:
    """Write the page report.html of a run again, from its files."""
    from tutored.pages.run import write_page

    say(f"wrote {write_page(folder)}")


@commands.command()
@click.argument("subject", type=Made(CHECKPOINT, STORE), metavar="CHECKPOINT|STORE")
@common.data_option
@common.split_option
@click.option("--classes", **common.NAMES, help="the means are over these classes; TASK=A,B: of one task")
@click.option("--annotated", **common.NAMES, help="the data annotates these classes only; TASK=A,B: for one task")
@click.option(
    "--empty",
    type=click.Choice(["annotated", "unannotated"]),
    default="unannotated",
    show_default=True,
    help="what images without any object are",
)
@click.option("--config", type=ConfigFile(), help="of a store: this config says where its tasks have their annotations")
@common.json_option
@common.device_option
@common.precision_option
def evaluate(subject: Path, data: str, split: str, config: Path | None, json_: Path | None, **given: Any) -> None:
    """Measure a checkpoint or a store on a split."""
    from tutored.config import load_config

    sections = load_config(config).tasks if config else {}
    from tutored.cli.progress import Lasting, bar
    from tutored.evaluate import table
    from tutored.judge import judge

    with bar("evaluating") as step:
        result = judge(subject, data, split, progress=step, tell=note, sections=sections, **given)
    if not common.is_main():
        return
    what = {
        "subject": str(subject),
        "data": data,
        "split": split,
        **{key: given[key] for key in ("annotated", "empty")},
    }
    write_json(json_, what | result.to_dict())
    Lasting().print(table(result))


@commands.command()
@click.argument("runs", nargs=-1, required=True, type=Made(FINISHED), metavar="RUN...")
@click.option("--against", multiple=True, required=True, type=Made(FINISHED), metavar="RUN...", help="of equal seeds")
@common.json_option
def compare(runs: tuple[Path, ...], against: tuple[Path, ...], json_: Path | None) -> None:
    """Say whether runs are better than others, and how sure that is.

    RUN... are finished runs that differ in their seeds alone.
    """
    from tutored.evaluate import ENOUGH_SEEDS, compare_runs

    found = compare_runs(runs, against)
    intervals = {name: interval._asdict() for name, interval in found.intervals.items()}
    write_json(json_, {"seeds": found.seeds, "intervals": intervals, "differences": found.differences})
    seeds, sure = ", ".join(map(str, found.seeds)), len(found.seeds) >= ENOUGH_SEEDS
    for name, interval in found.intervals.items():
        claim = f"{'is' if sure else 'seems'} {interval.verdict}" if interval.verdict else "not resolved"
        say(f"{name}: {interval.b:.3f} against {interval.a:.3f}, {interval} {claim}")
    if sure:
        say(f"95 % intervals over images and seeds {seeds}")
    elif len(found.seeds) > 1:
        say(f"95 % intervals over images and seeds {seeds}: two say little of seeds' spread; train three of each")
    else:
        say("95 % intervals over images alone: with one seed, a difference may be the seed's; train three of each")
    for difference in found.differences:
        say(f"differs: {difference}")


@commands.command()
@student_argument
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE|FOLDER|VIDEO...")
@click.option("--out", type=common.NEW_FOLDER, required=True, metavar="FOLDER", help="where results go")
@click.option("--to", type=common.Commas(), help="what to write, of pictures,json,files  [default: all that there is]")
@click.option("--score", type=SHARE, help="show boxes from this score on  [default: where validation's F1 is best]")
@click.option("--coco", type=common.FILE, help="number images and classes as this COCO file does")
@click.option("--batch", type=POSITIVE, default=16, show_default=True, help="pictures that the network sees at once")
@common.device_option
@common.precision_option
@click.pass_context
def predict(
    ctx: click.Context, /, checkpoint: Path, pictures: tuple[str, ...], out: Path, to: Any, score: Any, **given: Any
) -> None:
    """Let a student answer for pictures, videos and cameras.

    Give files, folders of pictures, camera:0, or - alone: paths from standard input, one a line.
    """
    from tutored.inputs import find_videos, sort_inputs

    inputs = sort_inputs(pictures, sys.stdin)
    if not inputs.pictures:
        common.refuse(ctx, "numbers pictures, and none is given", "coco")
    for missing in (path for path in inputs.pictures if not path.exists()):
        raise InputError(f"{missing}: there is no such picture or folder; correct its name")
    videos = find_videos(inputs.videos, inputs.under)
    from tutored.cli.progress import bar
    from tutored.predict import Film, Predictor, Result
    from tutored.predict.write import FILMED, KINDS, choose_kinds, predict_files, predict_video

    predictor = Predictor.load(checkpoint, given["device"], given["batch"], given["precision"])
    unseen: list[float] = []

    def tell(name: str, result: Result) -> None:
        say(f"{name}: {result.told(score)}")
        unseen.extend(result.missed(score).values())

    def tell_film(name: str, film: Film, written: list[Path]) -> None:
        say(f"{name}: {film}")
        unseen.extend(film.missed().values())
        say(f"wrote {', '.join(map(str, written))}")

    if inputs.pictures:
        kinds = choose_kinds(to, KINDS, predictor.tasks)
        how = {"kinds": kinds, "under": inputs.under, "coco": given["coco"], "tell": note, "found": tell}
        with bar("predicting") as step:
            predict_files(predictor, inputs.pictures, out, score, step, **how)
        say(f"wrote {', '.join(kinds)} to {out}")
    if inputs.videos or inputs.cameras:
        kinds = choose_kinds(to, FILMED, predictor.tasks)
    for name, video in videos.items():
        with bar(name) as step:
            film = Film(score)
            written = predict_video(predictor, video, out / name, score, step, kinds=kinds, found=film.add)
        tell_film(name, film, written)
    for camera in inputs.cameras:
        from tutored.engine.trainer import stopping

        say(f"{camera}: Ctrl-C ends the recording")
        with stopping() as stop:
            film, into = Film(score), out / camera.replace(":", "-")
            written = predict_video(predictor, camera, into, score, kinds=kinds, stop=stop, found=film.add)
        tell_film(camera, film, written)
    if unseen:
        note(f"where nothing scored enough, --score {min(unseen):.2f} shows the best that was found")


@commands.command()
@student_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="the address to listen on")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one")
@click.option("--max-megabytes", type=POSITIVE, default=10, show_default=True, help="larger files are refused")
@common.device_option
@common.precision_option
def serve(checkpoint: Path, host: str, port: int, max_megabytes: int, **given: Any) -> None:
    """Open a page on which a picture is dropped and answered."""
    from tutored.serve import is_loopback
    from tutored.serve import serve as serve_page

    if not is_loopback(host):
        told = "not loopback: everybody who reaches this machine can ask; there is no password"
        say(f"warning: {host} is {told}", error=True)

    def ready(url: str) -> None:
        say(f"listening on {url} (Ctrl-C ends it)")

    serve_page(checkpoint, host, port, megabytes=max_megabytes, ready=ready, **given)


@commands.command()
@checkpoint_argument
@click.option("--to", type=click.Choice(["onnx", "torch"]), default="onnx", show_default=True, help="the format")
@click.option("--out", type=common.NEW_FILE, required=True, metavar="FILE", help="the file to write")
@click.option("--nms", is_flag=True, help="final boxes, not those of all anchors (ONNX)")
@click.option("--mask", is_flag=True, help="each input pixel's class, not the map's logits (ONNX)")
@click.option("--half", is_flag=True, help="float16 inside; inputs and outputs stay float32")
@click.option("--images", multiple=True, type=common.THERE, metavar="PICTURE|FOLDER...", help="to check it on")
def export(checkpoint: Path, to: str, out: Path, nms: bool, mask: bool, half: bool, images: tuple[Path, ...]) -> int:
    """Write a student for use without this package, and check it.

    It is checked on --images, or on some of its validation split, or on noise where that is not here.
    """
    wrong = {"onnx": (".pt2", ".pt"), "torch": (".onnx",)}[to]
    if out.suffix in wrong:
        other = "torch" if to == "onnx" else "onnx"
        raise InputError(f"--out {out}: the name ends as --to {other} writes it; give --to {other}, or another name")
    if to == "torch" and (nms or mask):
        raise InputError("--nms and --mask are ONNX's; in PyTorch torchvision.ops.batched_nms and argmax do it")
    from tutored.export import NotEqualError, Options, export_onnx, export_program
    from tutored.inputs import find_pictures

    pictures = list(find_pictures(images, tell=note).values()) if images else []
    try:
        if to == "onnx":
            parity = export_onnx(checkpoint, out, Options(nms, mask, half), pictures)
        else:
            parity = export_program(checkpoint, out, half=half, pictures=pictures)
    except NotEqualError as error:
        say(f"tutored: {error}", error=True)
        return 1
    say(f"wrote {out}; compared with PyTorch on {parity.sample}")
    for line in parity.lines():
        say(f"  {line}")
    return 0


@commands.group()
def study() -> None:
    """Run the tables and figures of the thesis, and beyond."""


def setting_options(function: Any) -> Any:
    for option in (
        click.option("--scale", metavar="NAME", help="one of the setting's scales, such as small"),
        click.option("--data", **common.DATA, help="in the place of the setting's"),
        click.option("--setting", type=common.FILE, help="data set and tutors  [default: VOC2012's]"),
    ):
        function = option(function)
    return function


def open_setting(given: dict[str, Any]) -> Any:
    from tutored.studies.setting import load_setting

    return load_setting(given["setting"], data=given["data"]).scaled(given["scale"])


@study.command("list")
@setting_options
def list_studies(**given: Any) -> None:
    """List the studies, and how many runs each has."""
    from tutored.studies.setting import plan, studies_of

    setting = open_setting(given)
    for each in studies_of(setting):
        lacks = f" (without the rows that need {', '.join(each.lacks)})" if each.lacks else ""
        say(f"{each.name:26} {len(plan([each], setting, [0])):3} runs a seed   {each.title}{lacks}")
    say("next: tutored study run STUDY --setting FILE.yaml --out FOLDER")


@study.command("run")
@click.argument("names", nargs=-1, required=True, metavar="STUDY...")
@click.option("--out", type=common.NEW_FOLDER, required=True, metavar="FOLDER", help="the study folder; may be shared")
@click.option("--seeds", type=POSITIVE, default=3, show_default=True, help="runs of each row")
@click.option("--recipe", type=click.Choice(["thesis", "corrected"]), help="the rows of this one alone")
@click.option("--row", "labels", multiple=True, metavar="LABEL", help="this row alone; may be given several times")
@click.option("--hours", type=common.AMOUNT, help="begin no run that would end later; but the first of a new folder")
@click.option("--jobs", type=POSITIVE, default=1, show_default=True, help="processes that train here at once")
@click.option("--keep", is_flag=True, help="keep finished runs' folders, with checkpoint and page")
@setting_options
def run_studies(
    names: tuple[str, ...],
    out: Path,
    seeds: int,
    recipe: Any,
    labels: tuple[str, ...],
    hours: Any,
    jobs: int,
    keep: bool,
    **given: Any,
) -> None:
    """Train what is not finished of some studies.

    STUDY... are names such as thesis/table-12, thesis, beyond or all.
    """
    from tutored.studies.setting import choose

    setting = open_setting(given)
    choose(names, setting)
    from tutored.cli.progress import watch_study
    from tutored.studies.folder import open_folder, work

    folder = open_folder(out, setting, names, seeds)
    with watch_study() as watch:
        limits = {"recipe": recipe, "labels": labels, "seeds": seeds, "hours": hours, "jobs": jobs, "keep": keep}
        done, failed, total = work(folder, names, watch=watch, tell=note, **limits)
    say(f"{out}: {done} of {total} runs are done" + (f", {failed} of them failed" if failed else ""))
    if hours is not None and done < total:
        say(
            f"the other {total - done} did not fit into --hours {hours:g}, or went to another process; "
            "the same command with more hours goes on"
        )
    say_next("tutored", "study", "report", out)


@study.command("report")
@click.argument("folder", type=Made(STUDY))
@click.argument("names", nargs=-1, metavar="[STUDY]...")
@click.option("--out", type=common.NEW_FOLDER, metavar="FOLDER", help="where to write  [default: the study folder]")
def report_studies(folder: Path, names: tuple[str, ...], out: Path | None) -> None:
    """Write report.html and report.md from what is finished."""
    from tutored.studies.folder import load_folder
    from tutored.studies.report import write_report

    found = load_folder(folder)
    page, text = write_report(found, found.outcomes(names or found.names), out or folder)
    say(f"wrote {page} and {text}")


@study.command("show")
@click.argument("folder", type=Made(STUDY))
@click.argument("rows", nargs=-1, metavar="[ROW]...")
@click.option("--against", metavar="ROW", help="show the differences to this row, with 95 % intervals")
@click.option("--json", "json_", is_flag=True, help="with each run's figures, config, machine and commit")
def show_rows(folder: Path, rows: tuple[str, ...], against: str | None, json_: bool) -> None:
    """Print the figures of single rows of the results, or how far they are from another row.

    ROW... are how the rows' names begin, or else parts of them; without any, all rows are printed.
    """
    from tutored.studies.results import read_records, rows_of, show

    records = read_records(folder)
    other = None
    if against is not None:
        found = rows_of(records, [against])
        other = found.get(against, next(iter(found.values())) if len(found) == 1 else None)
        if other is None:
            raise InputError(f"--against {against!r} is part of {len(found)} rows; give the whole name of one")
    for key, own in rows_of(records, rows).items():
        say(f"{key}: {show(own, other)}")
        for record in own if json_ else ():
            say(json.dumps({name: getattr(record, name) for name in RECORDED}))
