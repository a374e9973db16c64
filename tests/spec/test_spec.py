"""The spec: every error at once, with its place and its exact words; a resolved spec loads to itself."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bocb_tune.core.groups import GroupShape
from bocb_tune.core.names import unknown
from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.spec import checks as spec_checks
from bocb_tune.spec import environment
from bocb_tune.spec.compare import Kind, compare, refusal
from bocb_tune.spec.experiment_file import SpecFile
from bocb_tune.spec.grid import plan_grid
from bocb_tune.spec.model import ExperimentSpec, SpecError, dump_resolved, load_spec, resolved
from bocb_tune.spec.source import MAX_BYTES
from bocb_tune.training.recipes import RECIPES, recipe_settings

GOOD = """\
name: tiny
task: synthetic
dataset: synthetic
backbones: [bowl, ridge]
optimizers: [sgd, adamw]
recipe: digits
budget: {epochs: 9, trials_per_cell: 20}
search: {design: 4}
"""
KNOWN_OPTIMIZERS = str(unknown("optimizer", "", OPTIMIZERS)).removeprefix("unknown optimizer '' ")


def load(text: str, overrides: Sequence[str] = (), checks: Sequence[Any] = ()) -> ExperimentSpec:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_text(text)
        return load_spec(path, overrides, checks)


def problems(text: str, overrides: Sequence[str] = (), checks: Sequence[Any] = ()) -> list[str]:
    """Each problem, from its line on."""
    with pytest.raises(SpecError) as error:
        load(text, overrides, checks)
    return [str(problem).split("x.yaml:")[-1] for problem in error.value.problems]


def with_lines(*lines: str) -> str:
    """GOOD with lines changed, by the key they start with, or added."""
    changed = {line.split(":")[0]: line for line in lines}
    kept = [changed.pop(line.split(":")[0], line) for line in GOOD.splitlines()]
    return "\n".join([*kept, *changed.values()])


BAD_LINES = [
    ("name: a/b", "1: name: must be letters, digits, dots, underscores and hyphens, not 'a/b'"),
    ("name: ..", "1: name: must be letters, digits, dots, underscores and hyphens, not '..'"),
    ("name: 7", "1: name: must be a word, not 7; put it in quotes"),
    (f"name: {'x' * 101}", "1: name: has 101 characters; at most 100 are taken"),
    (
        "task: syntetic",
        "2: task: unknown task 'syntetic'; did you mean 'synthetic'? (known: classification, synthetic)",
    ),
    (
        "task: {name: synthetic, noisy: 1}",
        "2: task.noisy: unknown option of task 'synthetic' 'noisy'; did you mean 'noise'? (known: epoch_s, noise)",
    ),
    ("task: {name: synthetic, noise: .inf}", "2: task.noise: must be a finite number, not inf"),
    ("task: {name: synthetic, noise: lots}", "2: task.noise: must be like its default 0.5, not 'lots'"),
    ("task: {nam: synthetic, noise: 1}", "2: task: has no name; it says 'nam', did you mean 'name'?"),
    ("dataset: digits", "3: dataset: task 'synthetic' does not take 'digits'; it takes synthetic"),
    ("backbones: []", "4: backbones: is empty; name at least one"),
    ("backbones: bowl", "4: backbones: must be a list, not 'bowl'; write [bowl]"),
    ("backbones: bowl, ridge", "4: backbones: must be a list, not 'bowl, ridge'; write [bowl, ridge]"),
    ("backbones: [[bowl]]", "4: backbones[0]: must be a word, not ['bowl']"),
    ("backbones: [bowl, ridge, bowl]", "4: backbones[2]: 'bowl' is given twice, first as backbones[0]; remove one"),
    ("optimizers: []", "5: optimizers: is empty; name at least one"),
    ("optimizers: [sgd, sgd]", "5: optimizers[1]: 'sgd' is given twice, first as optimizers[0]; remove one"),
    (
        "optimizers: [sgd, adamww]",
        f"5: optimizers[1]: unknown optimizer 'adamww'; did you mean 'adamw'? {KNOWN_OPTIMIZERS}",
    ),
    (
        "recipe: digit",
        f"6: recipe: {unknown('recipe', 'digit', RECIPES)}",
    ),
    (
        "recipe: {base: digits, precision: fp8}",
        "6: recipe.precision: unknown choice 'fp8'; did you mean 'fp32'? (known: auto, bf16, fp16, fp32)",
    ),
    ("recipe: {base: digits, batch_size: many}", "6: recipe.batch_size: must be a whole number, not 'many'"),
    (
        "recipe: {base: digits, warmup_epochs: 9}",
        "6: recipe.warmup_epochs: 9 warmup_epochs do not end within budget.epochs (9); give fewer",
    ),
    (
        "recipe: {base: digits, batch_size: 30, accumulation: 4}",
        "6: recipe.accumulation: recipe field 'accumulation' is 4; it must be a divisor of batch_size (30)",
    ),
    ("budget: {epochs: 0, trials_per_cell: 20}", "7: budget.epochs: must be greater than or equal to 1, not 0"),
    (
        'budget: {epochs: "9", trials_per_cell: 20}',
        "7: budget.epochs: must be a whole number, not '9'; leave out the quotes",
    ),
    (
        f"budget: {{epochs: {10**30}, trials_per_cell: 20}}",
        f"7: budget.epochs: must be less than or equal to 1000000000, not {10**30}",
    ),
    ("budget: {epochs: 9.5, trials_per_cell: 20}", "7: budget.epochs: must be a whole number, not 9.5"),
    ("budget: {epochs: true, trials_per_cell: 20}", "7: budget.epochs: must be a whole number, not True"),
    ("budget: {epochs: 9}", "7: budget.trials_per_cell: is required and missing"),
    (
        "budget: {epochs: 9, trials_per_cell: 4}",
        "7: budget.trials_per_cell: 4 trials do not hold the default and a design of 4; give at least 5",
    ),
    (
        "search: {design: 4, asha: {grace: 9}}",
        "8: search.asha.grace: the first rung, 9, is not below budget.epochs (9); lower it to 8 or less, "
        "or set search.asha: null",
    ),
    (
        "search: {sampler: tpee}",
        "8: search.sampler: unknown choice 'tpee'; did you mean 'tpe'? (known: gp, grid, qmc, random, tpe)",
    ),
    ("search: {audit: 10%}", "8: search.audit: must be a number, not '10%'; write 0.1"),
    ("search: {asha: false}", "8: search.asha: must be a mapping (of grace, reduction_factor) or null, not False"),
    ("search: {audit: 1.5}", "8: search.audit: must be less than or equal to 1, not 1.5"),
    ("search: {audit: .nan}", "8: search.audit: must be a finite number, not nan"),
    (
        "search: {asha: {reduction_factor: 1}}",
        "8: search.asha.reduction_factor: must be greater than or equal to 2, not 1",
    ),
    ("repeats: 3", "9: repeats: must be a mapping (of best, default), not 3"),
    ("search: {grace: 2}", "8: search.grace: unknown key 'grace'; did you mean 'search.asha.grace'?"),
    ("search: {trials: 9}", "8: search.trials: unknown key 'trials'; did you mean 'budget.trials_per_cell'?"),
    ("recipe: {base: digits, epochs: 9}", "6: recipe.epochs: unknown key 'epochs'; did you mean 'budget.epochs'?"),
    ("batch_size: 9", "9: batch_size: unknown key 'batch_size'; did you mean 'recipe.batch_size'?"),
    ("lr: 0.1", "9: lr: unknown key 'lr'; did you mean 'search_spaces.OPTIMIZER.lr'?"),
    (
        "search: {seed: 1}",
        "8: search.seed: unknown key 'seed'; 'seed' belongs at the top of the file (known: asha, audit, design, "
        "refine, sampler)",
    ),
    ("serch: {}", "9: serch: unknown key 'serch'; did you mean 'search'?"),
    ("recipe: {base: digits, name: x}", "6: recipe.name: unknown key 'name'; did you mean 'base'?"),
    ("seed: -1", "9: seed: must be greater than or equal to 0, not -1"),
    (
        "resources: {workers: 3}",
        "6: recipe: a batch_size of 64 cannot be shared evenly by 3 workers x 1 accumulation steps; "
        "the nearest that can is 63",
    ),
    (
        "search_spaces: {sgd: {lr: {low: 1, high: 1e-3}}}",
        "9: search_spaces.sgd.lr: upside down: low 1 is not below high 0.001; swap them",
    ),
    (
        "search_spaces: {sgd: {lr: {high: 1e-2}}}",
        "9: search_spaces.sgd.default.lr: 0.1 lies outside 0.0001 .. 0.01; widen the range or move the default",
    ),
    (
        "search_spaces: {sgd: {fixed: {momentun: 0.9}}}",
        "9: search_spaces.sgd.fixed.momentun: unknown argument of optimizer 'sgd' 'momentun'; did you mean 'momentum'? "
        "(known: dampening, momentum, nesterov)",
    ),
    (
        "search_spaces: {adamw: {fixed: {betas: 0.9}}}",
        "9: search_spaces.adamw.fixed.betas: must be like its default [0.9, 0.999], not 0.9",
    ),
    (
        "search_spaces: {adamw: {fixed: {betas: [0.9]}}}",
        "9: search_spaces.adamw.fixed.betas: must be like its default [0.9, 0.999], not [0.9]",
    ),
    (
        "search_spaces: {sgd: {own: {beta2: {low: 0.9, high: 0.99}}}}",
        "9: search_spaces.sgd.own.beta2: unknown number among the fixed arguments 'beta2' (known: momentum)",
    ),
    (
        "search_spaces: {adamw: {own: {betaa2: {low: 0.9, high: 0.99}}}}",
        "9: search_spaces.adamw.own.betaa2: unknown number among the fixed arguments 'betaa2'; did you mean 'beta2'? "
        "(known: beta1, beta2, eps)",
    ),
    (
        "search_spaces: {sgd: {own: {momentum: {low: 0.5}}}}",
        "9: search_spaces.sgd.own.momentum.high: is required and missing",
    ),
    (
        "search_spaces: {sgd: {own: {momentum: {low: 0.99, high: 0.5}}}}",
        "9: search_spaces.sgd.own.momentum: upside down: low 0.99 is not below high 0.5; swap them",
    ),
    (
        "search_spaces: {sgd: {own: {momentum: {low: 0.5, high: 1.0}}}}",
        "9: search_spaces.sgd.own.momentum: high is 1, and scale log_complement takes values below 1; lower it",
    ),
    (
        "search_spaces: {sgd: {own: {momentum: {low: 0, high: 0.95, scale: log}}}}",
        "9: search_spaces.sgd.own.momentum: low is 0, which has no logarithm; raise it, or write scale: log_complement "
        "for values below 1",
    ),
    (
        "search_spaces: {sgd: {decay: decoupled_times_lr}}",
        "9: search_spaces.sgd.decay: is 'decoupled_times_lr', but the weight decay of 'sgd' is 'coupled_l2'; "
        "correct it",
    ),
    (
        "search_spaces: {lion: {lr: {high: 0.1}}}",
        "9: search_spaces.lion: 'lion' is not among the optimizers, so this would change nothing; "
        "add it there or remove this",
    ),
    (
        "search_spaces: {lionn: {}}",
        f"9: search_spaces.lionn: unknown optimizer 'lionn'; did you mean 'lion'? {KNOWN_OPTIMIZERS}",
    ),
]


def test_to_refine_an_optimizer_without_ranges_is_refused_with_what_to_type() -> None:
    lines = ("search: {design: 4, refine: 3}", "search_spaces: {sgd: {own: {momentum: null}}}")
    (found,) = problems(with_lines(*lines))
    assert found == (
        "8: search.refine: nothing is named to refine of sgd; write search_spaces: {sgd: {own: {NAME: "
        "{low: ..., high: ...}}}}, NAME being one of momentum, or set search.refine to 0"
    )
    assert load(with_lines(lines[1])).search_spaces["sgd"].own == {}


def test_an_own_range_keeps_the_scale_it_ships_with() -> None:
    (dim,) = (
        load(with_lines("search_spaces: {sgd: {own: {momentum: {low: 0.8, high: 0.95}}}}"))
        .search_spaces["sgd"]
        .own.values()
    )
    assert (dim.low, dim.high, dim.scale) == (0.8, 0.95, "log_complement")


@pytest.mark.parametrize(("line", "problem"), BAD_LINES, ids=[line for line, _ in BAD_LINES])
def test_one_bad_line(line: str, problem: str) -> None:
    (found,) = problems(with_lines(line))
    assert found.startswith(problem)
    assert found == problem or problem.endswith("?"), "only a list of known keys may be left out above"


def test_every_bad_line_at_once() -> None:
    """One bad line of each key: as many problems, and each on its line."""
    lines = {line.split(":")[0]: line for line, _ in BAD_LINES if not any(word in line for word in ("nam:", "workers"))}
    text = with_lines(*lines.values())
    assert [int(found.split(":")[0]) for found in problems(text)] == list(range(1, len(text.splitlines()) + 1))


def test_a_fault_of_a_recipe_does_not_hide_how_the_rest_fits() -> None:
    line = "recipe: {base: digits, label_smoothing: 1.5, batch_size: 63, warmup_epochs: 9}"
    assert problems(with_lines(line, "resources: {workers: 2}")) == [
        "6: recipe.label_smoothing: recipe field 'label_smoothing' is 1.5; it must be at least 0 and below 1",
        "6: recipe.warmup_epochs: 9 warmup_epochs do not end within budget.epochs (9); give fewer",
        "6: recipe.batch_size: a batch_size of 63 cannot be shared evenly by 2 workers x 1 accumulation steps; "
        "the nearest that can is 64",
    ]


BY_BACKBONE = [
    ("ridg: digits", "recipe.by_backbone.ridg: unknown backbone of this grid 'ridg'; did you mean 'ridge'? (known: "),
    ("ridge: digit", "recipe.by_backbone.ridge: unknown recipe 'digit'; did you mean 'digits'? (known: "),
    ("ridge: {bas: digits}", "recipe.by_backbone.ridge.bas: unknown key 'bas'; did you mean 'base'?"),
    ("ridge: {base: digits, batch_size: x}", "recipe.by_backbone.ridge.batch_size: must be a whole number, not 'x'"),
    (
        "ridge: {base: digits, drop_path: 2.0}",
        "recipe.by_backbone.ridge.drop_path: recipe field 'drop_path' is 2.0; it must be at least 0 and below 1",
    ),
    (
        "ridge: {base: digits, warmup_epochs: 9}",
        "recipe.by_backbone.ridge.warmup_epochs: 9 warmup_epochs do not end within budget.epochs (9); give fewer",
    ),
    (
        "ridge: {base: digits, batch_size: 25, mixup: 0.8}",
        "recipe.by_backbone.ridge.batch_size: mixup and cutmix pair images, and a batch_size of 25 leaves an odd "
        "number, 25, to each of 1 workers x 1 accumulation steps; the nearest that suits is 24",
    ),
    ("ridge: {base: digits, by_backbone: {}}", "recipe.by_backbone.ridge.by_backbone: unknown key 'by_backbone'"),
]


@pytest.mark.parametrize(("entry", "problem"), BY_BACKBONE, ids=[entry for entry, _ in BY_BACKBONE])
def test_a_bad_recipe_of_a_backbone(entry: str, problem: str) -> None:
    found = problems(with_lines(f"recipe: {{base: digits, by_backbone: {{{entry}}}}}"))
    assert any(line.startswith(f"6: {problem}") for line in found)
    assert len(found) == (2 if "bas:" in entry else 1)  # a wrong base is also a missing one


def test_a_backbone_may_have_a_recipe_of_its_own() -> None:
    spec = load(with_lines("recipe: {base: digits, batch_size: 32, by_backbone: {ridge: {base: imagenet_torch}}}"))
    assert spec.recipe_of("bowl") == ("digits", replace(RECIPES["digits"], batch_size=32))
    assert spec.recipe_of("ridge") == ("imagenet_torch", RECIPES["imagenet_torch"])
    assert load(dump_resolved(spec)) == spec
    settings = {cell.cell.backbone: cell.settings["recipe"] for cell in plan_grid(spec).cells}
    assert settings == {name: recipe_settings(spec.recipe_of(name)[1]) for name in spec.backbones}


def test_a_recipe_of_a_new_backbone_extends_a_run() -> None:
    old = resolved(load(with_lines("backbones: [bowl]")))
    new = resolved(load(with_lines("recipe: {base: digits, by_backbone: {ridge: imagenet_torch}}")))
    assert {change.kind for change in compare(old, new)} == {Kind.extends}
    changed = resolved(load(with_lines("recipe: {base: digits, by_backbone: {bowl: imagenet_torch}}")))
    assert {change.kind for change in compare(old, changed) if change.field.startswith("recipe")} == {Kind.fixed}


GROUPS = [
    ("{ridg: {workers: 2}}", "resources.by_backbone.ridg: unknown backbone of this grid 'ridg'; did you mean 'ridge'?"),
    ("{ridge: {worker: 2}}", "resources.by_backbone.ridge.worker: unknown key 'worker'; did you mean 'workers'?"),
    ("{ridge: {workers: 0}}", "resources.by_backbone.ridge.workers: must be greater than or equal to 1, not 0"),
    (
        "{ridge: {workers: 5}}",
        "recipe.batch_size: a batch_size of 64 cannot be shared evenly by 5 workers x 1 accumulation steps",
    ),
    ("{ridge: {labels: {gpu: a,b}}}", "resources.by_backbone.ridge.labels.gpu: 'a,b' is no value of a label"),
]


@pytest.mark.parametrize(("entry", "problem"), GROUPS, ids=[entry for entry, _ in GROUPS])
def test_bad_resources_of_a_backbone(entry: str, problem: str) -> None:
    entry = entry.replace("a,b", "'a,b'")
    lines = ("recipe: {base: digits, batch_size: 64}", f"resources: {{by_backbone: {entry}}}")
    (found,) = problems(with_lines(*lines))
    assert found.split(": ", 1)[1].startswith(problem)


def test_a_backbone_may_have_resources_of_its_own() -> None:
    spec = load(
        with_lines("resources: {gpus_per_worker: 0.5, by_backbone: {ridge: {workers: 8, labels: {gpu: '!t4'}}}}")
    )
    assert spec.resources.of("bowl") == GroupShape(gpus_per_worker=0.5)
    assert spec.resources.of("ridge") == GroupShape(workers=8, gpus_per_worker=0.5, labels=(("gpu", "!t4"),))
    assert load(dump_resolved(spec)) == spec
    settings = {cell.cell.backbone: cell.settings["workers"] for cell in plan_grid(spec).cells}
    assert settings == {"bowl": 1, "ridge": 8}
    assert {spec.resources.alone().of(name).workers for name in spec.backbones} == {1}


def test_ranks_of_a_backbone_are_fixed_and_all_else_of_its_resources_is_free() -> None:
    def kinds(*lines: str) -> dict[str, Kind]:
        old, new = (resolved(load(with_lines(line))) for line in lines)
        return {change.field: change.kind for change in compare(old, new)}

    usual, own = "resources: {workers: 1}", "resources: {{by_backbone: {{ridge: {}}}}}"
    assert kinds(usual, own.format("{workers: 2}")) == {"resources.by_backbone.ridge.workers": Kind.fixed}
    assert kinds(own.format("{workers: 2}"), usual) == {"resources.by_backbone.ridge.workers": Kind.fixed}
    assert kinds(usual, own.format("{cpus_per_worker: 2}")) == {
        "resources.by_backbone.ridge.cpus_per_worker": Kind.free
    }
    both = "resources: {workers: 4, by_backbone: {ridge: {workers: 1}, bowl: {workers: 1}}}"
    assert kinds(usual, both) == {}


def test_labels_and_shares_of_a_backbone_are_checked_where_they_stand() -> None:
    own = "resources: {by_backbone: {ridge: {gpus_per_worker: 0.3}, bowl: {gpus_per_worker: 1.5, labels: {a: b}}}}"
    (share,) = problems(with_lines(own), checks=[environment.gpu_shares])
    assert share.startswith("9: resources.by_backbone.bowl.gpus_per_worker: 1.5 GPUs are neither")
    (idle,) = problems(with_lines(own), checks=[environment.idle_gpus])
    assert idle.startswith("9: resources.by_backbone.ridge.gpus_per_worker: 3 worker(s) of 0.3 GPU fit on one")
    (labels,) = problems(with_lines(own), checks=[environment.missing_labels])
    assert labels.startswith("9: resources.by_backbone.bowl.labels: a=b: this machine has no labels; run on a cluster")


def test_errors_that_rest_on_each_other_are_told_once() -> None:
    assert problems(
        with_lines("budget: {epochs: 0, trials_per_cell: 2}", "search: {design: x, asha: {grace: 50}}")
    ) == [
        "7: budget.epochs: must be greater than or equal to 1, not 0",
        "8: search.design: must be a whole number, not 'x'",
    ]


def test_every_missing_key() -> None:
    required = [name for name, field in SpecFile.model_fields.items() if field.is_required()]
    assert problems("seed: 1") == [f"1: {name}: is required and missing" for name in required]


FILES = [
    (b"", ": must be a mapping of keys to values; the file is empty"),
    (b"# nothing\n", ": must be a mapping of keys to values; the file is empty"),
    (b"- a\n", ": must be a mapping of keys to values; found list ['a']"),
    (b"\xff\xfe\x00\x01", ": is not a text file in UTF-8"),
    (b"a: \x00", ": not valid YAML: unacceptable character #x0000: special characters are not allowed"),
    (b"a: 1\nb: [1\n", ":3: not valid YAML: while parsing a flow sequence expected ',' or ']', but got '<stream end>'"),
    (
        b"a:\n\tb: 1\n",
        r":2: not valid YAML: while scanning for the next token found character '\t' that cannot start any ",
    ),
    (
        b"a 1\nb: 2\n",
        ":2: not valid YAML: mapping values are not allowed here; look for a missing colon, quote or line break, here "
        "or one line above",
    ),
    (b"a: 1\n---\nb: 2\n", ":2: not valid YAML: expected a single document in the stream but found another document"),
    (b"a: &a [x]\nb: [*a, *a]\n", ":2: not valid YAML: alias *a is not allowed; write it out"),
    (
        b"a: 1\nb: !!python/object/apply:os.system [ls]\n",
        ":2: not valid YAML: tag tag:yaml.org,2002:python/object/apply:os.system is not allowed; leave it out",
    ),
    (b"a: 1\nb: !x 3\n", ":2: not valid YAML: tag !x is not allowed; leave it out"),
    (b"a: " + b"9" * 5000, ": not valid YAML: Exceeds the limit (4300 digits) for integer string conversion"),
    (b"a: " + b"[" * 5000, ":1: not valid YAML: nested deeper than 20 levels"),
    (b"a: 1\n2: 3\n", ":2: not valid YAML: a key must be a word; put it in quotes"),
    (b"a: 1\n<<: {b: 2}\n", ":2: not valid YAML: a key must be a word; put it in quotes"),
    (b"a: " + b"x" * MAX_BYTES, f": holds {MAX_BYTES + 3} bytes; at most {MAX_BYTES} are read"),
]


@pytest.mark.parametrize(("data", "problem"), FILES, ids=[data[:12].decode(errors="replace") for data, _ in FILES])
def test_a_file_that_is_no_plain_mapping(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(SpecError) as error:
        load_spec(path)
    assert str(error.value).startswith(f"{path}{problem}")
    assert len(error.value.problems) == 1


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(SpecError) as error:
            load_spec(path)
        assert str(error.value) == f"{path}: cannot be read: {reason}"


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_no_file_whatever_ends_in_anything_but_a_located_error(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_bytes(data)
        with pytest.raises(SpecError):
            load_spec(path)


def test_an_optimizer_without_a_search_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_checks, "available_spaces", lambda: ("sgd",))
    assert problems(GOOD) == [
        "5: optimizers[1]: 'adamw' has no search space, and none is guessed; write search_spaces/adamw.yaml"
    ]


def test_a_value_of_the_wrong_type_is_told_once() -> None:
    text = with_lines("task: classification", "dataset: {name: digits, image_size: big}")
    assert problems(text) == ["3: dataset.image_size: must be like its default 32, not 'big'"]


def test_a_batch_smaller_than_its_ranks() -> None:
    (found,) = problems(with_lines("recipe: {base: digits, batch_size: 1}", "resources: {workers: 3}"))
    assert found.endswith("the nearest that can is 3")


def test_duplicate_keys_are_told_beside_other_errors() -> None:
    assert problems(GOOD.replace("{design: 4}", "{design: 4, design: 5, audit: 2}") + "name: again\n") == [
        "8: search.design: given twice, first on line 8; keep one",
        "8: search.audit: must be less than or equal to 1, not 2",
        "9: name: given twice, first on line 1; keep one",
    ]


def test_numbers_are_those_of_yaml_1_2() -> None:
    spec = load(with_lines("search_spaces: {sgd: {lr: {low: 1e-3, high: 1e0}}}", "name: 2025-03-01"))
    assert (spec.search_spaces["sgd"].lr.low, spec.name) == (1e-3, "2025-03-01")


class TestOverrides:
    def test_values_are_yaml_and_the_last_wins(self) -> None:
        spec = load(GOOD, ["budget.epochs=3", "backbones=[a, b, c]", "search.asha=null", "budget.epochs=4"])
        assert (spec.budget.epochs, spec.backbones, spec.search.asha) == (4, ("a", "b", "c"), None)

    def test_sections_the_file_lacks_are_made(self) -> None:
        assert load(GOOD, ["search_spaces.sgd.fixed.momentum=0.8"]).search_spaces["sgd"].fixed == {"momentum": 0.8}

    @pytest.mark.parametrize(
        ("override", "problem"),
        [
            ("budget.epochs=0", "budget.epochs: must be greater than or equal to 1, not 0"),
            ("optimizers=[sgd, x]", f"optimizers[1]: unknown optimizer 'x' {KNOWN_OPTIMIZERS}"),
            ("budget.epoch=3", "budget.epoch: unknown key 'epoch'; did you mean 'epochs'? (known: checkpoint_every,"),
            ("budget.epochs", "must read PATH=VALUE, as in budget.epochs=3"),
            ("budget..epochs=3", "must read PATH=VALUE, as in budget.epochs=3"),
            ("task.noise=3", "task is 'synthetic', not a mapping; set it as a whole"),
            ("backbones=[a", "the value is not valid YAML: expected ',' or ']', but got '<stream end>'"),
            (
                "name=!!python/name:os.system x",
                "the value is not valid YAML: tag tag:yaml.org,2002:python/name:os.system",
            ),
        ],
    )
    def test_a_bad_one_is_told_as_it_was_given(self, override: str, problem: str) -> None:
        (found,) = problems(GOOD, [override])
        assert found.startswith(f"--set {override}: {problem}")


class TestResolving:
    def test_a_name_and_a_mapping_of_it_are_the_same(self) -> None:
        written_out = with_lines("task: {name: synthetic, noise: 0.5}", "recipe: {base: digits}")
        assert load(written_out) == load(GOOD)

    def test_a_whole_number_is_a_number(self) -> None:
        one, same = (load(with_lines(f"task: {{name: synthetic, noise: {noise}}}")) for noise in ("1", "1.0"))
        assert dump_resolved(one) == dump_resolved(same)

    def test_changes_to_a_space_leave_the_rest(self) -> None:
        spec = load(with_lines("search_spaces: {sgd: {lr: {low: 1e-3}, default: {weight_decay: 0}}}"))
        space, shipped = spec.search_spaces["sgd"], load(GOOD).search_spaces["sgd"]
        assert (space.lr.low, space.lr.high) == (1e-3, shipped.lr.high)
        assert space.default == {"lr": shipped.default["lr"], "weight_decay": 0}
        assert (space.fixed, space.weight_decay) == (shipped.fixed, shipped.weight_decay)

    def test_num_search_and_run_dir(self) -> None:
        spec = load(GOOD)
        assert spec.num_search == 20 - 1 - 4
        assert spec.run_dir == "runs/tiny"
        assert load(with_lines("storage: ~/sweeps")).run_dir == str(Path.home() / "sweeps" / "tiny")
        assert load(with_lines("storage: s3://bucket/a")).run_dir == "s3://bucket/a/tiny"


def specs() -> st.SearchStrategy[dict[str, Any]]:
    """Valid experiment files, as values."""
    epochs = st.integers(2, 30)
    optional = {
        "seed": st.integers(0, 2**40),
        "storage": st.sampled_from(["runs", "/data/my runs", "a: b", "#x"]),
        "repeats": st.fixed_dictionaries({}, optional={"best": st.integers(0, 5), "default": st.integers(0, 5)}),
        "resources": st.fixed_dictionaries({}, optional={"workers": st.sampled_from([1, 2, 4]), "warm": st.booleans()}),
        "search": st.fixed_dictionaries(
            {"design": st.integers(0, 9), "asha": st.none() | st.just({"grace": 1, "reduction_factor": 4})},
            optional={
                "audit": st.floats(0, 1),
                "sampler": st.sampled_from(["tpe", "qmc"]),
                "refine": st.integers(0, 5),
            },
        ),
        "search_spaces": st.just({}) | st.fixed_dictionaries({"sgd": changes()}),
    }
    required = {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True),
        "task": st.just("synthetic") | st.fixed_dictionaries({"name": st.just("synthetic"), "noise": st.floats(0, 9)}),
        "dataset": st.just("synthetic"),
        "backbones": st.lists(st.text("abc_.1:#", min_size=1, max_size=5), min_size=1, max_size=4, unique=True),
        "optimizers": st.permutations(sorted(OPTIMIZERS)).map(
            lambda names: ["sgd", *(n for n in names[:3] if n != "sgd")]
        ),
        "recipe": st.just("digits") | st.just({"base": "digits", "label_smoothing": 0.25, "compile": True}),
        "budget": st.fixed_dictionaries({"epochs": epochs, "trials_per_cell": st.integers(10, 99)}),
    }
    return st.fixed_dictionaries(required, optional=optional)


def changes() -> st.SearchStrategy[dict[str, Any]]:
    low, high, momentum = st.floats(1e-7, 1e-2), st.floats(0.2, 30), st.floats(0, 0.99)
    return st.fixed_dictionaries(
        {"lr": st.fixed_dictionaries({"low": low, "high": high})},
        optional={"fixed": st.fixed_dictionaries({"momentum": momentum})},
    )


def as_yaml(value: Any, path: Path) -> Path:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(value, file)
    return path


@given(specs())
@settings(max_examples=30, deadline=None)
def test_the_resolved_spec_loads_to_an_equal_one(value: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        spec = load_spec(as_yaml(value, Path(folder) / "x.yaml"))
    again = load(dump_resolved(spec))
    assert again == spec
    assert dump_resolved(again) == dump_resolved(spec)


def keys_of(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return []
    return [place for key, inner in value.items() for place in [(*at, key), *keys_of(inner, (*at, key))]]


WHOLE = resolved(load(with_lines("optimizers: [sgd, adamw, lion]")))


@given(st.sampled_from(keys_of(WHOLE)), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_any_misspelt_key_is_refused_at_its_line_with_the_right_name(place: tuple[str, ...], index: int) -> None:
    index %= len(place[-1])
    misspelt = place[-1][:index] + place[-1][index] + place[-1][index:]
    with TemporaryDirectory() as folder:
        path = as_yaml(renamed(WHOLE, place, misspelt), Path(folder) / "x.yaml")
        lines = enumerate(path.read_text().splitlines(), start=1)
        line = next(number for number, text in lines if text.lstrip().startswith(f"{misspelt}:"))
        with pytest.raises(SpecError) as error:
            load_spec(path)
    (told,) = (problem for problem in error.value.problems if repr(misspelt) in problem.message)
    assert f"did you mean {place[-1]!r}?" in told.message
    if place[-1] != "name" or len(place) == 1:  # a task or dataset without a name is told where it begins
        assert (told.line, told.field) == (line, ".".join((*place[:-1], misspelt)))


def renamed(value: dict[str, Any], place: tuple[str, ...], new: str) -> dict[str, Any]:
    """The value with one key renamed, in its place."""
    head, *rest = place
    if not rest:
        return {new if key == head else key: inner for key, inner in value.items()}
    return {key: renamed(inner, tuple(rest), new) if key == head else inner for key, inner in value.items()}


class TestProbes:
    def test_a_backbone_the_task_lacks(self) -> None:
        (found,) = problems(with_lines("backbones: [bowl, rigde]"), checks=[environment.backbones])
        assert found.startswith("4: backbones[1]: unknown backbone 'rigde'; did you mean 'ridge'? (known: bowl, cliff,")

    @pytest.mark.parametrize("task", ["task: clasification", "task: {}"])
    def test_a_bad_task_does_not_hide_backbones_that_no_task_has(self, task: str) -> None:
        found = problems(with_lines(task, "backbones: [resnet50, bowl, rigde]"), checks=[environment.backbones])
        assert [line.split(": ")[:2] for line in found] == [["2", found[0].split(": ")[1]], ["4", "backbones[2]"]]

    def test_a_caution_is_told_beside_the_errors(self, tmp_path: Path) -> None:
        path = tmp_path / "x.yaml"
        dataset = f"dataset: {{name: imagefolder, root: {tmp_path / 'nowhere'}}}"
        path.write_text(with_lines("task: classification", dataset, "backbones: [resnt50]", "recipe: imagenet"))
        heard: list[str] = []
        with pytest.raises(SpecError) as caught:
            load_spec(path, (), environment.PLANNED, environment.PLANNED_CAUTIONS, heard.append)
        assert "backbones[0]" in [problem.field for problem in caught.value.problems]
        assert [line.removeprefix(f"{path}:").split(": ")[:2] for line in heard] == [
            ["3", "dataset.root"],
            ["6", "recipe"],
        ]

    @pytest.mark.parametrize(
        ("lines", "fields"),
        [
            (["recipe: imagenet"], ["recipe"]),
            (["recipe: {base: digits, augment: none, precision: bf16}"], ["recipe.precision"]),
            (["recipe: {base: imagenet, precision: fp32}"], []),
            (["recipe: imagenet", "resources: {gpus_per_worker: 0.5}"], []),
            (["recipe: {base: digits, augment: none, by_backbone: {bowl: imagenet}}"], ["recipe.by_backbone.bowl"]),
            (["recipe: imagenet", "dataset: synthetic", "task: synthetic"], []),
        ],
    )
    def test_bf16_on_cpus(self, tmp_path: Path, lines: list[str], fields: list[str]) -> None:
        path = tmp_path / "x.yaml"
        images = f"dataset: {{name: imagefolder, root: {tmp_path}}}"
        budget = "budget: {epochs: 90, trials_per_cell: 20}"
        path.write_text(with_lines("task: classification", images, budget, *lines))
        heard: list[str] = []
        load_spec(path, cautions=[environment.slow_precision], warn=heard.append)
        assert [line.removeprefix(f"{path}:").split(": ")[1] for line in heard] == fields

    def test_more_cpus_than_there_are(self) -> None:
        check = partial(environment.check_resources, cpus=2)
        text = with_lines("resources: {workers: 4}")
        assert problems(text, checks=[check]) == [
            "9: resources.workers: 4 workers x 1 CPUs are more than the 2 of this machine; ask for 2 or fewer in all, "
            "or run on a cluster with --address"
        ]
        assert load(with_lines("resources: {workers: 4, gpus_per_worker: 1}"), checks=[check]).resources.workers == 4
        assert load(with_lines("resources: {workers: 2}"), checks=[check]).resources.workers == 2

    def test_a_data_folder_that_is_missing(self, tmp_path: Path) -> None:
        folder = tmp_path / "nowhere"
        text = with_lines("task: classification", f"dataset: {{name: imagefolder, root: {folder}}}", "recipe: imagenet")
        text = text.replace("epochs: 9", "epochs: 90")
        (found,) = problems(text, checks=[environment.data])
        assert found.startswith("3: dataset.root: ")
        assert str(folder) in found

    def test_a_data_folder_that_is_not_given(self) -> None:
        text = with_lines("task: classification", "dataset: imagefolder", "budget: {epochs: 90, trials_per_cell: 20}")
        assert problems(text, checks=[environment.data]) == [
            "3: dataset: dataset 'imagefolder' needs the option 'root'; write {name: imagefolder, root: ...}",
            "6: recipe: augment 'shift' does not suit dataset 'imagefolder'; it takes none, flip_crop",
        ]

    def test_gpus_that_are_asked_for_and_missing(self) -> None:
        assert load(GOOD, checks=[environment.missing_gpus])
        (found,) = problems(with_lines("resources: {gpus_per_worker: 64}"), checks=[environment.missing_gpus])
        assert found.startswith("9: resources.gpus_per_worker: a trial needs 64 GPUs and this machine has ")


CHANGES = [
    ("name=other", "name", Kind.free),
    ("storage=/elsewhere", "storage", Kind.free),
    ("resources.max_slots=3", "resources.max_slots", Kind.free),
    ("resources.warm=false", "resources.warm", Kind.free),
    ("budget.checkpoint_every=2", "budget.checkpoint_every", Kind.free),
    ("backbones=[bowl]", "backbones", Kind.extends),
    ("optimizers=[sgd, adamw, lion]", "optimizers", Kind.extends),
    ("optimizers=[adamw]", "optimizers", Kind.extends),
    ("budget.trials_per_cell=30", "budget.trials_per_cell", Kind.extends),
    ("search.design=5", "search.design", Kind.extends),
    ("search.refine=5", "search.refine", Kind.extends),
    ("search_spaces.sgd.own.momentum={low: 0.8, high: 0.99}", "search_spaces.sgd.own.momentum.low", Kind.extends),
    ("search_spaces.sgd.own.momentum=null", "search_spaces.sgd.own.momentum", Kind.extends),
    ("repeats.best=9", "repeats.best", Kind.extends),
    ("search_spaces.sgd.lr.low=1e-6", "search_spaces.sgd.lr.low", Kind.extends),
    ("search_spaces.sgd.lr.high=9", "search_spaces.sgd.lr.high", Kind.extends),
    ("search_spaces.sgd.weight_decay.zero=0.2", "search_spaces.sgd.weight_decay.zero", Kind.extends),
    ("search.design=3", "search.design", Kind.fixed),
    ("search_spaces.sgd.lr.low=1e-3", "search_spaces.sgd.lr.low", Kind.fixed),
    ("search_spaces.sgd.lr.high=0.5", "search_spaces.sgd.lr.high", Kind.fixed),
    ("search_spaces.sgd.weight_decay.zero=0", "search_spaces.sgd.weight_decay.zero", Kind.fixed),
    ("search_spaces.sgd.default.lr=0.2", "search_spaces.sgd.default.lr", Kind.fixed),
    ("search_spaces.sgd.fixed.nesterov=true", "search_spaces.sgd.fixed.nesterov", Kind.fixed),
    ("task={name: synthetic, noise: 2}", "task.noise", Kind.fixed),
    ("recipe={base: digits, batch_size: 32}", "recipe.batch_size", Kind.fixed),
    ("budget.epochs=10", "budget.epochs", Kind.fixed),
    ("search.sampler=random", "search.sampler", Kind.fixed),
    ("search.asha=null", "search.asha", Kind.fixed),
    ("search.asha={grace: 2}", "search.asha.grace", Kind.fixed),
    ("search.audit=0.2", "search.audit", Kind.fixed),
    ("seed=1", "seed", Kind.fixed),
    ("resources.workers=2", "resources.workers", Kind.fixed),
]


@pytest.mark.parametrize(("override", "field", "kind"), CHANGES, ids=[override for override, _, _ in CHANGES])
def test_what_a_change_means_for_a_run_folder(override: str, field: str, kind: Kind) -> None:
    (difference,) = compare(resolved(load(GOOD)), resolved(load(GOOD, [override])))
    assert (difference.field, difference.kind) == (field, kind)


def test_the_same_experiment_has_no_differences() -> None:
    assert compare(resolved(load(GOOD)), resolved(load(dump_resolved(load(GOOD))))) == []


def test_the_refusal_names_field_values_and_way_out() -> None:
    overrides = ["budget.epochs=12", "seed=3", "repeats.best=5"]
    differences = compare(resolved(load(GOOD)), resolved(load(GOOD, overrides)))
    assert refusal(differences, "runs/tiny") == (
        "runs/tiny belongs to another experiment, which differs in what changes results:\n"
        "  budget.epochs: 9 there, 12 here\n"
        "  seed: 0 there, 3 here\n"
        "Give a new folder with --out, or another name. "
        "More trials, cells, repeats or wider ranges would extend the one that is there."
    )
    assert refusal([change for change in differences if change.kind is Kind.extends], "runs/tiny") is None
