"""`trial --profile`: the parts of a step, and a trace that can be opened."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bocb_tune.cli import main as cli
from bocb_tune.profiling.trace import PARTS

TINY = """\
name: tiny
task: classification
dataset: {name: digits, image_size: 16}
backbones: [test_vit]
optimizers: [adamw]
recipe: {base: digits, batch_size: 64}
budget: {epochs: 2, trials_per_cell: 20}
"""


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bocb-tune", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_a_step_is_taken_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, trace = tmp_path / "tiny.yaml", tmp_path / "out" / "trace.json"
    file.write_text(TINY)
    assert call(monkeypatch, "trial", str(file), "--cell", "test_vit/adamw", "--profile", str(trace)) == 0
    lines = capsys.readouterr().out.splitlines()
    shares = {line.split()[0]: float(line.split()[5].rstrip("%")) for line in lines if line.split()[0] in PARTS}
    assert {"data", "forward", "backward", "optimizer"} <= set(shares)
    assert sum(shares.values()) == pytest.approx(100, abs=0.5)
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"forward", "backward", "optimizer"} <= names


def test_too_few_steps_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(
        TINY.replace("epochs: 2", "epochs: 1").replace("batch_size: 64", "batch_size: 512, warmup_epochs: 0")
        + "search: {asha: null}\n"
    )
    code = call(monkeypatch, "trial", str(file), "--cell", "test_vit/adamw", "--profile", str(tmp_path / "t.json"))
    assert code == 2
    assert "this trial had 2; give it more epochs" in capsys.readouterr().err
