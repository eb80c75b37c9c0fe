"""What is handed out: a wheel with all that the package needs, a source archive from which that wheel is made again."""

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
EXTRAS = {"bench", "docs", "hf", "onnx", "quickstart", "ray", "serve", "test", "track", "video", "weights"}


def build(source, out, *targets):
    """`hatchling build` of a source folder; the archives in the targets' order."""
    flags = [word for target in targets for word in ("-t", target)]
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(out), *flags], cwd=source, check=True)
    suffixes = {"wheel": "*.whl", "sdist": "*.tar.gz"}
    return [next(out.glob(suffixes[target])) for target in targets]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("dist"), "wheel", "sdist")


def in_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_files_of_the_package(archives):
    package = ROOT / "src" / "tutored"
    there = {
        f"tutored/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in in_wheel(archives[0]) if ".dist-info/" not in name} == there
    assert "tutored/py.typed" in there


def test_the_source_archive_makes_the_same_wheel(archives, tmp_path):
    wheel, source = archives
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = next(tmp_path.glob("tutored-*"))
    assert not (unpacked / "results").exists()
    again = in_wheel(build(unpacked, tmp_path / "dist", "wheel")[0])
    assert again == in_wheel(wheel)


def test_the_metadata_are_complete(archives):
    files = in_wheel(archives[0])
    name = next(name for name in files if name.endswith("/METADATA"))
    about = Parser().parsestr(files[name].decode())
    assert about["Requires-Python"] == ">=3.11" and about["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in about.get_all("Classifier", [])
    assert set(about.get_all("Provides-Extra", [])) == EXTRAS
    assert about.get_payload().startswith("# tutored\n")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == about["Version"] and citation["license"] == about["License-Expression"]
