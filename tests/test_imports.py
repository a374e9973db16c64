"""Who may import whom, and what an import drags in."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bocb_tune

PACKAGE = Path(bocb_tune.__file__).parent
HEAVY = {"torch", "torchvision", "timm", "ray", "optuna", "pandas", "matplotlib", "sklearn", "scipy"}

ORDER = (
    "core",
    "data",
    "data.coco",
    "optimizers",
    "backbones",
    "training",
    "augment",
    "tasks",
    "tasks.pose",
    "export",
    "spec",
    "engine.cluster",
    "engine.worker",
    "engine",
    "profiling",
    "analysis.core",
    "analysis.names",
    "analysis.sources",
    "analysis.patterns",
    "analysis.landscape",
    "analysis.cell",
    "analysis.matrix",
    "analysis.coupling",
    "analysis.tuning",
    "analysis.bocb",
    "analysis.recommend",
    "analysis.findings",
    "analysis.answer",
    "analysis.checks",
    "analysis.report.plots",
    "analysis.report.drawing",
    "analysis.report.cards",
    "analysis.report.sections",
    "analysis.report",
    "cli",
)
"""The folders that hold code. A module imports from its own folder and from those before it, from no other."""
MOST_MODULES = 15
"""In one folder, besides its `__init__`."""
ANALYSIS_NEEDS = ("core", "spec.source", "spec.space_file", "analysis")
"""All of the package that the analysis may import."""
READS_TENSORS = "bocb_tune.analysis.patterns.checkpoints"
LIGHT = ("core", "spec", "engine.policy")
"""Import no framework."""
TRAINING = ("data", "optimizers", "backbones", "training", "augment", "tasks", "export")


def _modules() -> dict[str, Path]:
    """Every module by its dotted name; a package stands for its `__init__`. Links are followed."""
    found = {}
    for root in (PACKAGE, PACKAGE / "analysis"):
        for path in root.rglob("*.py"):
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            found[".".join(("bocb_tune", *parts)).removesuffix(".__init__")] = path
    return found


FILES = _modules()


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module a file imports, also inside functions, with `from a import b` as `a.b`."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str | None:
    """The module of ours that an imported name comes from."""
    if name in FILES:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in FILES else None


def imported_modules(module: str) -> set[str]:
    """Modules of ours that a module imports."""
    return {found for name in imports(FILES[module]) if (found := module_of(name))} - {module}


def under(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def within(*names: str) -> tuple[str, ...]:
    return tuple(f"bocb_tune.{name}" for name in names)


def of(*names: str) -> list[str]:
    return [module for module in sorted(FILES) if under(module, within(*names))]


def folder_of(module: str) -> str:
    """The folder a module lies in, as `ORDER` writes it; empty for the root."""
    return ".".join(FILES[module].relative_to(PACKAGE).parts[:-1])


def test_every_folder_has_its_place_in_the_order() -> None:
    at_the_root = {"", "search_spaces", "analysis"}
    assert {folder_of(module) for module in FILES} - at_the_root == set(ORDER)
    assert {module for module in FILES if folder_of(module) == ""} == {"bocb_tune", "bocb_tune.__main__"}
    assert {module for module in FILES if folder_of(module) == "analysis"} == {"bocb_tune.analysis"}


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_imports_only_from_those_before_it(folder: str) -> None:
    allowed = {"", *ORDER[: ORDER.index(folder) + 1]}
    inside = [module for module in FILES if folder_of(module) == folder]
    assert inside
    for module in inside:
        assert {folder_of(other) for other in imported_modules(module)} <= allowed, module


def test_no_module_imports_itself_through_others() -> None:
    try:
        TopologicalSorter({module: imported_modules(module) for module in FILES}).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("folder", ["", *ORDER])
def test_a_folder_can_be_taken_in_at_a_glance(folder: str) -> None:
    modules = [m for m in FILES if folder_of(m) == folder and FILES[m].name != "__init__.py"]
    assert len(modules) <= MOST_MODULES


def test_a_class_name_stands_for_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def named_in(path: Path) -> set[str]:
    """Every name that a module defines or imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def test_every_name_that_is_imported_is_there() -> None:
    """Also within functions and in benchmarks, where only running them would tell."""
    there = {module: named_in(path) for module, path in FILES.items()}
    root = PACKAGE.parent
    paths = [*FILES.values(), *(root / "benchmarks").rglob("*.py"), *(root / "tests").rglob("*.py")]
    asked = {(path, *name.rpartition(".")[::2]) for path in paths for name in imports(path) if name not in FILES}
    folders = {folder.name for folder in PACKAGE.iterdir()}
    assert [
        f"{path.relative_to(root)}: {module}.{name}"
        for path, module, name in sorted(asked)
        if module in FILES and name not in there[module] | folders
    ] == []


