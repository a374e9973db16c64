"""Optimizers that arXiv:2410.06373 does not cover, most of them younger."""

from __future__ import annotations

from bocb_tune.optimizers.row import OTHER, OptimizerRow

ADDITIONAL = (
    OptimizerRow(
        name="muon",
        target="timm.optim:Muon",
        family=OTHER,
        decay="decoupled_times_lr",
        takes=("momentum", "nesterov", "ns_steps", "ns_coefficients", "adjust_lr_fn", "conv_mode", "betas", "eps"),
        source="Jordan et al. 2024, kellerjordan.github.io/posts/muon; length of steps: arXiv:2502.16982, section 2.2",
        note=(
            "momentum is orthogonalised in bf16; with match_rms_adamw a matrix moves as much as under AdamW, so lr and "
            "weight_decay are AdamW's; 1-d parameters, depthwise filters and embeddings of one row are left to NAdamW"
        ),
        choice="the same trajectory as torch's on matrices; torch's refuses convolutions and 1-d parameters",
    ),
    OptimizerRow(
        name="soap",
        target="pytorch_optimizer:SOAP",
        family=OTHER,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "shampoo_beta", "precondition_frequency", "max_precondition_dim", "merge_dims"),
        source="arXiv:2409.11321",
        note="Adam in the eigenbasis of Shampoo; each axis of n keeps two n x n matrices, up to max_precondition_dim",
        first_step="none",
    ),
    OptimizerRow(
        name="schedulefree_adamw",
        target="pytorch_optimizer:ScheduleFreeAdamW",
        family=OTHER,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "r", "weight_lr_power"),
        source="arXiv:2405.15682",
        note=(
            "validated and saved at the average of the iterates, trained between it and the newest; statistics of "
            "BatchNorm are estimated anew at the average; decay acts at the point where the gradient is taken"
        ),
        schedule="own",
    ),
    OptimizerRow(
        name="schedulefree_sgd",
        target="pytorch_optimizer:ScheduleFreeSGD",
        family=OTHER,
        decay="decoupled_times_lr",
        takes=("momentum", "r", "weight_lr_power"),
        source="arXiv:2405.15682",
        note=(
            "as schedulefree_adamw; no buffer averages gradients, so lr is about 1 / (1 - momentum) of SGD's, and to "
            "add decay to the gradient or to apply it apart is the same"
        ),
        schedule="own",
    ),
    OptimizerRow(
        name="prodigy",
        target="pytorch_optimizer:Prodigy",
        family=OTHER,
        decay="decoupled_times_lr",
        takes=("betas", "beta3", "eps", "d0", "d_coef", "growth_rate", "bias_correction", "safeguard_warmup"),
        source="arXiv:2306.06101",
        note=(
            "lr multiplies a step size that is estimated from the whole model and starts at d0: 1 is to trust it; "
            "the share that decays is lr * weight_decay times the estimate"
        ),
        one_lr=True,
    ),
    OptimizerRow(
        name="ademamix",
        target="pytorch_optimizer:AdEMAMix",
        family=OTHER,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "alpha", "t_alpha_beta3"),
        source="arXiv:2409.03137",
        note="a slow average of gradients joins Adam's, times alpha: the steps get up to 1 + alpha times as long",
        always={"weight_decouple": True},
    ),
    OptimizerRow(
        name="mars",
        target="timm.optim:Mars",
        family=OTHER,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "gamma", "optimize_1d", "lr_1d_factor", "betas_1d"),
        source="arXiv:2411.10438, MARS-AdamW",
        note=(
            "the difference to the last step's gradient, from another batch, corrects each gradient (MARS-approx); "
            "1-d parameters are left to AdamW"
        ),
        choice="pytorch-optimizer's has another learning rate and decay for 1-d parameters, which lr does not move",
    ),
    OptimizerRow(
        name="cautious_adamw",
        target="timm.optim:AdamWLegacy",
        family=OTHER,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "amsgrad"),
        source="arXiv:2411.16085",
        note="AdamW that leaves out the weights whose step would go against the gradient, and scales up the others",
        always={"caution": True},
    ),
)
