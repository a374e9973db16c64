"""What is said of grids whose answer is known: values, and that every place says the same."""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bocb_tune.analysis.answer.as_json import to_json
from bocb_tune.analysis.answer.compose import answer_of
from bocb_tune.analysis.answer.contests import contests_of
from bocb_tune.analysis.answer.sentences import Line, Part, markdown, parts_of, terminal
from bocb_tune.analysis.answer.steps import seeds_to_tell, yaml_number
from bocb_tune.analysis.answer.values import Answer, Basis, Standing
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.findings.collect import Findings, find
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.matrix.best import half_width, satterthwaite, worse_than_best
from bocb_tune.analysis.report.sections.first import first_screen as screen_of
from bocb_tune.analysis.report.write import report
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.stated import Stated
from bocb_tune.cli.main import app
from tests.support import grids
from tests.support.fakes import FakeRun, write_run
from tests.support.tables import write

T2 = 4.30265272970
"""Student's t with 2 degrees of freedom, 97.5 %."""


def answer_to(folder: Path, scores: grids.Scores, **seeds: int) -> tuple[Findings, Answer]:
    source = grids.write_seeds(folder / "grid.csv", scores, **seeds)
    findings = find(load(source))
    return findings, answer_of(findings, source)


# Who is best


def test_means_that_are_significantly_below_the_best() -> None:
    """Three means: the best, one half a point below and one ten; the middle one is tied unless its noise is small."""
    df = np.array([2.0, 2.0, 2.0])
    scores = np.array([80.0, 79.5, 70.0])
    assert worse_than_best(scores, np.full(3, 0.1), df).tolist() == [False, False, True]
    assert worse_than_best(scores, np.full(3, 1e-4), df).tolist() == [False, True, True]
    assert worse_than_best(scores, np.array([0.1, np.nan, 0.1]), df).tolist() == [False, False, True]
    assert half_width(1.0, 2.0) == pytest.approx(T2)
    assert half_width(1.0, 2.0, 3) > half_width(1.0, 2.0)
    assert satterthwaite(np.array([1.0, 1.0]), np.array([2.0, 2.0])) == 4


def test_false_claims_are_as_rare_as_stated() -> None:
    """Of alike optimizers in 2,000 rows of six, some is called worse than the best in one of twenty, at most."""
    rng = np.random.default_rng(0)
    runs = rng.standard_normal((2000, 6, 3))
    means, variances = runs.mean(axis=2), runs.var(axis=2, ddof=1) / 3
    claimed = [worse_than_best(m, v, np.full(6, 2.0)).any() for m, v in zip(means, variances, strict=True)]
    assert np.mean(claimed) < 0.06


def test_one_optimizer_that_wins_everywhere_is_said_to(tmp_path: Path) -> None:
    findings, answer = answer_to(tmp_path, grids.dominated())
    assert answer.dominating == "lion"
    assert {contest.best.optimizer for contest in answer.contests if contest.best} == {"lion"}
    assert all(contest.is_won and contest.is_tested for contest in answer.contests)
    leads = [contest.lead.value for contest in answer.contests]
    assert [round(lead or 0) for lead in leads] == [17, 15, 13]
    first = parts_of(answer)[0].lines[0].text
    assert first.startswith("lion wins on all 3 backbones, by 13.")
    assert len(findings.grid.verdict.failed) == 6
    assert "all others fail" in parts_of(answer)[0].lines[1].text.lower()


def test_the_failed_cell_of_an_additive_grid_is_a_failure_and_no_coupling(tmp_path: Path) -> None:
    _, answer = answer_to(tmp_path, grids.additive_with_a_failure())
    assert answer.dominating == "adamw"
    (vit,) = [contest for contest in answer.contests if contest.backbone == "vit_tiny"]
    standing = {each.optimizer: each.standing for each in vit.contenders}
    assert standing == {"adamw": Standing.best, "lion": Standing.worse, "sgd": Standing.fails}
    assert vit.lead.value == pytest.approx(2, abs=0.6)
    assert "vit_tiny/sgd" in answer.coupling[0]
    assert not any("% of the optimizer-related variance" in line for line in answer.coupling)


