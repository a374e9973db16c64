"""Every number that the report or `metrics.json` states, one row each: name, definition, unit, source, refusals.

`python -m bocb_tune.analysis.names.quantities` prints `docs/METRICS.md`, which is made of these rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from bocb_tune.analysis.core.estimate import Reason

WORTSMAN = "Wortsman et al. 2023, arXiv:2309.14322, section 2.2"
HUTTER = "Hutter, Hoos & Leyton-Brown 2014 (functional ANOVA), by quadrature"
WATANABE = "Watanabe et al. 2023, arXiv:2304.10255 (PED-ANOVA), a cross-check"
WANG = "Wang & Aitchison 2024, arXiv:2405.13698"
PROBST = "Probst et al. 2019, arXiv:1802.09596"
ADKINS = "Adkins et al. 2024, arXiv:2412.07165"
TANG = "Tang et al. 2020, arXiv:2004.13705"
SIVAPRASAD = "Sivaprasad et al. 2020, arXiv:1910.11758"
DEMSAR = "Demšar 2006, JMLR 7"
KENDALL = "Kendall & Babington Smith 1939"
CLAUSET = "Clauset, Shalizi & Newman 2009, arXiv:0706.1062; Martin & Mahoney 2018, arXiv:1810.01075"
MARTIN = "Martin & Mahoney 2018, arXiv:1810.01075"
ROY = "Roy & Vetterli 2007, EUSIPCO"
LI = "Li et al. 2024, arXiv:2410.06373"
OWN = "this project"
CURVED = "points/decade^2"

CELL_VALUE, LANDSCAPE = "Value of a cell", "Landscape of a cell"
CHECK, SEARCH = "Check of a landscape", "Search of a cell"
GRID, LINE, SETTINGS, USE = "Grid", "Backbones and optimizers", "Settings across backbones", "Recommendation"
BOCB = "The measures of arXiv:2410.06373"
WEIGHTS, COMPARISON = "Patterns in trained weights", "Two runs compared"
INTRODUCTIONS = {
    CELL_VALUE: "A cell is a pair of a backbone b and an optimizer o; y_bo is its value.",
    LANDSCAPE: "e(u, v) is the expected score at full budget at u = log10 learning rate and v = log10 weight decay, a "
    "diverged trial counting as the floor. The search space carries the distribution trials are drawn from: shares "
    "and means over it are by that distribution. A value is that of the mean surface, its interval the quantiles of "
    "the same over draws of surfaces. All of them are refused for a cell without a landscape: where "
    + "; where ".join(
        reason.sentence
        for reason in (Reason.TOO_FEW_TRIALS, Reason.TOO_FEW_COMPLETED, Reason.SURROGATE_POOR, Reason.NO_SPACE)
    )
    + ".",
    CHECK: "The model predicts each trial from all the others; where it does so badly, the cell has no landscape.",
    SEARCH: "Scores found by the trials of a cell, and by random search on its landscape.",
    GRID: "Statistics of the matrix of cell values [backbones, optimizers], fitted by y_bo = mean + a_b + c_o + g_bo.",
    LINE: "Statistics of a row or a column of the matrix; regret is the distance from a backbone's best optimizer.",
    SETTINGS: "x is a setting of learning rate and weight decay, x*_bo the best one of a cell.",
    USE: "The optimizer and settings to use on a backbone of the grid, and on a new one like those of the grid.",
    BOCB: "As the paper takes them, on any grid, beside ours. What they lack: a threshold of failure that fits its own "
    "marks, any noise (one number a cell), and a scale on which a step of a setting costs the same. The failures of "
    "the first screen, coupling among viable cells and drift in half widths of the landscape stand for these.",
    WEIGHTS: "Statistics of each weight matrix W (convolutions flattened) with eigenvalues of W'W; the report shows "
    "medians over layers. No value is better by itself.",
    COMPARISON: "Differences are second run minus first, in the unit of the score.",
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number."""

    part: str
    """Part of the documentation it stands in."""
    key: str
    """Name in `metrics.json`; for numbers that are not in there, of a column of the report."""
    name: str
    """Name in the report."""
    definition: str
    """Formula, in words and symbols."""
    unit: str = ""
    """Unit; empty for a share or a ratio."""
    better: str = ""
    """`higher`, `lower`, or empty where neither is."""
    source: str = OWN
    refused: tuple[Reason, ...] = ()
    """Reasons for which it is refused, beside those of its whole part."""

    @property
    def hint(self) -> str:
        """Definition, unit and direction on one line, for those who point at the name."""
        unit = f" Unit: {self.unit}." if self.unit else ""
        better = f" {self.better.capitalize()} is better." if self.better else ""
        return self.definition + unit + better


