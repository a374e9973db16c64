"""Headings of the report's tables in words, each with the definition of the column."""

from __future__ import annotations

import re

from bocb_tune.analysis.names.quantities import QUANTITIES

COLUMNS: dict[str, tuple[str, str]] = {
    "score": ("score", "best"),
    "best_optimizer": ("best optimizer", "The optimizer with the best score on this backbone."),
    "judged_by": ("judged by", "What the score rests on: repeated seeds, the model of the landscape, or a selection."),
    "lead": ("points ahead of the next", "Score of the best minus that of the next best optimizer, points."),
    "tied_with": (
        "not significantly worse",
        "Optimizers whose difference from the best is not significant: Student's t, all comparisons at .05 together.",
    ),
    "within_tolerance": (
        "within the tolerance, not tested",
        "Optimizers within the tolerance of the best, where single scores let no difference be tested.",
    ),
    "fails": ("fails", "failures"),
    "on_this_table": ("on its own table", "Holds if every check holds, mostly if more than half do."),
    "checks_that_hold": ("checks that hold", "Each conclusion is checked by several measures, told in its section."),
    "score_of_model": ("score by the model", "expected_score"),
    "lr_of_model": ("learning rate of the model", "lr_star"),
    "wd_of_model": ("weight decay of the model", "wd_star"),
    "scores_along_the_way": ("scores along the way", "Validation scores from the first epoch to the last."),
    "how": ("how it is known", "What the score is: a mean of seeds, or a selected maximum."),
    "sum_of_squares": ("sum of squares", "Sum of squares of the effects over all cells, points squared."),
    "df": ("degrees of freedom", "Degrees of freedom of the sum of squares."),
    "share_of_total": ("share of all", "Sum of squares over the total."),
    "from": ("95 % from", "Lower end of the 95 % interval."),
    "to": ("95 % to", "Upper end of the 95 % interval."),
    "refine_trials": ("refine trials", "Trials at the best point that moved what is the optimizer's own."),
    "from_90": ("90 % from", "Lower end of the 90 % interval."),
    "to_90": ("90 % to", "Upper end of the 90 % interval."),
    "found_from": ("found, 95 % from", "Lower end of the 95 % interval."),
    "found_to": ("found, 95 % to", "Upper end of the 95 % interval."),
    "random_from": ("random, 95 % from", "Lower end of the 95 % interval."),
    "random_to": ("random, 95 % to", "Upper end of the 95 % interval."),
    "decades_of_best": ("decades, from the backbone's best", "decades_of_best"),
    "ci_of_best": ("95 % CI", "Confidence interval of the number at its left."),
    "decades_of_own": ("decades, from its own best", "usable_decades_lr"),
    "ci_of_own": ("95 % CI", "Confidence interval of the number at its left."),
    "pretraining_optimizer": ("pre-trained by", "Optimizer that made the weights the row starts from."),
    "best_other": ("best other", "Optimizer with the best score of this row among the others."),
    "gap": ("gap", "Score by the optimizer of the pre-training minus that by the best other one, points."),
    "gap_from": ("95 % from", "Lower end of the 95 % interval."),
    "gap_to": ("95 % to", "Upper end of the 95 % interval."),
    "factor": ("factor", "Factor of the grid, or the interaction of several."),
    "share_from": ("95 % from", "Lower end of the 95 % interval."),
    "share_to": ("95 % to", "Upper end of the 95 % interval."),
    "polish": ("robust scale", "polish_scale"),
    "best_rank": ("best rank", "Best rank within a backbone, 1 is best."),
    "worst_rank": ("worst rank", "Worst rank within a backbone, 1 is best."),
    "among_best_4": ("among the best four", "top4"),
    "regret_of_another's_setting": ("regret of another's setting", "transfer_regret"),
    "within_tolerance_of_tuned": ("pairs within the tolerance", "within_tolerance_of_tuned"),
    "cost_of_a_common_setting": ("cost of a common setting", "tunability"),
    "worst_cost": ("worst cost", "tunability_worst"),
    "reference_lr": ("reference learning rate", "Learning rate that the others are compared with."),
    "mean_drift_lr": ("mean drift of learning rate", "drift"),
    "largest_drift_lr": ("largest drift of learning rate", "drift"),
    "beyond_half_a_decade": ("beyond half a decade", "drift"),
    "reference_wd": ("reference weight decay", "Weight decay that the others are compared with."),
    "mean_drift_wd": ("mean drift of weight decay", "drift"),
    "as_good": (
        "not significantly worse",
        "Optimizers that are as good with a chance of at least .025; from single scores, those within the tolerance.",
    ),
    "leader_by_seeds": (
        "leader by seeds",
        "Optimizer that leads by repeated seeds alone, not significantly, where another is recommended.",
    ),
    "judged_by_seeds": ("judged by seeds", "Optimizers without a landscape here, judged by repeated seeds."),
    "functional_ANOVA": ("functional ANOVA", "lr_variance_share"),
    "PED-ANOVA": ("PED-ANOVA", "lr_importance"),
    "no": ("number", "Number of the claim."),
    "tables": ("its tables", "Whether the published tables support the part, contradict it, or cannot tell."),
    "half_widths": ("drift in half widths", "drift"),
    "rank_of_performance": ("rank of score", "overall_rank"),
    "rank_of_settings": ("rank of settings", "settings_distance"),
    "rank_of_coupling": ("mark", "1 for an optimizer that fails on a backbone by the rule of the grey marks."),
    "rank_of_computation": ("rank of computation", "Seconds of a step and bytes of state, relative to SGD."),
    "on_pareto_front": ("on the front", "No other optimizer scores as much on average for less computation."),
    "contrast": ("contrast, points", "paper_contrasts"),
    "p": (
        "p",
        "Exact two-sided p-value, by exchanging which backbones belong to the class; of weights, optimizers.",
    ),
    "p_holm": ("p, Holm", "The same, corrected for all that are tested together."),
    "pattern": ("pattern", "Pattern of the final weights of the best trial of each cell, median over its layers."),
    "measure": ("measure", "What it is compared with, over the cells."),
    "rho": ("rank correlation", "pattern_association"),
    "why_not": ("why not", "Reason why it is refused."),
    "first": ("first run", "best"),
    "second": ("second run", "best"),
}
"""Heading of a column, and a key of `QUANTITIES` or the definition itself; for columns that are not such a key."""
PATTERNS = (
    (re.compile(r"within_(.+)_of_best"), "within {} of the best", "near_best"),
    (re.compile(r"rank_at_(.+)"), "rank at {} trials", "budget_ranks"),
    (re.compile(r"Optuna's_(.+)"), "Optuna's {}", "cross_checks"),
)
"""The same for groups of columns that differ in a number: pattern, heading, key."""


HINTS = {quantity.name: quantity.hint for quantity in QUANTITIES.values()}
"""Definitions by name in the report."""


def heading(column: str) -> tuple[str, str]:
    """Return the heading of a column and its definition, empty where none is needed."""
    if column in COLUMNS:
        words, defined = COLUMNS[column]
        return words, _hint(defined)
    if column in QUANTITIES:
        return QUANTITIES[column].name, QUANTITIES[column].hint
    for pattern, words, key in PATTERNS:
        if match := pattern.fullmatch(column):
            return words.format(match[1]), _hint(key)
    return column.replace("_", " "), ""


def _hint(defined: str) -> str:
    return QUANTITIES[defined].hint if defined in QUANTITIES else defined