@pytest.mark.parametrize("seeds", [3, 12])
@pytest.mark.parametrize("seed", range(3))
def test_guesses_have_no_winner(tmp_path: Path, seeds: int, seed: int) -> None:
    """Of 500 images in ten classes, labelled at random, every network guesses: the highest score wins nothing."""
    rng = np.random.default_rng(seed)
    names = itertools.product(grids.BACKBONES, grids.OPTIMIZERS, range(seeds))
    rows = [
        {"backbone": backbone, "optimizer": optimizer, "seed": each, "top1": rng.binomial(500, 0.1) / 5, "lr": 1e-3}
        for backbone, optimizer, each in names
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "guesses.csv", index=False)
    findings = find(load(str(tmp_path / "guesses.csv"), stated=Stated(chance=10.0)))
    answer = answer_of(findings, "guesses.csv")
    assert findings.grid.failed.all()
    assert answer.dominating is None
    assert all(contest.is_lost and contest.best is None and not contest.is_won for contest in answer.contests)
    best, coupling, *_ = parts_of(answer)
    assert best.lines[0].text.startswith("Every cell fails, so that no optimizer is best.")
    assert coupling.lines[0].text.startswith("Every cell fails (no better than chance")
    assert len(coupling.lines) == 1
    assert "wins" not in " ".join(terminal(parts_of(answer)))


def test_a_backbone_that_nothing_trains_has_no_winner(tmp_path: Path) -> None:
    """The others keep theirs, and nothing untested is called significant."""
    scores = np.array([[70.0, 75, 71], [10, 10.1, 10.4], [68, 74, 69]])
    names = itertools.product(enumerate(grids.BACKBONES), enumerate(grids.OPTIMIZERS))
    rows = [{"backbone": b, "optimizer": o, "top1": scores[i, j], "lr": 1e-3} for (i, b), (j, o) in names]
    pd.DataFrame(rows).to_csv(tmp_path / "grid.csv", index=False)
    answer = answer_of(find(load(str(tmp_path / "grid.csv"), stated=Stated(chance=10.0))), "grid.csv")
    (lost,) = [contest for contest in answer.contests if contest.backbone == "vit_tiny"]
    assert (lost.best, lost.is_lost, lost.is_significant) == (None, True, False)
    assert answer.dominating is None
    lines = [line.text for line in parts_of(answer)[0].lines]
    assert "vit_tiny: all 3 optimizers fail; the best score is 10.40 by lion." in lines
    assert not any("significant" in line for line in lines)


def test_a_win_by_failures_alone_is_not_called_significant(tmp_path: Path) -> None:
    rows = [
        {"backbone": backbone, "optimizer": optimizer, "top1": score, "lr": 1e-3}
        for backbone in grids.BACKBONES
        for optimizer, score in (("sgd", 20.1), ("adamw", 75.3))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "grid.csv", index=False)
    answer = answer_of(find(load(str(tmp_path / "grid.csv"), stated=Stated(chance=10.0))), "grid.csv")
    assert answer.dominating == "adamw"
    first = parts_of(answer)[0].lines[0].text
    assert first.startswith("adamw wins on all 3 backbones, by 55.20 points")
    assert first.endswith("the others fail, or are significantly worse.")


def test_nothing_is_claimed_of_a_null_grid(tmp_path: Path) -> None:
    findings, answer = answer_to(tmp_path, grids.null())
    assert answer.dominating is None
    assert not any(contest.is_won for contest in answer.contests)
    standings = {each.standing for contest in answer.contests for each in contest.contenders}
    assert standings == {Standing.best, Standing.tied}
    assert not findings.grid.verdict.is_shown
    assert parts_of(answer)[0].lines[0].text == "On no backbone do the optimizers differ significantly."


def test_the_interval_of_a_score_is_that_of_its_seeds(tmp_path: Path) -> None:
    """With equal noise everywhere, moderated noise has many degrees of freedom: about 1.96 standard errors of it."""
    findings, answer = answer_to(tmp_path, grids.null(), seeds=3)
    noise = findings.grid.noise
    assert noise is not None
    best = answer.contests[0].best
    assert best is not None
    assert best.basis is Basis.seeds
    assert (best.score.lo, best.score.hi) != (None, None)
    half = ((best.score.hi or 0) - (best.score.lo or 0)) / 2
    column = findings.table.optimizers.index(best.optimizer)
    error = math.sqrt(float(noise.cell_variance[0, column]))
    assert 1.9 * error < half < T2 * error