def _width(epsilon: float) -> tuple[Quantity, Quantity]:
    """Give the two rows on the width of the good region at a coarser tolerance."""
    at, words = f"at_{epsilon:g}", f"{epsilon:g} points"
    return (
        Quantity(LANDSCAPE, f"near_optimal_volume_{at}", f"near-optimal volume, {words}",
                 f"As `near_optimal_volume`, within {words} of the best.", "", "higher",
                 refused=(Reason.EPS_BELOW_NOISE,)),
        Quantity(LANDSCAPE, f"usable_decades_lr_{at}", f"usable decades of learning rate, {words}",
                 f"As `usable_decades_lr`, within {words} of the best.", "decades", "higher",
                 refused=(Reason.EPS_BELOW_NOISE,)),
    )  # fmt: skip


PEAKED = (Reason.OPTIMUM_AT_WD0, Reason.OPTIMUM_AT_EDGE, Reason.SURROGATE_POOR)
MATRIX = (Reason.INCOMPLETE_MATRIX, Reason.DISCONNECTED, Reason.TOO_FEW_BACKBONES, Reason.TOO_FEW_OPTIMIZERS)
SHARED = (Reason.TOO_FEW_BACKBONES, Reason.PRIOR_MISMATCH, Reason.NO_SHARED_SUPPORT)

