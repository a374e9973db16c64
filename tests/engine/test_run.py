"""Real runs on real Ray: two ranks, an attached cluster, interruptions, failures. One start of Ray costs about 15 s."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bocb_tune.core.types import Phase, TrialRecord, TrialStatus
from tests.support.processes.nodes import Cluster
from tests.support.processes.runs import COMMAND, Run, count_lines, records_in
from tests.support.simulated import essence

pytestmark = pytest.mark.ray

SYNTHETIC = """
name: quick
task: {{name: synthetic, noise: 0.5, epoch_s: {epoch_s}}}
dataset: synthetic
backbones: [bowl]
optimizers: [sgd]
recipe: digits
budget: {{epochs: 4, trials_per_cell: 4}}
search: {{design: 2, asha: {{grace: 1, reduction_factor: 2}}}}
repeats: {{best: 1, default: 0}}
resources: {{max_slots: 1, warm: {warm}}}
"""


def write_spec(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return path


def finish(run: Run, code: int = 0) -> list[TrialRecord]:
    try:
        assert run.wait() == code, run.output
        return list(records_in(run.folder).values())
    finally:
        run.close()


def test_two_ranks_train_on_digits(tmp_path: Path) -> None:
    spec = Path(__file__).parents[2] / "experiments" / "ddp_digits.yaml"
    options = ("--set", "budget.epochs=2", "--set", "search.asha.grace=1", "--only", "*/sgd")
    records = finish(Run(spec, tmp_path / "run", *options))
    assert {record.world_size for record in records} == {2}
    measured = [measurement for record in records for measurement in record.measurements]
    assert measured
    assert {measurement.metrics["world_size"] for measurement in measured} == {2}
    assert max(record.score or 0 for record in records) > 30  # chance is 10 points: something was learnt


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    nodes = Cluster(tmp_path, cpus=2)
    yield nodes
    nodes.close()


NOTHING = {"used": 0.0, "actors": [], "groups": 0}


def test_attaches_to_a_cluster_and_leaves_it_running_and_free(tmp_path: Path, cluster: Cluster) -> None:
    spec = write_spec(tmp_path, SYNTHETIC.format(epoch_s=0, warm="true"))
    records = finish(Run(spec, tmp_path / "run", "--address", cluster.address))
    assert len(records) == 5
    assert cluster.left() == NOTHING


@pytest.mark.slow
def test_a_group_for_each_trial_gives_the_same_records(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, SYNTHETIC.format(epoch_s=0, warm="true"))
    warm = finish(Run(spec, tmp_path / "warm"))
    spec.write_text(SYNTHETIC.format(epoch_s=0, warm="false"))
    cold = finish(Run(spec, tmp_path / "cold"))
    assert essence({r.id: r for r in cold}) == essence({r.id: r for r in warm})


def test_ctrl_c_finishes_the_epoch_and_the_same_command_goes_on(tmp_path: Path) -> None:
    spec = write_spec(
        tmp_path, SYNTHETIC.format(epoch_s=3, warm="true")
    )  # the listener may start seconds after the trial
    run = Run(spec, tmp_path / "run")
    try:
        assert run.wait_until(lambda: count_lines(run.folder) >= 3)
        os.kill(run.process.pid, signal.SIGINT)
        assert run.wait(60) == 130, run.output
        assert "The same command goes on from there" in run.output
        assert "Traceback" not in run.output
    finally:
        run.close()
    interrupted = [r for r in records_in(run.folder).values() if r.status == TrialStatus.running]
    assert len(interrupted) == 1
    again = {record.id: record for record in finish(Run(spec, tmp_path / "run"))}
    assert len(again) == 5
    assert again[interrupted[0].id].measurements[: interrupted[0].budget] == interrupted[0].measurements
    assert again[interrupted[0].id].attempt == 2


def test_signals_in_a_pair_are_one_and_a_later_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, SYNTHETIC.format(epoch_s=30, warm="true"))
    run = Run(spec, tmp_path / "run")
    try:
        assert run.wait_until(lambda: count_lines(run.folder) >= 2)
        for number in (signal.SIGHUP, signal.SIGTERM):
            os.kill(run.process.pid, number)
            time.sleep(0.05)
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(2.5)
        start = time.monotonic()
        os.kill(run.process.pid, signal.SIGINT)
        assert run.process.wait(10) == 130
        assert time.monotonic() - start < 5
    finally:
        run.close()


def corrupt_image_folder(folder: Path) -> Path:
    """Two classes of real digits as PNG files, three of which end in the middle: two of them are in the same split."""
    from PIL import Image
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for label in (0, 1):
        home = folder / "train" / str(label)
        home.mkdir(parents=True)
        for number, pixels in enumerate(images[labels == label][:20]):
            Image.fromarray((pixels.reshape(8, 8) * 15).astype("uint8")).save(home / f"{number}.png")
    for name in BROKEN:
        broken = folder / "train" / "0" / name
        broken.write_bytes(broken.read_bytes()[:40])
    return folder


BROKEN = ("3.png", "5.png", "6.png")


def test_a_trial_that_fails_is_kept_with_its_message_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = corrupt_image_folder(tmp_path / "data")
    spec = write_spec(
        tmp_path,
        f"""