def test_no_interval_of_a_share_leaves_its_range(tmp_path: Path) -> None:
    _, answer = answer_to(tmp_path, grids.null() + 21.6)
    ends = [each.score.hi for contest in answer.contests for each in contest.contenders]
    assert max(end for end in ends if end is not None) <= 100


def test_single_scores_are_compared_but_not_tested() -> None:
    findings = find(load("paper:cifar100"))
    answer = answer_of(findings, "paper:cifar100")
    assert answer.overall is not None
    assert answer.overall.best is not None
    assert answer.overall.best.optimizer == "Adan"
    assert answer.overall.best.score.value == pytest.approx(80.55, abs=0.01)
    assert answer.overall.best.score.lo is None
    assert [each.optimizer for each in answer.overall.of(Standing.near)] == ["LAMB", "AdamP"]
    assert not any(contest.is_tested for contest in answer.contests)
    verdicts = {each.statement: each.verdict for each in answer.conclusions}
    assert verdicts["Classical convolutional networks couple with SGD"] == "yes"
    assert verdicts["AdamW is robust"] == "partly"
    assert [each.held for each in answer.conclusions if each.statement == "AdamW is robust"] == [1]
    carried = answer.coupling[-1]
    assert "AlexNet, 18 %" in carried
    assert "AdaBound, 14 %" in carried
    assert "Moga-S/AdaBound 5 %" in carried


# Sensitivity


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Path, Findings, Answer]:
    folder = tmp_path_factory.mktemp("losses")
    source, spaces = grids.write_losses(folder)
    findings = find(load(source, (spaces,)))
    return folder, source, spaces, findings, answer_of(findings, source)


def test_a_flat_cell_far_below_the_best_is_not_the_safest(losses: tuple[Path, str, Path, Findings, Answer]) -> None:
    """Lion on vit_tiny is flat over five decades, at twice the loss: none of them is within the tolerance of adamw."""
    _, _, _, findings, answer = losses
    reach = {each.key: each for each in answer.reaches}
    flat = reach["vit_tiny/lion"]
    assert (flat.of_own.value, flat.of_best.value) == (pytest.approx(5, abs=0.2), 0)
    good = reach["vit_tiny/adamw"]
    assert good.of_best.value is not None
    assert 0.2 < good.of_best.value < 2
    assert good.of_best.value == pytest.approx(good.of_own.value, abs=0.2)
    assert answer.tolerance == findings.tolerance
    assert all((each.of_best.value or 0) <= (each.of_own.value or 0) + 1e-9 for each in answer.reaches)


def test_losses_are_told_in_their_own_unit(losses: tuple[Path, str, Path, Findings, Answer]) -> None:
    _, _, _, findings, answer = losses
    (vit,) = [contest for contest in answer.contests if contest.backbone == "vit_tiny"]
    assert vit.best is not None
    assert (vit.best.optimizer, vit.best.basis) == ("adamw", Basis.model)
    assert vit.best.score.value == pytest.approx(0.5, abs=0.03)
    assert vit.best.score.lo is not None
    assert vit.best.score.lo < (vit.best.score.value or 0) < (vit.best.score.hi or 0)
    assert vit.lead.value == pytest.approx(0.7 / findings.table.objective.point, rel=0.2)
    assert answer.dominating == "adamw"


# What to do next, and what cannot be said


def test_what_cannot_be_said_says_what_it_takes(tmp_path: Path) -> None:
    findings = find(load(str(write_run(tmp_path / "run", FakeRun(trials=15)))))
    answer = answer_of(findings, "runs/mine")
    lacking = [limit for limit in answer.limits if limit.why == Reason.TOO_FEW_TRIALS.sentence]
    counts = [cell.n_trials for cell in findings.cells]
    assert lacking
    assert re.search(r"\d+ more trials in each", lacking[0].needs)
    (step,) = [step for step in answer.steps if "budget.trials_per_cell" in step.do]
    assert step.do.startswith("bocb-tune run runs/mine/spec.yaml --out runs/mine --set budget.trials_per_cell=")
    assert int(step.do.rsplit("=", maxsplit=1)[1]) > max(counts)


def test_commands_and_lines_can_be_typed_as_they_stand(tmp_path: Path) -> None:
    name = tmp_path / "a run"
    findings = find(load(str(write_run(name, FakeRun(trials=4)))))
    answer = answer_of(findings, str(name))
    (command,) = [step.do for step in answer.steps if "recommend" in step.do]
    assert command.startswith(f"bocb-tune recommend '{name}' --backbone ")
    assert [yaml_number(value) for value in (1e-7, 0.001, 10.0, 2.5e-06)] == ["1.0e-07", "0.001", "10", "2.5e-06"]