# fmt: off
_CELLS = (
    Quantity(CELL_VALUE, "best", "score",
             "Mean of fresh seeds at the best point where there are any, with Student's t interval; else the best "
             "observed score at full budget, biased upwards by having been selected; the floor where all trials "
             "diverged.", "points", "higher", refused=(Reason.TOO_FEW_COMPLETED, Reason.ALL_DIVERGED)),
    Quantity(CELL_VALUE, "lr", "learning rate", "Learning rate of the best point, or of the first trial recommended."),
    Quantity(CELL_VALUE, "weight_decay", "weight decay",
             "Weight decay of the best point, or of the first trial recommended."),
    Quantity(CELL_VALUE, "selected_score", "selected score",
             "Best observed score at full budget, biased upwards by having been selected.", "points", "higher"),
    Quantity(CELL_VALUE, "sd", "sd", "Standard deviation of the seeds that the score is the mean of.", "points",
             "lower"),
    Quantity(CELL_VALUE, "seeds", "seeds", "Seeds that the score is the mean of.", "seeds"),
    Quantity(CELL_VALUE, "interaction", "interaction",
             "g_bo = y_bo - mean_b - mean_o + mean: how much better the optimizer is for this backbone than both "
             "averages predict; Student's t interval of the pooled noise of seeds.", "points", refused=MATRIX),
    Quantity(CELL_VALUE, "counts", "trials by outcome",
             "Trials that completed, were stopped early, diverged, failed or ran out of memory.", "trials"),
)
_LANDSCAPE = (
    Quantity(LANDSCAPE, "lr_star", "best learning rate",
             "Learning rate of the highest e, between grid nodes by a parabola; interval from the best node of each "
             "draw.", "lr"),
    Quantity(LANDSCAPE, "wd_star", "best weight decay",
             "Weight decay of the highest e, 0 where that is best; interval from the best node of each draw.",
             "weight decay"),
    Quantity(LANDSCAPE, "zero_decay_probability", "P(weight decay 0 is best)",
             "Share of draws whose best weight decay is 0.", refused=(Reason.PRIOR_MISMATCH,)),
    Quantity(LANDSCAPE, "expected_score", "expected score at the best point",
             "e at the best setting, over draws at that fixed setting: the best of each draw would be biased upwards.",
             "points", "higher"),
    Quantity(LANDSCAPE, "near_optimal_volume", "near-optimal volume",
             "Share of the search space where e >= max e - 1 point, in [0, 1].", "", "higher",
             refused=(Reason.EPS_BELOW_NOISE,)),
    Quantity(LANDSCAPE, "random_trials_needed", "random trials needed",
             "ceil(ln 0.1 / ln(1 - V)), V the near-optimal volume: trials of random search that land in it with a "
             "chance of 90 %.", "trials", "lower", refused=(Reason.EPS_BELOW_NOISE,)),
    Quantity(LANDSCAPE, "usable_decades_lr", "usable decades of learning rate",
             "Length of the stretch of u around the best where e >= max - 1 point, at the best weight decay; \"at "
             "least\" where it reaches the edge of the search space.", "decades", "higher",
             refused=(Reason.EPS_BELOW_NOISE,)),
    Quantity(LANDSCAPE, "usable_decades_lr_profile", "usable decades of learning rate, weight decay retuned",
             "The same of max over v of e(u, v): weight decay tuned anew for each learning rate.", "decades", "higher",
             refused=(Reason.EPS_BELOW_NOISE,)),
    Quantity(LANDSCAPE, "usable_decades_wd", "usable decades of weight decay",
             "Length of the stretch of v > -inf around the best positive weight decay where e >= max - 1 point, at the "
             "best learning rate.", "decades", "higher", refused=(Reason.EPS_BELOW_NOISE,)),
    Quantity(LANDSCAPE, "usable_decades_wd_profile", "usable decades of weight decay, learning rate retuned",
             "The same of max over u of e(u, v): the learning rate tuned anew for each weight decay.", "decades",
             "higher", refused=(Reason.EPS_BELOW_NOISE,)),
    *(quantity for epsilon in (2.0, 5.0, 10.0) for quantity in _width(epsilon)),
    Quantity(LANDSCAPE, "curvature_lr", "curvature along learning rate",
             "H_uu, H = minus the Hessian of e by least squares over the nodes within half a logit of the best.",
             CURVED, "lower", refused=PEAKED),
    Quantity(LANDSCAPE, "curvature_wd", "curvature along weight decay", "H_vv, likewise.", CURVED, "lower",
             refused=PEAKED),
    Quantity(LANDSCAPE, "curvature_correlation", "lr-wd correlation of the curvature",
             "H_uv / sqrt(H_uu H_vv) in (-1, 1): positive where lr and weight decay trade off as a product.",
             source=WANG, refused=PEAKED),
    Quantity(LANDSCAPE, "anisotropy", "anisotropy",
             "Largest over smallest eigenvalue of H, at least 1.", source=WANG, refused=PEAKED),
    Quantity(LANDSCAPE, "orientation", "flat direction",
             "Angle of the eigenvector of the smallest curvature from the lr axis, modulo 180: 135 is lr x wd "
             "constant, 45 is lr / wd constant.", "degrees", source=WANG, refused=(Reason.ISOTROPIC, *PEAKED)),
    Quantity(LANDSCAPE, "edge_probability", "P(optimum at an edge)",
             "Share of draws whose best point lies within 5 % of the range of an edge of the search space; above 0.25 "
             "the optimum may lie beyond it.", "", "lower"),
    Quantity(LANDSCAPE, "divergence_margin", "divergence margin",
             "Decades from the best learning rate to the one at which half of the trials diverge; with fewer than 3 "
             "diverged trials a lower bound.", "decades", "higher",
             refused=(Reason.TOO_FEW_COMPLETED, Reason.NO_DIVERGENCE)),
    Quantity(LANDSCAPE, "divergence_margin_10", "margin to 10 % divergence",
             "The same to the learning rate at which a tenth of the trials diverge.", "decades", "higher",
             refused=(Reason.TOO_FEW_COMPLETED, Reason.NO_DIVERGENCE)),
    Quantity(LANDSCAPE, "diverging_share", "share of the space that diverges",
             "Mean probability of diverging over the search space, in [0, 1].", "", "lower"),
    Quantity(LANDSCAPE, "lr_sensitivity", "learning rate sensitivity",
             "max e - mean of max(e, floor) over the log-uniform learning rates of the search space, at the best "
             "weight decay.", "points", "lower", WORTSMAN),
    Quantity(LANDSCAPE, "lr_sensitivity_window", "lr sensitivity, 3 decades",
             "The same over 3 decades centred on the best learning rate, so that optimizers with other ranges "
             "compare.", "points", "lower", WORTSMAN, (Reason.NO_SHARED_SUPPORT,)),
    Quantity(LANDSCAPE, "prior_mean_regret", "cost of a random setting",
             "max e - mean of e over the search space.", "points", "lower"),
    Quantity(LANDSCAPE, "lr_variance_share", "variance due to learning rate",
             "Var_u(E_v[e]) / Var(e) over the search space.", source=HUTTER, refused=(Reason.DEGENERATE_VARIANCE,)),
    Quantity(LANDSCAPE, "wd_variance_share", "variance due to weight decay",
             "Var_v(E_u[e]) / Var(e) over the search space, its jump at weight decay 0 included.", source=HUTTER,
             refused=(Reason.DEGENERATE_VARIANCE,)),
    Quantity(LANDSCAPE, "lr_variance_share_top", "variance due to learning rate, better half",
             "The share of lr over the settings with e at least the median: a cliff swamps everything else.",
             source=HUTTER, refused=(Reason.DEGENERATE_VARIANCE,)),
    Quantity(LANDSCAPE, "wd_variance_share_top", "variance due to weight decay, better half",
             "The share of wd over the settings with e at least the median.", source=HUTTER,
             refused=(Reason.DEGENERATE_VARIANCE,)),
    Quantity(LANDSCAPE, "lr_importance", "cross-check: importance of learning rate (PED-ANOVA)",
             "Pearson divergence of the marginal of the best tenth of the search space from that of all of it along "
             "lr, over the sum of both axes; main effects only.", source=WATANABE,
             refused=(Reason.DEGENERATE_VARIANCE,)),
    Quantity(LANDSCAPE, "wd_importance", "cross-check: importance of weight decay (PED-ANOVA)", "The same along wd.",
             source=WATANABE, refused=(Reason.DEGENERATE_VARIANCE,)),
    Quantity(LANDSCAPE, "cross_checks", "importance by Optuna",
             "Importance of lr and of wd by Optuna's PED-ANOVA and fANOVA on completed trials, which early stopping "
             "has selected; needs 50 of them.", source=WATANABE,
             refused=(Reason.NO_SPACE, Reason.TOO_FEW_COMPLETED, Reason.DEGENERATE_VARIANCE, Reason.TOO_COSTLY)),
    Quantity(CHECK, "validation", "model check",
             "For trials predicted without their own records: root mean square error, bias and spread of the last "
             "record, sd of the standardised residuals (1 is right), share within the 90 % predictive interval, rank "
             "correlation over completed trials; for trials exempt from stopping, their number and its root times "
             "their mean standardised residual."),
    Quantity(CHECK, "checks", "checks of the model",
             "One sentence each: share of left-out trials within their 90 % interval, their bias, trials exempt from "
             "stopping in standard errors, and the curve of the model less that of independent trials. Sound unless "
             "further off than in 1 % of sound models, or than both intervals reach."),
)
_SEARCH = (
    Quantity(SEARCH, "trials", "trials", "Trials of the cell's search.", "trials"),
    Quantity(SEARCH, "epochs", "epochs", "Epochs that those trials ran, stopped ones up to their end.", "epochs",
             "lower"),
    Quantity(SEARCH, "found", "found", "The cell's score after its own search (see `best`).", "points", "higher"),
    Quantity(SEARCH, "reported", "reported", "Best score the search saw, biased upwards.", "points", "higher"),
    Quantity(SEARCH, "random", "random search, true score",
             "Expected e of the setting that as many random trials on the landscape select by their noisy scores, at "
             "most 64 trials.", "points", "higher", TANG),
    Quantity(SEARCH, "random_reported", "random search, reported",
             "Expected noisy score by which it is selected: biased upwards, to compare with `reported`. Where trials "
             "are independent draws, the middle of `modelled` and of `observed` (beyond a third of their number risen "
             "as the model's), with an interval that holds both.",
             "points", "higher", TANG),
    Quantity(SEARCH, "early", "early trials weighing most",
             "Sum over t = 1..T of 2 (T - t + 1) / (T (T + 1)) V(t), V(t) the expected best of t random trials.",
             "points", "higher", SIVAPRASAD),
    Quantity(SEARCH, "observed", "curve of the trials themselves",
             "Sum over i >= n of y_(i) C(i-1, n-1) / C(B, n) of the B sorted scores: unbiased expected best of n; for "
             "n up to B / 3.", "points", "higher", TANG, (Reason.NOT_IID, Reason.BUDGET_EXCEEDS_DATA)),
    Quantity(SEARCH, "modelled", "curve of the model",
             "Expected best noisy score of n random trials on the landscape alone, to compare with `observed`.",
             "points", "higher", TANG),
    Quantity(SEARCH, "refined", "refined setting",
             "Refine trials at the best point, and the optimizer's own hyper-parameters of the best of them at full "
             "budget.", "trials"),
    Quantity(SEARCH, "refining_gain", "gain by refining",
             "Mean over fresh seeds, the same for both, of score(refined best) - score(best point); negative where the "
             "refined best is worse. Student's t interval, the variance of differences moderated by that of the other "
             "cells. Of an optimizer and of the grid: mean over their cells, interval from the seeds of these cells.",
             "points", "higher", refused=(Reason.NOT_REFINED, Reason.TOO_FEW_REPLICATES)),
)
_GRID = (
    Quantity(GRID, "refining_gain_over_backbones", "gain by refining, of backbones like these",
             "Mean of the backbones' mean gains by refining, Student's t interval over backbones.", "points", "higher",
             refused=(Reason.NOT_REFINED, Reason.TOO_FEW_BACKBONES)),
    Quantity(GRID, "refining_calls", "cells that gain by refining",
             "Cells whose interval of the gain by refining lies above 0; of cells without a gain about one in forty "
             "does.", "cells", "higher"),
    Quantity(GRID, "grand_mean", "mean", "Mean of all cells.", "points"),
    Quantity(GRID, "ss_backbone", "backbone, sum of squares", "O x sum over b of a_b^2.", "points^2"),
    Quantity(GRID, "ss_optimizer", "optimizer, sum of squares", "B x sum over o of c_o^2.", "points^2"),
    Quantity(GRID, "ss_interaction", "interaction, sum of squares", "Sum over cells of g_bo^2.", "points^2"),
    Quantity(GRID, "interaction_share", "interaction share",
             "SS_interaction / (SS_optimizer + SS_interaction), in [0, 1]: how much of the optimizers' effect is "
             "specific to the backbone. With repeated seeds the expected noise is taken off each sum, and the "
             "interval is a parametric bootstrap around the shrunken fit; without, it includes noise.",
             refused=(*MATRIX, Reason.DEGENERATE_VARIANCE)),
    Quantity(GRID, "interaction_share_viable", "interaction share among viable cells",
             "The same share over the cells that did not fail, from draws of their true values: the noise of each cell "
             "is moderated by that of the others.", refused=(*MATRIX, Reason.DEGENERATE_VARIANCE)),
    Quantity(GRID, "interaction_share_total", "interaction share of all variation",
             "SS_interaction / SS_total, in [0, 1], treated likewise.", refused=(*MATRIX, Reason.DEGENERATE_VARIANCE)),
    Quantity(GRID, "interaction_share_of_values", "interaction share of the cell values",
             "The same share from the values of the matrix rather than from the landscapes.",
             refused=(*MATRIX, Reason.DEGENERATE_VARIANCE)),
    Quantity(GRID, "generalisation", "interaction share for other names",
             "Interval of the interaction share under drawing backbones and optimizers anew.",
             source="Owen 2007 (pigeonhole bootstrap)", refused=MATRIX),
    Quantity(GRID, "kendall_w", "Kendall's W",
             "12 S / (m^2 (k^3 - k) - m T) over ranks within m backbones of k optimizers, S the squared deviations of "
             "rank sums, T the correction for ties; 0 no agreement, 1 full. Bootstrap over backbones.",
             source=KENDALL, refused=MATRIX),
    Quantity(GRID, "kendall_w_without_noise", "Kendall's W without noise",
             "Kendall's W over draws of the true cell values.", source=KENDALL, refused=MATRIX),
    Quantity(GRID, "noise", "noise of seeds", "sd of repeated seeds pooled over cells, and its degrees of freedom.",
             "points", "lower"),
    Quantity(GRID, "interaction_test", "F test of the interaction",
             "F = S MS_interaction / s^2 on (B - 1)(O - 1) and the noise's degrees of freedom, S seeds a cell, and "
             "its p."),
    Quantity(GRID, "critical_difference", "critical difference",
             "q sqrt(k (k + 1) / (6 m)), q the 5 % point of the studentised range over sqrt 2: mean ranks closer than "
             "this are not told apart.", "ranks", source=DEMSAR),
    Quantity(GRID, "contrasts", "planned contrast",
             "Mean over classical networks of (SGD family - Adam family) minus the same over the others, with exact "
             "permutation p over classes, on points and on ranks.", "points", source=LI),
    Quantity(GRID, "median_polish", "median polish",
             "Robust scale of the residuals of an additive fit by medians, 1.4826 median |r|, and their share of "
             "absolute deviations.", "points", "lower", "Tukey 1977"),
    Quantity(GRID, "versions", "share on other scales",
             "Interaction share (and part of it in its first singular direction) of ranks, of log odds, and of values "
             "floored near the best."),
    Quantity(GRID, "null_singular", "first singular direction of noise",
             "Share of the first singular direction that Gaussian noise of this shape stays below in 95 % of cases."),
    Quantity(GRID, "interaction_share_without", "share without one name",
             "Plug-in interaction share if one backbone, or one optimizer, is left out."),
    Quantity(GRID, "lr_variance", "variance of the best learning rate",
             "Shares of the variance of log10 best lr due to optimizer, backbone and pairing, and the root mean square "
             "of the last in decades.", "decades"),
    Quantity(GRID, "answer", "the answer",
             "The first screen as values and sentences: by backbone and over the grid each optimizer with its score, "
             "the basis of that (seeds, model, selected) and its standing; usable decades; next steps and limits."),
    Quantity(GRID, "behind", "points behind the best",
             "Score of the best optimizer minus that of this one; Student's t interval of both noises, all comparisons "
             "with the best at .05 together.", "points", "lower", "Hsu 1996, chapter 4; Bonferroni"),
    Quantity(GRID, "tolerance", "tolerance",
             "Points within which settings count as equally good: the smallest of 1, 2, 5 and 10 that the noise of "
             "most cells allows.", "points"),
    Quantity(GRID, "decades_of_best", "usable decades, from the backbone's best",
             "Length of the stretch of learning rates around a cell's best, at its best weight decay, that stays "
             "within the tolerance of the best cell of the backbone; 0 where the cell's best does not.",
             "decades", "higher",
             refused=(Reason.EPS_BELOW_NOISE,)),
    Quantity(GRID, "budget_ranks", "rank by number of trials",
             "Mean rank of each optimizer over backbones on the tuning curves at 1 to 64 trials.", "rank", "lower",
             refused=(Reason.INCOMPLETE_MATRIX, Reason.PRIOR_MISMATCH)),
)
_LINES = (
    Quantity(LINE, "mean", "mean", "Mean of the cells of the row or column.", "points", "higher"),
    Quantity(LINE, "coupling", "coupling",
             "sqrt(max(0, sum of g_bo^2 / sum of (1 - leverage) - s^2)), s^2 the noise of a cell's value: root mean "
             "square deviation of its cells from additivity; interval by noncentral chi-square. Without "
             "repeated seeds noise is not taken off and there is no interval.", "points", "lower",
             refused=(*MATRIX, Reason.TOO_FEW_REPLICATES)),
    Quantity(LINE, "viable_coupling", "viable coupling",
             "The same of the additive fit of the cells that do not fail.", "points", "lower",
             refused=(*MATRIX, Reason.TOO_FEW_REPLICATES)),
    Quantity(LINE, "failures", "failures",
             "Cells more than 10 points below the best of their backbone, or all of whose trials "
             "diverged.", "cells", "lower"),
    Quantity(LINE, "std_drop_worst", "sd without the worst", "sd of a backbone's cells without its worst.", "points",
             "lower", LI),
    Quantity(LINE, "range_drop_worst", "range without the worst", "Range of a backbone's cells without its worst.",
             "points", "lower", LI),
    Quantity(LINE, "near_best", "optimizers near the best",
             "Optimizers within 1 and within 2 points of the best of a backbone, the best included.", "optimizers",
             "higher"),
    Quantity(LINE, "polish_scale", "robust scale", "1.4826 median |r| of a row's residuals after median polish.",
             "points", "lower", "Tukey 1977"),
    Quantity(LINE, "mean_rank", "mean rank", "Mean over backbones of the rank within the backbone, 1 is best.", "rank",
             "lower"),
    Quantity(LINE, "mean_regret", "mean regret", "Mean over backbones of best - y_bo.", "points", "lower"),
    Quantity(LINE, "worst_regret", "worst regret", "Largest over backbones of best - y_bo.", "points", "lower"),
    Quantity(LINE, "top4", "among the best four", "Backbones on which the optimizer is among the best four.",
             "backbones", "higher", LI),
)
_SETTINGS = (
    Quantity(SETTINGS, "transfer_regret", "regret of another's setting",
             "Mean over pairs of backbones of e_b'(x*_b') - e_b'(x*_b).", "points", "lower", refused=SHARED),
    Quantity(SETTINGS, "tunability", "cost of a common setting",
             "Mean over backbones of e_b(x*_b) - e_b(x), x the best setting of the other backbones together.",
             "points", "lower", f"{PROBST}; {ADKINS}", SHARED),
    Quantity(SETTINGS, "tunability_median", "median cost of a common setting", "Median over backbones of the same.",
             "points", "lower", PROBST, SHARED),
    Quantity(SETTINGS, "tunability_worst", "worst cost of a common setting", "Largest over backbones of the same.",
             "points", "lower", PROBST, SHARED),
    Quantity(SETTINGS, "worth_tuning", "worth tuning",
             "Fewest hyper-parameters to tune for each backbone that bring the mean regret below the tolerance of the "
             "report.",
             source=ADKINS, refused=SHARED),
    Quantity(SETTINGS, "drift", "drift",
             "log10 of a backbone's best setting over the optimizer's reference: the best common setting, or without "
             "landscapes the most frequent one; mean of absolute values, and share beyond half a decade.", "decades",
             "lower", refused=SHARED),
    Quantity(SETTINGS, "within_tolerance_of_tuned", "pairs within the tolerance",
             "Share of pairs of backbones whose setting costs at most the tolerance of the report on the other.", "",
             "higher"),
)
_USE = (
    Quantity(USE, "expected", "expected score",
             "Expected score of the recommended optimizer after as many trials as were asked for.", "points", "higher",
             refused=(Reason.INCOMPLETE_MATRIX, Reason.TOO_FEW_BACKBONES, Reason.TOO_FEW_OPTIMIZERS)),
    Quantity(USE, "regret", "expected regret", "Mean over draws of best - y of the recommended optimizer.",
             "points", "lower", refused=(Reason.TOO_FEW_REPLICATES,)),
    Quantity(USE, "p_best", "P(best)", "Probability that the recommended optimizer is the best.", "", "higher"),
    Quantity(USE, "cost", "cost", "Epochs and hours of the trials, at costs of the grid.", "epochs, hours", "lower"),
    Quantity(USE, "box", "range to search",
             "Bounds of the settings within the tolerance of the best, for the remaining trials.", "lr, weight decay"),
    Quantity(USE, "p_least_regret", "P(least regret)",
             "Share of bootstrap replicates over backbones and draws with the least mean regret.", "", "higher"),
    Quantity(USE, "p_best_rank", "P(best rank)", "Share of the same replicates with the best mean rank.", "", "higher"),
    Quantity(USE, "leave_one_backbone_out", "held-out regret",
             "Regret on each backbone of the optimizer that the others recommend, its mean, that of always using one, "
             "and the paired gain over it.", "points", "lower"),
)
_BOCB = (
    Quantity(BOCB, "failures_by_equation", "failures, Eq. 1 as printed",
             "Cells with r < max(R) - min(Q.75(R) - Q.25(R), gap), R the results of a backbone; the gap is 3 points, 1 "
             "on ImageNet (`--gap`). Flags 258 of the paper's 400 cells, of which it marks 50.", "cells", "lower", LI,
             (Reason.NOT_IN_POINTS, Reason.TOO_FEW_OPTIMIZERS)),
    Quantity(BOCB, "failures_by_median", "failures, as marked",
             "Cells more than 2 points below the median of their backbone: inferred from the grey marks of the paper's "
             "CIFAR-100 table, of which it hits 49 of 50 and 2 other cells.", "cells", "lower", OWN,
             (Reason.NOT_IN_POINTS, Reason.TOO_FEW_OPTIMIZERS)),
    Quantity(BOCB, "failure_gap", "gap of Eq. 1", "The gap that was taken.", "points"),
    Quantity(BOCB, "mean_drop_worst", "mean without the worst", "Mean of a backbone's cells without its worst.",
             "points", "higher", LI),
    Quantity(BOCB, "settings_distance", "distance of settings",
             "Mean of |place of lr - mode| + |place of wd - mode| in steps of the values tried (continuous searches: "
             "1/3 decade, `--step`): for an optimizer over backbones from its mode, for a backbone over optimizers "
             "from its mode; of several modes the smallest; weight decay 0 is one step below the lowest. Bootstrap "
             "interval, the mode taken anew. Says nothing of what a step costs: see drift in half widths.", "steps",
             "lower", LI, (Reason.NO_SETTINGS, Reason.TOO_FEW_BACKBONES, Reason.TOO_FEW_OPTIMIZERS)),
    Quantity(BOCB, "settings_distance_drawn", "distance from the optimizers' modes",
             "The same of a backbone from the mode of each optimizer, which fits the paper's figures better than its "
             "text.", "steps", "lower", LI, (Reason.NO_SETTINGS, Reason.TOO_FEW_OPTIMIZERS)),
    Quantity(BOCB, "overall_rank", "overall rank",
             "Rank of .4 performance + .2 settings + .2 coupling + .2 computation (`--weights`): ranks of mean score, "
             "of mean distance of settings and of relative computation without gaps, and 1 for an optimizer that fails "
             "on a backbone as marked. A part that is not known leaves its weight to the others.", "rank", "lower", LI,
             (Reason.TOO_FEW_BACKBONES, Reason.TOO_FEW_OPTIMIZERS)),
    Quantity(BOCB, "p_first", "P(first)",
             "Share of bootstrap replicates over backbones in which the optimizer has overall rank 1.", "", "higher",
             OWN, (Reason.TOO_FEW_BACKBONES,)),
    Quantity(BOCB, "step_cost", "seconds of a step, relative",
             "Median seconds of a step over those of SGD on the same backbone, where the grid has it, else of the "
             "fastest; geometric mean over backbones, t interval.", "", "lower", OWN,
             (Reason.NOT_MEASURED, Reason.TOO_FEW_BACKBONES)),
    Quantity(BOCB, "state_cost", "bytes of state, relative",
             "The same of the optimizer's state; that of SGD is its momentum.", "", "lower", OWN,
             (Reason.NOT_MEASURED, Reason.TOO_FEW_BACKBONES)),
    Quantity(BOCB, "paper_contrasts", "planned contrasts",
             "Mean over a class of (category - other optimizers) minus that over the other classes; Welch's interval "
             "over backbones, exact two-sided p by exchanging classes, and by Holm over all contrasts.", "points",
             source=OWN,
             refused=(Reason.TOO_FEW_BACKBONES, Reason.TOO_FEW_OPTIMIZERS, Reason.INCOMPLETE_MATRIX)),
    Quantity(BOCB, "training_loss", "training loss",
             "Interaction share of -log10 of the final training loss, and Spearman's correlation of score and loss "
             "over optimizers, mean over backbones with a bootstrap interval.", "", "", OWN,
             (Reason.NOT_MEASURED, Reason.TOO_FEW_OPTIMIZERS)),
)
_WEIGHTS = (
    Quantity(WEIGHTS, "alpha", "exponent of the tail",
             "1 + n / sum ln(l_i / l_min) of the n largest eigenvalues, l_min by the least Kolmogorov distance among "
             "tails of at least 20. On the same tail it equals the package powerlaw's, which also takes shorter ones.",
             source=CLAUSET, refused=(Reason.TOO_FEW_EIGS, Reason.NOT_POWER_LAW)),
    Quantity(WEIGHTS, "alpha_by_position", "exponent of the tail, kernel positions apart",
             "The same of the pooled spectra of a convolution's kernel positions.", source=CLAUSET,
             refused=(Reason.TOO_FEW_EIGS, Reason.NOT_POWER_LAW)),
    Quantity(WEIGHTS, "stable_rank", "stable rank", "Sum of the eigenvalues over the largest.", source=MARTIN),
    Quantity(WEIGHTS, "entropy", "entropy of the spectrum",
             "-sum p ln p / ln rank, p the eigenvalues over their sum, in [0, 1].", source=MARTIN,
             refused=(Reason.TOO_FEW_EIGS,)),
    Quantity(WEIGHTS, "effective_rank", "effective rank", "exp(-sum p ln p).", source=ROY),
    Quantity(WEIGHTS, "value_entropy", "entropy of the values",
             "-sum p ln p over 100 equal bins between the least and the largest weight of a layer, p their shares; the "
             "paper does not say how it makes values into probabilities. A large value is a flat histogram.", "nats",
             source=LI, refused=(Reason.DEGENERATE_VARIANCE,)),
    Quantity(WEIGHTS, "frobenius_norm", "L2 norm", "Root of the sum of squares of the weights.", source=LI),
    Quantity(WEIGHTS, "rms", "rms of a weight", "Root mean square of the weights.", source=LI),
    Quantity(WEIGHTS, "spectral_norm", "spectral norm", "Largest singular value.", source=MARTIN),
    *(
        Quantity(WEIGHTS, f"pca_energy_{count}{ending}", f"PCA energy of {count}{words}",
                 f"Share of the first {components} principal components in the sum of squares, columns "
                 f"{'not ' * bool(ending)}centred.", source=LI, refused=(Reason.TOO_FEW_EIGS,))
        for ending, words in (("", ""), ("_uncentred", ", columns not centred"))
        for count, components in (("1", "1"), ("5", "5"), ("tenth", "tenth of all"))
    ),
    Quantity(WEIGHTS, "pca_energy_top", "top PCA energy",
             "The same of the first 10 principal components, or as many as `--components` says, columns centred; the "
             "paper does not say how many.", source=LI, refused=(Reason.TOO_FEW_EIGS,)),
    Quantity(WEIGHTS, "alpha_within", "exponents from 2 to 6",
             "Share of the layers with an exponent whose exponent lies from 2 to 6, the thresholds of the paper.",
             "", "higher", LI, (Reason.TOO_FEW_EIGS,)),
    Quantity(WEIGHTS, "pattern_association", "correlation with the weights",
             "Spearman's correlation of a pattern of the final weights (median over layers) with the usable decades, "
             "the divergence margin or the residual of an additive fit by medians of the cells that did not fail: "
             "ranks within backbones, pooled over them. Optimizers are the unit: jackknife interval of Fisher's z over "
             "optimizers, exact p by exchanging optimizers of all backbones alike, and by Holm over all pairs.",
             refused=(Reason.TOO_FEW_OPTIMIZERS, Reason.DEGENERATE_VARIANCE)),
    Quantity(WEIGHTS, "pca_components_90", "components for 90 %",
             "Least number of principal components that hold 0.9 of the sum of squares.", "components", source=LI,
             refused=(Reason.TOO_FEW_EIGS,)),
)
_COMPARISON = (
    Quantity(COMPARISON, "overall", "mean change", "Mean over backbones of the mean paired change of their cells; "
             "Student's t interval over backbones.", "points"),
    Quantity(COMPARISON, "from_seeds", "mean change, by seeds",
             "Mean of the changes of all cells; interval from the noise of seeds, for these cells and no others.",
             "points"),
    Quantity(COMPARISON, "from_landscapes", "mean change, by landscapes",
             "The same of the expected scores at the best points of cells that have a landscape in both.", "points"),
    Quantity(COMPARISON, "variance_shares", "shares of variation",
             "Share of the variation of several runs that backbone, optimizer, the one factor they differ in, and "
             "their interactions have; noise of seeds taken off, interval from draws of the true effects.",
             refused=(Reason.TOO_FEW_BACKBONES, Reason.TOO_FEW_OPTIMIZERS, Reason.TOO_FEW_REPLICATES)),
    Quantity(COMPARISON, "share_that_moves", "coupling that moves",
             "SS of backbone x optimizer x factor over that plus SS of backbone x optimizer: the part of the coupling "
             "that is not the same in all runs.", refused=(Reason.TOO_FEW_REPLICATES,)),
    Quantity(COMPARISON, "order_flips", "order that flips",
             "Probability that two optimizers change order, in their means over backbones, from one run to another.",
             refused=(Reason.TOO_FEW_REPLICATES,)),
    Quantity(COMPARISON, "same_best", "same best optimizer",
             "Probability that the optimizer with the best mean is the same in all runs.",
             refused=(Reason.TOO_FEW_REPLICATES,)),
    Quantity(COMPARISON, "change", "change",
             "Second minus first; interval from those of both values.", "points", source="Zou & Donner 2008, eq. 3"),
)
# fmt: on
QUANTITIES: dict[str, Quantity] = {
    quantity.key: quantity
    for part in (_CELLS, _LANDSCAPE, _SEARCH, _GRID, _LINES, _SETTINGS, _USE, _BOCB, _WEIGHTS, _COMPARISON)
    for quantity in part
}


