"""Who may import whom, and what an import drags in."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bocb_tune

PACKAGE = Path(bocb_tune.__file__).parent
HEAVY = {"torch", "torchvision", "timm", "ray", "optuna", "pandas", "matplotlib", "sklearn", "scipy"}
FILES = {
    f"bocb_tune.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}": path for path in PACKAGE.rglob("*.py")
}
ANALYSIS_FOLDER = PACKAGE.parent / "analysis"
ANALYSIS = {
    f"bocb_tune.analysis.{'.'.join(path.relative_to(ANALYSIS_FOLDER).with_suffix('').parts)}": path
    for path in ANALYSIS_FOLDER.rglob("*.py")
}
READS_TENSORS = "bocb_tune.analysis.patterns.checkpoints"

SPEC_SIDE = ("space", "spec", "spec_file", "spec_checks", "spec_compare", "grid", "yaml_source", "shape", "names")
PLAIN = ("types", "journal", "engine.policy", *SPEC_SIDE)
TRAINING = ("optimizers", "recipes", "augment", "losses", "train", "backbones", "data", "tasks")


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, also inside functions, with `from a import b` as `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def rooms(*names: str) -> tuple[str, ...]:
    return tuple(f"bocb_tune.{name}" for name in names)


def files(*names: str) -> list[tuple[str, Path]]:
    return [(module, path) for module, path in sorted(FILES.items()) if under(module, rooms(*names))]


@pytest.mark.parametrize(("module", "path"), files(*PLAIN))
def test_spec_side_and_policy_import_no_framework(module: str, path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] in HEAVY}, module


@pytest.mark.parametrize(("module", "path"), files(*TRAINING))
def test_training_knows_no_ray_no_yaml_and_no_spec(module: str, path: Path) -> None:
    forbidden = ("ray", "ruamel", "pydantic", *rooms(*SPEC_SIDE[:6], "engine", "cli"))
    assert not {name for name in imports(path) if under(name, forbidden)}, module


@pytest.mark.parametrize(("module", "path"), sorted(FILES.items()))
def test_ray_and_optuna_only_in_the_engine(module: str, path: Path) -> None:
    if not under(module, rooms("engine")):
        assert not {name for name in imports(path) if under(name, ("ray", "optuna"))}, module


@pytest.mark.parametrize(("module", "path"), sorted(FILES.items()))
def test_only_the_command_line_imports_the_analysis(module: str, path: Path) -> None:
    if module != "bocb_tune.cli.main":
        assert not {name for name in imports(path) if under(name, rooms("analysis"))}, module


@pytest.mark.parametrize(("module", "path"), sorted(ANALYSIS.items()))
def test_the_analysis_stands_alone(module: str, path: Path) -> None:
    allowed = rooms("types", "space", "yaml_source", "journal", "names", "analysis")
    own = {name for name in imports(path) if under(name, ("bocb_tune",)) and name != "bocb_tune.__version__"}
    assert not {name for name in own if not under(name, allowed)}, module
    heavy = {"timm", "ray"} if module == READS_TENSORS else {"timm", "ray", "torch", "safetensors"}
    assert not {name for name in imports(path) if name.split(".")[0] in heavy}, module


FOLDERS = ("sources", "patterns", "cell", "matrix", "tuning", "recommend", "checks", "page")
"""Of the analysis, each resting on those before it."""
FOUNDATIONS = ("arrays", "cache", "draws", "estimate", "families", "intervals", "parallel", "style")


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrows_between_the_folders_of_the_analysis(folder: str) -> None:
    later = rooms(*(f"analysis.{name}" for name in FOLDERS[FOLDERS.index(folder) + 1 :]))
    inside = {module: path for module, path in ANALYSIS.items() if under(module, rooms(f"analysis.{folder}"))}
    assert inside
    for module, path in inside.items():
        assert not {name for name in imports(path) if under(name, later)}, module


def test_every_folder_of_the_analysis_has_its_place() -> None:
    assert {path.parent.name for path in ANALYSIS_FOLDER.glob("*/__init__.py")} == set(FOLDERS)


@pytest.mark.parametrize("name", FOUNDATIONS)
def test_the_foundations_rest_on_no_folder(name: str) -> None:
    folders = rooms(*(f"analysis.{folder}" for folder in FOLDERS))
    assert not {imported for imported in imports(ANALYSIS[f"bocb_tune.analysis.{name}"]) if under(imported, folders)}


def test_torch_waits_until_a_checkpoint_is_read() -> None:
    assert "torch" in set(imports(ANALYSIS[READS_TENSORS]))
    assert not loaded_by(f"import {READS_TENSORS}") & {"torch", "safetensors", "timm", "ray"}


def test_arrows_between_the_spec_files() -> None:
    """types <- space <- spec <- grid: none imports one that stands after it."""
    order = ["types", "names", "yaml_source", "shape", "space", "spec_file", "spec_checks", "spec", "grid"]
    for place, name in enumerate(order):
        later = rooms(*order[place + 1 :])
        assert not {imported for imported in imports(FILES[f"bocb_tune.{name}"]) if under(imported, later)}, name


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in memory after a statement, in a fresh process."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", [f"bocb_tune.{name}" for name in (*PLAIN, "optimizers", "recipes", "data", "tasks", "probes", "catalog")]
)
def test_importing_stays_light(module: str) -> None:
    assert not loaded_by(f"import {module}") & HEAVY


def test_help_imports_nothing_it_does_not_need() -> None:
    statement = "sys.argv = ['bocb-tune', '--help']; import atexit; show = lambda: print(*sys.modules); "
    statement += "atexit.register(show); import bocb_tune.cli.main; bocb_tune.cli.main()"
    loaded = {name.split(".")[0] for name in loaded_by(statement)}
    assert "typer" in loaded
    assert not loaded & (HEAVY | {"pydantic", "ruamel", "numpy"})


def test_the_check_sees_what_is_imported() -> None:
    assert "numpy" in loaded_by("import numpy")
    assert "json" in set(imports(PACKAGE / "types.py"))
