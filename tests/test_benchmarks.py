"""Every benchmark runs at its smallest scale, and what is written about it can be read."""

import json
from importlib import import_module

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("pycocotools")

from benchmarks import export_parity
from benchmarks.__main__ import NAMES
from benchmarks.harness import AbsentError, Timed, page, put_between, table, write
from benchmarks.package import TINY, make_data, save_untrained

from tutored.export import Options


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_at_the_smallest_scale(name, work, tmp_path):
    tables = []
    try:
        tables.extend(import_module(f"benchmarks.{name}").measure(work, 0.01))
    except AbsentError as error:
        if not tables:
            pytest.skip(str(error))
    write(tmp_path, name, 0.01, tables)
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert all(each["title"] and each["rows"] for each in content["tables"])
    assert f"## {name}" in page(tmp_path, [name])


def test_export_parity_is_put_into_a_page(work, tmp_path, monkeypatch):
    monkeypatch.setattr(export_parity, "KINDS", {"ONNX `--nms`": Options(nms=True)})
    data, _ = make_data(work, 8, 0.01)
    content = export_parity.measure([save_untrained(tmp_path / "random", TINY)], data, "train", 2, tmp_path)
    assert [row["file"] for row in content["exports"]] == ["ONNX `--nms`"]
    (tmp_path / "page.md").write_text("before\n<!-- parity -->\nold\n<!-- /parity -->\nafter\n")
    put_between(tmp_path / "page.md", "parity", export_parity.report(content))
    text = (tmp_path / "page.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text and "random weights" in text


def test_ratios_are_of_rounds_side_by_side():
    timed = {"slow": Timed((2.0, 4.0, 6.0), 10), "fast": Timed((1.0, 1.0, 2.0), 10)}
    slow, fast = table("t", timed, "slow")["rows"]
    assert slow["images/s"] == 2.5 and slow["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert fast["images/s"] == 10 and fast["ratio"] == {"median": 3.0, "low": 2.0, "high": 4.0}
