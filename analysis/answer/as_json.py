"""The answer as `grid.answer` of `metrics.json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bocb_tune.analysis.answer.sentences import parts_of
from bocb_tune.analysis.answer.values import Answer


def to_json(answer: Answer) -> dict[str, Any]:
    """Give the values, and the sentences made of them."""
    return {
        "best": {str(contest.backbone): contest.to_json() for contest in answer.contests},
        "overall": answer.overall and answer.overall.to_json() | {"backbones": list(answer.overall_backbones)},
        "dominating": answer.dominating,
        "tolerance": answer.tolerance,
        "usable_decades": {reach.key: reach.to_json() for reach in answer.reaches},
        "next": [asdict(step) for step in answer.steps],
        "limits": [asdict(limit) for limit in answer.limits],
        "conclusions": [asdict(conclusion) for conclusion in answer.conclusions],
        "sentences": {part.title: [line.text for line in part.lines] for part in parts_of(answer)},
    }
