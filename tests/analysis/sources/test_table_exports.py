"""Tables as Ray, Weights & Biases, MLflow, Optuna and spreadsheets write them; what is not used is said."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pandas as pd
import pytest

from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.stated import Stated
from bocb_tune.analysis.sources.table import SourceError
from tests.support.tables import HEADER, write


@pytest.mark.parametrize(
    "prefix", ["config/", "config.", "params.", "params_", "hparams/", "hyperparameters.", "user_attrs_", "hparams."]
)
def test_prefixes_of_what_a_run_was_given_are_known(tmp_path: Path, prefix: str) -> None:
    names = ("backbone", "optimizer", "lr", "weight_decay", "seed")
    header = ",".join([*(prefix + name for name in names), "accuracy"])
    row = load(write(tmp_path / "t.csv", header, "a,b,1e-3,0.1,4,71", "a,b,1e-2,0.1,5,72")).trials.iloc[0]
    assert list(row[[*names, "score"]]) == ["a", "b", 1e-3, 0.1, 4, 71]


def test_a_results_table_of_ray_after_renaming_what_the_message_names(tmp_path: Path) -> None:
    header = (
        "backbone,optimizer,score,trial_id,training_iteration,config/lr,config/weight_decay,config/epochs,done,date"
    )
    rows = ["a,b,70,t1,30,1e-3,0.1,30,True,x", "a,b,60,t2,9,1e-1,0.1,30,True,y"]
    table = load(write(tmp_path / "t.csv", header, *rows))
    assert list(table.trials["status"]) == ["completed", "stopped"]
    assert list(table.trials["lr"]) == [1e-3, 1e-1]
    assert list(table.trials["max_budget"]) == [30, 30]
    assert "Columns not used: date, done." in table.notes


def test_an_export_of_weights_and_biases(tmp_path: Path) -> None:
    header = "Name,State,config.model,config.optimizer,config.lr,config.wd,lr,epoch,epochs,val_acc,train_loss"
    rows = [
        "run-1,finished,a,b,1e-3,0.1,1e-9,30,30,70,.1",
        "run-2,killed,a,b,1e-2,0.1,5e-3,9,30,60,.2",
        "run-3,crashed,a,b,1e-1,0.1,1e-1,2,30,,",
        "run-4,running,a,b,1e-4,0.1,1e-5,3,30,20,.9",
        "run-5,finished,a,b,2e-3,0.1,1e-3,9,30,61,.2",
    ]
    table = load(write(tmp_path / "t.csv", header, *rows))
    assert list(table.trials["trial"]) == [f"run-{number}" for number in range(1, 6)]
    assert list(table.trials["status"]) == ["completed", "stopped", "failed", "running", "stopped"]
    assert list(table.trials["lr"]) == [1e-3, 1e-2, 1e-1, 1e-4, 2e-3]  # not the rate that the schedule had reached
    assert any("Columns not used: lr." in note for note in table.notes)
    assert table.trials["train_loss"].fillna(0).tolist() == [0.1, 0.2, 0, 0.9, 0.2]
    assert any("crashed as failed" in note and "killed as stopped" in note for note in table.notes)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        *(("COMPLETE", "completed"), ("PRUNED", "stopped"), ("FAIL", "failed"), ("RUNNING", "running")),
        *(("WAITING", "running"), ("TrialState.COMPLETE", "completed"), ("FINISHED", "completed")),
        *(("KILLED", "stopped"), ("SCHEDULED", "running"), ("TERMINATED", "completed"), ("ERROR", "failed")),
        *(("crashed", "failed"), ("failed", "failed"), ("finished", "completed"), ("", "completed")),
    ],
)
def test_states_of_optuna_mlflow_ray_and_weights_and_biases_are_mapped(tmp_path: Path, state: str, status: str) -> None:
    table = load(write(tmp_path / "t.csv", HEADER + ",state,epoch", f"a,b,70,{state},30", "a,c,70,completed,30"))
    assert table.trials["status"].iloc[0] == status


def test_a_frame_of_optuna(tmp_path: Path) -> None:
    header = "number,value,datetime_start,params_lr,params_weight_decay,user_attrs_backbone,user_attrs_optimizer,state"
    rows = ["0,.7,x,1e-3,.1,a,b,COMPLETE", "1,.3,y,1e-1,.1,a,b,PRUNED", "2,,z,1e0,.1,a,b,FAIL"]
    path = write(tmp_path / "t.csv", header, *rows)
    with pytest.raises(SourceError, match=r"nothing says which way column 'value' is better; add --direction"):
        load(path)
    table = load(path, stated=Stated(direction="max"))
    assert list(table.trials["status"]) == ["completed", "stopped", "failed"]
    assert list(table.trials["lr"]) == [1e-3, 1e-1, 1]
    # an intermediate value of an unknown budget is no score at the full one
    assert table.trials["score"].fillna(-1).tolist() == [70, -1, -1]
    assert any("1 stopped trial(s) do not say after what budget" in caution for caution in table.cautions)


@pytest.mark.parametrize("name", ["Name", "run_name", "run name", "tags.mlflow.runName", "trial_name"])
def test_the_name_of_a_run_is_its_trial(tmp_path: Path, name: str) -> None:
    rows = [f"a,b,{10 * epoch + run},run {run},{epoch}" for run in (1, 2) for epoch in (1, 2, 3)]
    table = load(write(tmp_path / "t.csv", f"{HEADER},{name},epoch", *rows))
    assert list(table.trials["score"]) == [31, 32]
    assert len(table.curves) == 6
    assert table.cautions == ()


def test_names_that_several_runs_share_tell_no_trials_apart(tmp_path: Path) -> None:
    rows = ["a,b,60,group,30,1e-3", "a,b,70,group,30,1e-2", "a,b,61,group,30,1e-1"]
    table = load(write(tmp_path / "t.csv", HEADER + ",Name,epoch,lr", *rows))
    assert len(table.trials) == 3
    assert any("'Name' names several runs alike" in caution for caution in table.cautions)


def test_rising_epochs_without_a_name_are_remarked(tmp_path: Path) -> None:
    rows = [f"a,b,{10 * epoch},{epoch},1e-3" for epoch in range(1, 6)]
    table = load(write(tmp_path / "t.csv", HEADER + ",epoch,lr", *rows))
    assert any("5 rows differ from others only in their budget" in caution for caution in table.cautions)


def test_unequal_last_budgets_without_a_status_are_remarked(tmp_path: Path) -> None:
    rows = ["a,b,70,t1,30", "a,b,60,t2,9", "a,c,60,t3,30"]
    table = load(write(tmp_path / "t.csv", HEADER + ",trial,epoch", *rows))
    assert set(table.trials["status"]) == {"completed"}
    assert any("budgets of 9 to 30, and nothing says which were cut short" in caution for caution in table.cautions)


def test_epochs_counted_from_zero(tmp_path: Path) -> None:
    table = load(write(tmp_path / "t.csv", HEADER + ",trial,epoch,epochs", "a,b,1,t,0,2", "a,b,70,t,1,2"))
    assert (list(table.trials["budget"]), list(table.trials["status"])) == ([2], ["completed"])


@pytest.mark.parametrize(
    ("separator", "decimal"), [(";", ","), (";", "."), ("\t", ","), ("\t", "."), ("|", "."), (",", ".")]
)
def test_separators_and_decimal_commas(tmp_path: Path, separator: str, decimal: str) -> None:
    rows = pd.DataFrame({"backbone": "a", "optimizer": "b", "score": [61.5, 72.25], "lr": [1e-3, 0.5]})
    rows.to_csv(tmp_path / "t.csv", sep=separator, decimal=decimal, index=False)
    table = load(str(tmp_path / "t.csv"))
    assert list(table.trials["score"]) == [61.5, 72.25]
    assert list(table.trials["lr"]) == [1e-3, 0.5]
    assert any("Decimal commas" in note for note in table.notes) == (decimal == ",")


def test_percent_signs_and_signs_of_absence(tmp_path: Path) -> None:
    rows = ["a,b,91.5%,N/A,-", "a,c,0.4 %,1e-3,n/a", "a,d,-,1e-2,3"]
    table = load(write(tmp_path / "t.csv", HEADER + ",lr,seed", *rows))
    assert list(table.trials["score"]) == [91.5, 0.4]
    assert math.isnan(table.trials["lr"].iloc[0])
    assert table.trials["seed"].isna().all()
    assert any("1 completed trial(s) have no finite score, left out: row 4" in note for note in table.notes)


@pytest.mark.parametrize("ending", [".csv.gz", ".tsv", ".tsv.gz", ".csv.bz2", ".csv.xz", ".csv.zip"])
def test_packed_and_tab_separated_files(tmp_path: Path, ending: str) -> None:
    rows = pd.DataFrame({"backbone": ["a"], "optimizer": ["b"], "score": [61.5]})
    rows.to_csv(tmp_path / f"t{ending}", sep="\t" if "tsv" in ending else ",", index=False)
    assert list(load(str(tmp_path / f"t{ending}")).trials["score"]) == [61.5]


def test_a_damaged_archive_is_refused_by_name(tmp_path: Path) -> None:
    whole = gzip.compress(b"backbone,optimizer,score\n" + b"a,b,1\n" * 999)
    (tmp_path / "t.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"t\.csv\.gz: not readable as a table"):
        load(str(tmp_path / "t.csv.gz"))


def test_rows_alike_but_for_their_name_are_kept(tmp_path: Path) -> None:
    rows = ["a,b,60,1e-3,first", "a,b,60,1e-3,second", "a,b,60,1e-3,second"]
    table = load(write(tmp_path / "t.csv", HEADER + ",lr,Comment", *rows))
    assert len(table.trials) == 2
    assert any("1 row(s) repeat an earlier row and were left out: row 4" in note for note in table.notes)


DATASETS = [
    f"a,b,{score + 30 * (dataset == 'easy')},{lr},{dataset},{batch}"
    for dataset in ("easy", "hard")
    for batch in (64, 128)
    for lr, score in ((1e-3, 50), (1e-2, 60))
]


def test_further_columns_that_trials_differ_in_are_a_caution(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", HEADER + ",lr,dataset,batch size", *DATASETS)
    (caution,) = load(path).cautions
    assert "dataset (easy, hard), batch size (128, 64)" in caution
    assert "--where 'dataset=easy'" in caution
    table = load(path, stated=Stated(where=("dataset=hard", "Batch_Size=64.0")))
    assert table.cautions == ()
    assert sorted(table.trials["score"]) == [50, 60]
    assert any("2 of 8 rows are those asked for" in note for note in table.notes)


@pytest.mark.parametrize("name", ["momentum", "params_alpha", "something"])
def test_a_third_hyper_parameter_is_a_caution(tmp_path: Path, name: str) -> None:
    rows = [f"a,b,{60 + number},1e-3,{number % 2}" for number in range(6)]
    (caution,) = load(write(tmp_path / "t.csv", f"{HEADER},lr,{name}", *rows)).cautions
    assert f"differ also in {name} (0, 1)" in caution


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("dataset", r"--where 'dataset' is not of the form column=value"),
        ("data=hard", r"--where data=hard: the table has no one column 'data'; did you mean 'dataset'\?"),
        ("dataset=hrd", r"--where dataset=hrd: no row has this value \(column 'dataset' has easy, hard\)"),
    ],
)
def test_a_condition_that_nothing_meets_is_refused(tmp_path: Path, where: str, message: str) -> None:
    path = write(tmp_path / "t.csv", HEADER + ",lr,dataset,batch size", *DATASETS)
    with pytest.raises(SourceError, match=message):
        load(path, stated=Stated(where=(where,)))


@pytest.mark.parametrize("seeded", [True, False])
def test_equal_settings_are_seeds(tmp_path: Path, seeded: bool) -> None:
    rows = [f"a,b,{60 + 10 * lr + seed},{lr},1e-4,{seed if seeded else ''}" for lr in (0.1, 1) for seed in range(5)]
    table = load(write(tmp_path / "t.csv", HEADER + ",lr,wd,seed", *rows))
    assert sorted(table.trials["seed"]) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert any("2 of 2 settings were tried 5 times: read as seeds" in note for note in table.notes)


def test_settings_that_differ_elsewhere_are_no_seeds(tmp_path: Path) -> None:
    rows = [f"a,b,{60 + number},.1,1e-4,{number}" for number in range(4)]
    table = load(write(tmp_path / "t.csv", HEADER + ",lr,wd,momentum", *rows))
    assert table.trials["seed"].isna().all()
    assert not any("seeds" in note for note in table.notes)