name: corrupt
task: classification
dataset: {{name: imagefolder, root: {root}, image_size: 32, val_share: 0.2, loader_workers: 0}}
backbones: [test_vit]
optimizers: [sgd]
recipe: {{base: digits, batch_size: 8, augment: none, warmup_epochs: 0}}
budget: {{epochs: 1, trials_per_cell: 2}}
search: {{design: 1, asha: null}}
repeats: {{best: 0, default: 0}}
resources: {{max_slots: 1}}
""",
    )
    run = Run(spec, tmp_path / "run")
    records = finish(run, code=1)
    assert {record.status for record in records} == {TrialStatus.failed}
    messages = [record.message for record in records]
    assert all(any(f"/train/0/{name} " in message for name in BROKEN) for message in messages), messages
    said = (run.folder / "ray.log").read_text(encoding="utf-8")
    assert any(f"/train/0/{name}" in said for name in BROKEN)  # the worker's own warning
    assert "Number of trials" not in run.output  # Ray's banner is for the log
    naming = [line for line in run.output.splitlines() if "/train/0/" in line]
    assert len(naming) == 2 == len(records)  # said once as it happens, once at the end
    assert all(any(message in line for message in messages) for line in naming)
    for name in BROKEN:
        shutil.copy(root / "train" / "0" / "4.png", root / "train" / "0" / name)
    mended = finish(Run(spec, tmp_path / "run"))
    assert {(record.status, record.phase) for record in mended} == {
        (TrialStatus.completed, Phase.default),
        (TrialStatus.completed, Phase.design),
    }
    for record in mended:
        command = [COMMAND, "trial", "--from", str(run.folder), "--id", record.id]
        repeated = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        for name in ("score", "val_loss", "train_loss"):
            assert f" {name} {record.measurements[-1].metrics[name]:.4g} " in repeated


def refused(spec: Path, folder: Path) -> str:
    """What a run that cannot start says; it exits with 2 and shows no traceback."""
    run = Run(spec, folder)
    try:
        assert run.wait() == 2, run.output
        assert "Traceback" not in run.output
        return run.output
    finally:
        run.close()


def test_a_folder_of_another_experiment_is_refused_with_the_field(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, SYNTHETIC.format(epoch_s=0, warm="true"))
    (tmp_path / "run").mkdir()
    from bocb_tune.spec.model import dump_resolved, load_spec

    (tmp_path / "run" / "spec.yaml").write_text(dump_resolved(load_spec(spec, ["budget.epochs=8"])))
    output = refused(spec, tmp_path / "run")
    assert "budget.epochs: 8 there, 4 here" in output
    assert "--out" in output


def test_a_folder_that_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, SYNTHETIC.format(epoch_s=0, warm="true"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    assert "is no run folder" in refused(spec, tmp_path / "photos")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, SYNTHETIC.format(epoch_s=0, warm="true"))
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refused(spec, tmp_path / "file" / "run")


@pytest.mark.slow
def test_a_run_folder_that_is_removed_ends_the_run(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, SYNTHETIC.format(epoch_s=0.5, warm="true"))
    run = Run(spec, tmp_path / "run")
    try:
        assert run.wait_until(lambda: count_lines(run.folder) >= 4)
        shutil.rmtree(run.folder)
        assert run.wait() == 2, run.output
        assert "was removed, moved or replaced" in run.output
        assert "Traceback" not in run.output
        assert not list(tmp_path.glob("run/cells"))
    finally:
        run.close()


@pytest.mark.slow
def test_a_home_that_cannot_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    spec = write_spec(tmp_path, SYNTHETIC.format(epoch_s=0, warm="true"))
    assert f"HOME ({tmp_path / 'home'})" in refused(spec, tmp_path / "run")


def test_a_full_disk_ends_the_run_with_a_message_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=28k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        spec = write_spec(tmp_path, SYNTHETIC.format(epoch_s=0, warm="true"))
        output = refused(spec, disk / "run")
        assert "No space left on device" in output
    finally:
        subprocess.run(["umount", str(disk)], check=True)
