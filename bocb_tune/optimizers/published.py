"""The twenty optimizers of arXiv:2410.06373, by family."""

from __future__ import annotations

from bocb_tune.optimizers.row import ADAPTIVE_LR, ESTIMATED_LR, FIXED_LR, PLAIN_GRADIENT, OptimizerRow

PUBLISHED = (
    OptimizerRow(
        name="sgd",
        target="torch.optim:SGD",
        family=FIXED_LR,
        decay="coupled_l2",
        takes=("momentum", "dampening", "nesterov"),
        source="Sutskever et al. 2013, ICML (momentum)",
        note="decay enters the momentum buffer with the gradient",
        fused=True,
    ),
    OptimizerRow(
        name="sgdp",
        target="timm.optim:SGDP",
        family=FIXED_LR,
        decay="decoupled_times_lr",
        takes=("momentum", "dampening", "nesterov", "eps", "delta", "wd_ratio"),
        source="arXiv:2006.08217",
        note="the share is lr * weight_decay / (1 - momentum), times wd_ratio where a weight looks scale-invariant",
    ),
    OptimizerRow(
        name="lion",
        target="timm.optim:Lion",
        family=FIXED_LR,
        decay="decoupled_times_lr",
        takes=("betas",),
        source="arXiv:2302.06675",
        note="every weight moves by exactly lr a step, so lr is about a tenth of AdamW's and weight_decay ten times",
    ),
    OptimizerRow(
        name="adam",
        target="torch.optim:Adam",
        family=ADAPTIVE_LR,
        decay="coupled_l2",
        takes=("betas", "eps", "amsgrad"),
        source="arXiv:1412.6980",
        note="the decay term is normalised with the gradient: weights with large gradients decay less",
        fused=True,
    ),
    OptimizerRow(
        name="adamax",
        target="torch.optim:Adamax",
        family=ADAPTIVE_LR,
        decay="coupled_l2",
        takes=("betas", "eps"),
        source="arXiv:1412.6980, section 7.1",
        note="the decay term is normalised with the gradient, by the largest of late",
    ),
    OptimizerRow(
        name="nadam",
        target="torch.optim:NAdam",
        family=ADAPTIVE_LR,
        decay="coupled_l2",
        takes=("betas", "eps", "momentum_decay"),
        source="Dozat 2016, ICLR workshop",
        note="the decay term is normalised with the gradient; momentum warms up by itself, at the rate momentum_decay",
    ),
    OptimizerRow(
        name="adamw",
        target="torch.optim:AdamW",
        family=ADAPTIVE_LR,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "amsgrad"),
        source="arXiv:1711.05101",
        fused=True,
    ),
    OptimizerRow(
        name="lamb",
        target="timm.optim:Lamb",
        family=ADAPTIVE_LR,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "max_grad_norm", "trust_clip", "always_adapt"),
        source="arXiv:1904.00962",
        note=(
            "decay joins Adam's update before the trust ratio |p| / |update| rescales both: their proportion counts; "
            "groups with weight_decay 0 get no trust ratio, and so are plain Adam, unless always_adapt; "
            "gradients are clipped to a global norm of max_grad_norm (1) before anything else"
        ),
        choice="pytorch-optimizer's takes first steps about ten times as long as timm's",
    ),
    OptimizerRow(
        name="radam",
        target="torch.optim:RAdam",
        family=ADAPTIVE_LR,
        decay="coupled_l2",
        takes=("betas", "eps"),
        source="arXiv:1908.03265",
        note="the first five steps are SGD with momentum; only from there on is the decay term normalised",
        choice="timm's decouples the decay; pytorch-optimizer's stands still for the first five steps",
    ),
    OptimizerRow(
        name="adamp",
        target="timm.optim:AdamP",
        family=ADAPTIVE_LR,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "delta", "wd_ratio", "nesterov"),
        source="arXiv:2006.08217",
        note="the share is lr * weight_decay, times wd_ratio where a weight looks scale-invariant",
    ),
    OptimizerRow(
        name="adan",
        target="timm.optim:Adan",
        family=ADAPTIVE_LR,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "no_prox"),
        source="arXiv:2208.06677",
        note="proximal: p / (1 + lr * weight_decay) after the step, unless no_prox; betas are three",
    ),
    OptimizerRow(
        name="adabound",
        target="pytorch_optimizer:AdaBound",
        family=ESTIMATED_LR,
        decay="coupled_l2",
        takes=("betas", "eps", "final_lr", "gamma", "ams_bound"),
        source="arXiv:1902.09843",
        note=(
            "lr counts at the start only: the step per gradient tends to final_lr over 1 / gamma steps; both follow "
            "the schedule; the decay term is normalised as much as the gradient"
        ),
        choice="decay joins the gradient, as in the authors' AdaBound (their AdaBoundW decouples it)",
        always={"weight_decouple": False},
    ),
    OptimizerRow(
        name="lars",
        target="pytorch_optimizer:LARS",
        family=ESTIMATED_LR,
        decay="coupled_l2",
        takes=("momentum", "dampening", "nesterov", "trust_coefficient"),
        source="arXiv:1708.03888",
        note=(
            "a weight moves by lr * trust_coefficient of its own norm, whatever its gradient's; "
            "1-d parameters follow plain SGD at the same lr"
        ),
        choice="timm's turns the trust ratio off where weight_decay is 0, so that lr means another thing there",
    ),
    OptimizerRow(
        name="adafactor",
        target="timm.optim:Adafactor",
        family=ESTIMATED_LR,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "clip_threshold", "decay_rate", "min_dim_size_to_factor"),
        source="arXiv:1804.04235",
        note=(
            "lr is external (no relative step, no scaling by the norm of a weight); an update is clipped to a "
            "root-mean-square of clip_threshold; no momentum unless betas are given, of which the first counts"
        ),
        choice=(
            "torch's multiplies lr by the size of each weight and caps it by 1 / sqrt(step): not what lr means in the "
            "published values; timm's factors convolutions over their channels"
        ),
    ),
    OptimizerRow(
        name="adabelief",
        target="timm.optim:AdaBelief",
        family=ESTIMATED_LR,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "rectify"),
        source="arXiv:2010.07468",
        note="rectified as RAdam unless `rectify` is false; eps is added within the square root too, at each step",
    ),
    OptimizerRow(
        name="novograd",
        target="timm.optim:NvNovoGrad",
        family=ESTIMATED_LR,
        decay="coupled_l2",
        takes=("betas", "eps", "grad_averaging"),
        source="arXiv:1905.11286",
        note=(
            "decay joins the gradient after that was divided by its layer's norm, and enters the momentum: in the long "
            "run the share is lr * weight_decay / (1 - beta1), whatever the size of gradients"
        ),
    ),
    OptimizerRow(
        name="sophia",
        target="bocb_tune.optimizers.sophia:Sophia",
        family=ESTIMATED_LR,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "gamma", "update_period"),
        source="arXiv:2305.14342, Sophia-H",
        note=(
            "no weight moves by more than lr a step; second derivatives are estimated at every update_period-th step, "
            "which then takes about three times as long, and operations without them (RoI align) cannot be trained"
        ),
        choice=(
            "pytorch-optimizer's SophiaH does the update; its own estimate does not work across ranks, under gradient "
            "accumulation or with a gradient scaler, so the training loop makes the estimate"
        ),
        second_order=True,
    ),
    OptimizerRow(
        name="adagrad",
        target="torch.optim:Adagrad",
        family=PLAIN_GRADIENT,
        decay="coupled_l2",
        takes=("eps", "lr_decay", "initial_accumulator_value"),
        source="Duchi et al. 2011, JMLR 12",
        note="the decay term is normalised with the gradient, by the sum over all steps: these fall as 1 / sqrt(step)",
    ),
    OptimizerRow(
        name="adadelta",
        target="torch.optim:Adadelta",
        family=PLAIN_GRADIENT,
        decay="coupled_l2",
        takes=("rho", "eps"),
        source="arXiv:1212.5701",
        note="lr multiplies a step in units of the weights; the paper has none, which is 1; steps start near sqrt(eps)",
    ),
    OptimizerRow(
        name="rmsprop",
        target="torch.optim:RMSprop",
        family=PLAIN_GRADIENT,
        decay="coupled_l2",
        takes=("alpha", "eps", "momentum", "centered"),
        source="Tieleman & Hinton 2012, Coursera lecture 6.5",
        note="no correction of bias: with alpha 0.99 the first step is ten times lr for every weight",
        choice="timm's RMSpropTF starts its average at 1 and has eps within the root: another optimizer early on",
    ),
)