def document() -> str:
    """Write `docs/METRICS.md`."""
    parts = ["# Metrics", _HEAD]
    for part, quantities in groupby(QUANTITIES.values(), key=lambda quantity: quantity.part):
        parts += [f"## {part}", INTRODUCTIONS[part], *(_entry(quantity) for quantity in quantities)]
    return "\n\n".join(parts) + "\n"


_HEAD = (
    "Every number that the report or `metrics.json` states, by its key there. Estimates carry a 95 % interval (`lo`, "
    "`hi`), the data they rest on (`n_...`), their `method`, and where they are refused a `reason`; what is "
    "refused alike in every cell stands once, under `refused_in_every_cell`, and not in the cells. Scores are in the "
    "unit of the objective, points for accuracies; larger is better.\n\n"
    "Made by `python -m bocb_tune.analysis.names.quantities > docs/METRICS.md`."
)


def _entry(quantity: Quantity) -> str:
    rows = [
        f"**{quantity.name}.** {quantity.definition}",
        f"Unit: {quantity.unit or 'none'}. Better: {quantity.better or 'neither'}. Source: {quantity.source}.",
    ]
    if quantity.refused:
        rows.append(f"Refused or bounded where {'; where '.join(reason.sentence for reason in quantity.refused)}.")
    return f"### {quantity.key}\n\n" + "\n".join(rows)


if __name__ == "__main__":
    print(document(), end="")
