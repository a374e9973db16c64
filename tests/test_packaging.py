"""The installed package: what a wheel holds, and which of two copies of the package a process takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINKS = ("analysis", "search_spaces")
"""Folders of the package that stand at the root of the tree, with a link to them in the package."""

pytestmark = pytest.mark.slow


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def tracked() -> list[str]:
    """Return every file of the tree that is to be released, relative to its root."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built without fetching anything."""
    folder, tree = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("tree")
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name, follow_symlinks=False)
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(tree)]
    subprocess.run(command, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and the dependencies of this one: without the package that is installed here."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    subprocess.run([*PIP, "--python", str(folder / "bin/python"), "install", "--no-deps", str(wheel)], check=True)
    # the files of such a folder are seen, what it has installed for editing is not
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def test_a_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    files = {path for path in tracked() if path.split("/")[0] in ("bocb_tune", *LINKS)}
    wanted = {f"bocb_tune/{path}" if path.split("/")[0] in LINKS else path for path in files}
    wanted -= {f"bocb_tune/{name}" for name in LINKS}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("bocb_tune/")}
    assert len(held) > 150
    assert held == wanted


def test_the_installed_command_works_where_the_working_directory_is_a_checkout(
    environment: Path, tmp_path: Path
) -> None:
    """Processes that a process starts take the working directory before what is installed; six cells start some."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = []
    for directory in (ROOT, tmp_path):
        out = tmp_path / f"of-{directory.name}"
        command = [str(environment / "bin/bocb-tune"), "analyze", "paper:cifar100", "--out", str(out)]
        done = subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (out / "report.html").exists()
        found.append(json.loads((out / "metrics.json").read_text()))
    assert found[0] == found[1]


IN_A_WORKER = """
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", runtime_env={"working_dir": "."})
@ray.remote
def look():
    import os, bocb_tune.analysis.sources.load, bocb_tune.search_spaces, bocb_tune.engine.worker.serve
    from bocb_tune.spec.space_file import load_space
    return os.path.relpath(bocb_tune.analysis.sources.load.__file__), load_space("sgd").optimizer
print(*ray.get(look.remote()))
"""


@pytest.mark.ray
def test_a_ray_worker_whose_working_directory_is_a_checkout_has_the_whole_package(tmp_path: Path) -> None:
    """Ray packs the directory and unpacks it elsewhere; links must arrive as what they lead to."""
    script = tmp_path / "script.py"
    script.write_text(IN_A_WORKER)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["bocb_tune/analysis/sources/load.py", "sgd"]
