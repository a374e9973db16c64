"""The section on the paper's claims, for its own tables."""

from __future__ import annotations

import pandas as pd

from bocb_tune.analysis.bocb.claims import TableVerdict
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.cards.values import Card, DataTable


def conclusions(findings: Findings) -> Card | None:
    """Check what the paper claims on its tables, for these and no others."""
    title = "The paper's claims, checked on its own tables"
    if not findings.bocb.claims:
        return None
    several = "The last table checks the conclusions of its abstract by several measures: + holds, - does not."
    text = (
        "Each claim of sections 3.2 and 4 of arXiv:2410.06373, divided into parts that the paper's three tables can "
        "answer. A comparison supports a part if it holds in at least 95 % of the replicates that resample backbones "
        "or optimizers, contradicts it if it holds in at most 5 %, and otherwise cannot tell. A count of cells "
        "supports or contradicts a part directly. Every cell is one published number, so noise of seeds is not in "
        "these shares.",
        *((several,) if findings.grid.claims else ()),
    )
    return Card(title=title, text=text, tables=(_counts(findings), _points(findings), *_by_measures(findings)))


def _counts(findings: Findings) -> DataTable:
    rows = [
        {
            "no": f"{claim.number}.",
            "claim": claim.statement,
            **{str(v).replace(" ", "_"): claim.count(v) for v in TableVerdict},
        }
        for claim in findings.bocb.claims
    ]
    return DataTable(stem="paper_claims", frame=pd.DataFrame(rows))


def _points(findings: Findings) -> DataTable:
    rows = [
        {"no": f"{claim.number}.", "part": p.statement, "tables": str(p.verdict), "evidence": p.evidence}
        for claim in findings.bocb.claims
        for p in claim.points
    ]
    return DataTable(stem="paper_claims_by_part", frame=pd.DataFrame(rows))


def _by_measures(findings: Findings) -> tuple[DataTable, ...]:
    """List the conclusions of its abstract by several of our measures, on CIFAR-100."""
    rows = [
        {
            "claim": claim.statement,
            "verdict": str(claim.verdict),
            "evidence": "; ".join(("+ " if check.holds else "- ") + check.statement for check in claim.checks),
            "notes": " ".join(claim.notes),
        }
        for claim in findings.grid.claims
    ]
    return (DataTable(stem="claims", frame=pd.DataFrame(rows)),) if rows else ()