def test_the_folders_of_tests_can_too() -> None:
    folders = {path.parent for path in Path(__file__).parent.rglob("*.py")}
    counts = {str(folder): len({*folder.glob("*.py")} - {folder / "__init__.py"}) for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


@pytest.mark.parametrize("module", of(*LIGHT))
def test_spec_side_and_policy_import_no_framework(module: str) -> None:
    lazily = {"torch"} if module == "bocb_tune.spec.environment" else set()
    assert not {name for name in imports(FILES[module]) if name.split(".")[0] in HEAVY - lazily}


@pytest.mark.parametrize("module", of(*TRAINING))
def test_training_knows_no_ray_no_yaml_and_no_spec(module: str) -> None:
    forbidden = ("ray", "ruamel", "pydantic", *within("spec", "engine", "cli"))
    assert not {name for name in imports(FILES[module]) if under(name, forbidden)}


@pytest.mark.parametrize("module", sorted(FILES))
def test_ray_and_optuna_only_in_the_engine(module: str) -> None:
    if not under(module, within("engine", "analysis")):
        assert not {name for name in imports(FILES[module]) if under(name, ("ray", "optuna"))}


def test_only_the_entry_points_import_the_analysis() -> None:
    users = {m for m in FILES if any(under(name, within("analysis")) for name in imports(FILES[m]))}
    assert {module for module in users if not under(module, within("analysis"))} == {
        "bocb_tune",
        "bocb_tune.cli.main",
        "bocb_tune.cli.commands",
    }


@pytest.mark.parametrize("module", of("analysis"))
def test_the_analysis_stands_alone(module: str) -> None:
    own = {name for name in imports(FILES[module]) if under(name, ("bocb_tune",))}
    assert not {name for name in own if not under(name, within(*ANALYSIS_NEEDS))}
    heavy = {"timm", "ray"} if module == READS_TENSORS else {"timm", "ray", "torch", "safetensors"}
    assert not {name for name in imports(FILES[module]) if name.split(".")[0] in heavy}


def test_torch_waits_until_a_checkpoint_is_read() -> None:
    assert "torch" in set(imports(FILES[READS_TENSORS]))
    assert not loaded_by(f"import {READS_TENSORS}") & {"torch", "safetensors", "timm", "ray"}


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in memory after a statement, in a fresh process."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_stays_light() -> None:
    assert not loaded_by("import bocb_tune; bocb_tune.run, bocb_tune.load, bocb_tune.analyze") & (HEAVY | {"numpy"})
    light = [*of(*LIGHT), *within("optimizers", "data", "tasks", "training.recipes", "training.context", "cli.catalog")]
    assert not loaded_by(f"import {', '.join(light)}") & HEAVY


def test_help_imports_nothing_it_does_not_need() -> None:
    statement = "sys.argv = ['bocb-tune', '--help']; import atexit; show = lambda: print(*sys.modules); "
    statement += "atexit.register(show); import bocb_tune.cli.main; bocb_tune.cli.main.main()"
    loaded = {name.split(".")[0] for name in loaded_by(statement)}
    assert "typer" in loaded
    assert not loaded & (HEAVY | {"pydantic", "ruamel", "numpy"})


def test_the_check_sees_what_is_imported() -> None:
    assert "numpy" in loaded_by("import numpy")
    assert "json" in set(imports(FILES["bocb_tune.core.types"]))
    assert "bocb_tune.core.types" in imported_modules("bocb_tune.core.journal")
