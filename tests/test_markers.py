"""`make test-fast` leaves out what starts Ray: the marker is there wherever a run is started."""

from pathlib import Path

TESTS = Path(__file__).parent


def test_every_module_that_starts_a_run_is_marked() -> None:
    starts = "from tests.support.processes.runs import "
    modules = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py") if path != Path(__file__)}
    started = [
        path
        for path, text in modules.items()
        if any(" Run," in f" {line}," for line in text.splitlines() if line.startswith(starts))
    ]
    assert len(started) >= 3
    assert [path.name for path in started if "pytest.mark.ray" not in modules[path]] == []