def test_seeds_that_would_tell_two_apart_are_counted(tmp_path: Path) -> None:
    """Half a point apart at a noise of .3, three comparisons at once: more than three seeds, fewer than twenty."""
    scores = grids.null()
    scores[:, 1] += 0.4
    findings, answer = answer_to(tmp_path, scores, seeds=2, seed=4)
    needed = [seeds_to_tell(findings, contest) for contest in answer.contests]
    assert any(count is not None and 3 <= count <= 20 for count in needed)
    assert all(count is None for count, c in zip(needed, answer.contests, strict=True) if not c.of(Standing.tied))


def test_optimizers_without_a_score_are_named(tmp_path: Path) -> None:
    findings = find(load(str(write_run(tmp_path / "run", FakeRun(trials=4, unfinished=("vit_tiny/lamb",))))))
    (contest,) = [each for each in contests_of(findings)[0] if each.backbone == "vit_tiny"]
    assert [each.optimizer for each in contest.of(Standing.unknown)] == ["lamb"]
    assert contest.contenders[-1].optimizer == "lamb"


# Every place says the same


@pytest.fixture(scope="module")
def written(losses: tuple[Path, str, Path, Findings, Answer]) -> tuple[Path, tuple[Part, ...]]:
    folder, source, spaces, _, _ = losses
    found = report(source, folder / "report", (spaces,))
    return found.page, found.parts


def first_screen(page: Path) -> str:
    html = page.read_text(encoding="utf-8")
    start = html.index('<section id="answer"')
    return unescape(re.sub(r"<svg.*?</svg>", "", html[start : html.index("</section>", start)], flags=re.DOTALL))


def test_the_first_screen_says_what_metrics_json_and_the_terminal_say(written: tuple[Path, tuple[Part, ...]]) -> None:
    page, parts = written
    screen = first_screen(page)
    values = json.loads((page.parent / "metrics.json").read_text(encoding="utf-8"))["grid"]["answer"]
    for part in parts:
        assert values["sentences"][part.title] == [line.text for line in part.lines]
        assert all(line.text in screen for line in part.lines)
    assert all(line.strip() in screen for line in terminal(parts) if not line.endswith(":"))


def test_the_first_screen_agrees_with_the_tables_below_it(
    written: tuple[Path, tuple[Part, ...]], losses: tuple[Path, str, Path, Findings, Answer]
) -> None:
    page, _ = written
    _, _, _, _, answer = losses
    tables = page.parent / "tables"
    best = pd.read_csv(tables / "winners.csv").set_index("backbone")
    values = json.loads((page.parent / "metrics.json").read_text(encoding="utf-8"))["grid"]["answer"]
    for contest in answer.contests:
        assert contest.best is not None
        assert best.loc[contest.backbone, "best_optimizer"] == contest.best.optimizer
        assert best.loc[contest.backbone, "score"] == pytest.approx(contest.best.score.value)
        assert values["best"][contest.backbone]["best"] == contest.best.optimizer
    recommended = pd.read_csv(tables / "recommendations.csv").set_index("backbone")["optimizer"]
    allowed = {c.backbone: {each.optimizer for each in c.of(Standing.best, Standing.tied)} for c in answer.contests}
    assert all(recommended[backbone] in names for backbone, names in allowed.items())
    widths = pd.read_csv(tables / "sensitivity.csv").set_index(["backbone", "optimizer"])["decades_of_best"]
    for reach in answer.reaches:
        assert widths[reach.backbone, reach.optimizer] == pytest.approx(reach.of_best.value)
        assert values["usable_decades"][reach.key]["of_best"]["value"] == pytest.approx(reach.of_best.value)


def test_no_code_word_stands_on_the_page(written: tuple[Path, tuple[Part, ...]]) -> None:
    page, _ = written
    html = re.sub(r"<(style|script|svg)\b.*?</\1>|<[^>]*>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"tables/\w+\.csv|\S*[/~]\S*|val_loss|vit_tiny", " ", unescape(html))
    assert re.findall(r"\b[A-Z]{3,}_[A-Z_]+\b", text) == []
    assert re.findall(r"\b[a-z]+_[a-z_]+\b", text) == []


def test_the_commands_end_with_the_answer(losses: tuple[Path, str, Path, Findings, Answer], tmp_path: Path) -> None:
    _, source, spaces, findings, answer = losses
    run, space = CliRunner().invoke, ["--space", str(spaces)]
    written = run(app, ["analyze", source, *space, "-o", str(tmp_path / "out")])
    assert written.stdout == f"{tmp_path / 'out' / 'report.html'}\n"
    options = ["--space", str(spaces)]
    answer = answer_of(findings, source, options)
    assert "\n".join(terminal(parts_of(answer))) in written.stderr
    as_text = run(app, ["recommend", source, *space, "--backbone", "vit_tiny"]).stdout
    asked = replace(answer, steps=tuple(step for step in answer.steps if " recommend " not in step.do))
    assert as_text.rstrip().endswith("\n".join(terminal(parts_of(asked))))
    as_markdown = run(app, ["analyze", source, *space, "-o", str(tmp_path / "out"), "--format", "md"]).stdout
    remarks = screen_of(findings, answer).remarks
    assert any("'val_loss'" in line.text for part in remarks for line in part.lines)
    assert as_markdown == markdown((*parts_of(answer), *remarks))
    assert "\n".join(terminal(remarks)) in written.stderr
    assert to_json(answer)["dominating"] == "adamw"
    assert isinstance(findings.landscapes["vit_tiny", "adamw"], Landscape)


def test_the_next_command_repeats_what_is_said_of_the_table(tmp_path: Path) -> None:
    rows = [f"{backbone},{optimizer},60,61,{place}" for backbone in "ab" for optimizer in "cd" for place in "xy"]
    source = write(tmp_path / "t.csv", "backbone,optimizer,score,my acc,place", *rows)
    stated = Stated(metric="my acc", direction="max", tolerance="2", chance=0.5, where=("place=x",))
    found = report(source, tmp_path / "report", stated=stated)
    (command,) = [line.code for part in found.parts for line in part.lines if " recommend " in line.code]
    said = command.partition("--trials 16 ")[2]
    assert said == "--metric 'my acc' --direction max --tolerance 2 --chance 0.5 --where place=x"
    assert not any("Columns not used: place" in line.text for part in found.remarks for line in part.lines)
    again = CliRunner().invoke(app, shlex.split(command)[1:])
    assert again.exit_code == 0
    assert "bocb-tune recommend" not in again.stdout


def test_equal_scores_are_nobodys_win(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", "backbone,optimizer,score", "a,c,60", "a,d,60", "b,c,50", "b,d,50")
    assert answer_of(find(load(source)), source).dominating is None


@pytest.mark.parametrize(
    ("status", "counts", "advises"),
    [("diverged", "4 diverged", True), ("failed", "4 failed", False), ("running", "4 running", False)],
)
def test_why_no_cell_has_a_score_is_said(tmp_path: Path, status: str, counts: str, advises: bool) -> None:
    rows = [f"{backbone},{optimizer},,{status}" for backbone in "ab" for optimizer in "cd"]
    source = write(tmp_path / "t.csv", "backbone,optimizer,score,status", *rows)
    first = parts_of(answer_of(find(load(source)), source))[0].lines[0].text
    assert f"({counts})" in first
    assert ("--chance" in first) is advises


def test_what_is_not_used_is_said_beside_the_answer(tmp_path: Path) -> None:
    rows = [f"{backbone},{optimizer},60,x" for backbone in "ab" for optimizer in "cd"]
    source = write(tmp_path / "t.csv", "backbone,optimizer,score,date", *rows)
    findings = find(load(source))
    (remarks,) = screen_of(findings, answer_of(findings, source)).remarks
    assert "Columns not used: date." in [line.text for line in remarks.lines]


def test_names_are_no_markup_in_markdown() -> None:
    part = Part(title="T", lines=(Line(text="a_b *c* <b> [x](y) | `z`", code="run `x`\nrm"),))
    text = markdown((part,))
    assert "\\*c\\*" in text
    assert "\\<b\\>" in text
    assert "\\[x\\]" in text
    assert "````\n  run `x` rm\n  ````" in text


def test_the_answer_depends_on_no_name(tmp_path: Path) -> None:
    findings, answer = answer_to(tmp_path, grids.dominated())
    other = replace(findings.table, source=replace(findings.table.source, name="other"))
    assert contests_of(replace(findings, table=other))[0] == answer.contests
