"""Settings of training: pseudo-labels, losses, the alternation, the optimiser."""

import math
from dataclasses import dataclass
from typing import Literal

from feature_extraction.errors import UserError
from wtal.config.strict import at_least

Cut = Literal["minmax", "probability", "otsu"]


@dataclass(frozen=True, kw_only=True)
class PseudoLabelSettings:
    """Equation (4), and what we add to it."""

    high: float = 0.3
    """Above it a frame is foreground."""
    low: float = 0.1
    """Below it a frame is background."""
    first: Cut = "minmax"
    """Scores behind the very first labels of each branch, before it has been taught: per video and class min-max
    of the logits (a warm-up by softmax over classes leaves a sigmoid without calibration), or P itself. `otsu`: logits
    again, but cut where they part best in two groups in each video and class (Otsu, 1979), in place of `high` and
    `low`: how far a warm-up's scores reach up depends on the data."""
    later: Cut = "probability"
    """Scores behind the CBP branch's later labels, and the VLP's where `later_vlp` does not say."""
    later_vlp: Literal["", "probability", "minmax", "otsu"] = ""
    """Scores behind the VLP's later labels. A VLP that may move little (one temporal layer over frozen features) never
    becomes as sure of frames as a CBP branch does: its probabilities leave most of the foreground out."""
    agreement: Literal["none", "drop", "background", "own"] = "none"
    """What the branch that learns, as it begins the phase, may say against its teacher's labels. `drop`: a label that
    it contradicts with the same certainty becomes uncertain. `background`: both branches learn the same labels, the
    VLP's with background wherever the CBP branch is sure of it, now or after its warm-up: background from one,
    foreground from the other. `own`: the CBP branch learns its own labels and the VLP has no say, which is no
    collaboration but what one has to be compared with."""
    together: float = 0.0
    """w, 0 to below 1: once an F phase has taught the CBP branch, both branches learn labels from
    `P_cbp^(1 - w) * P_vlp^w` in every later phase, whatever `first`, `later` and `agreement` say; 0: off."""
    adaptive: bool = False
    """Scale both thresholds by each class's 95th percentile score over the training videos."""
    ema: float = 0.0
    """Decay of an exponential moving average of the teacher's weights, less in its first steps, so that it forgets
    the untrained weights; 0: the teacher's last weights."""

    def rule_of(self, branch: str, taught: bool) -> str:
        """What a score is behind the labels of `branch` (cbp, vlp)."""
        later = self.later_vlp or self.later if branch == "vlp" else self.later
        return later if taught else self.first

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise UserError(f"pseudo_labels: need 0 <= low < high <= 1, got low {self.low} and high {self.high}")
        if not 0 <= self.together < 1:
            raise UserError(f"pseudo_labels.together must be in [0, 1), got {self.together}")
        if not 0 <= self.ema < 1:
            raise UserError(f"pseudo_labels.ema must be in [0, 1), got {self.ema}")


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Equation (5) and its terms."""

    kd: float = 1.0
    """Weight of L_kd (6); 0 leaves it out."""
    fb: float = 0.05
    """lambda, weight of L_fb (7); 0 leaves it out."""
    temperature: float = 0.07
    """tau in (7)."""
    kd_balance: Literal["balanced", "classes", "plain"] = "balanced"
    """`plain` is (6) as printed; `balanced` averages foreground, own background and absent classes apart, so that 0.5
    is neutral whatever the share of foreground; `classes` averages a video's own and absent classes apart."""
    fb_reduction: Literal["mean", "sum"] = "mean"
    """`sum` over anchors is (7) as printed; the mean keeps lambda free of the number of frames in a batch."""
    fb_max_frames: int = 1024
    """Most anchors, and most background frames, in (7); more are sampled."""
    cls: float = 0.0
    """Weight of the CBP branch's own loss inside F steps. The paper's (5) has none."""

    def __post_init__(self) -> None:
        at_least("loss", self, 0, "kd", "fb", "cls")
        if not self.kd and not self.fb:
            raise UserError("loss.kd and loss.fb are both 0: B and F phases would train nothing; set one above 0")
        if not (0 < self.temperature < math.inf):
            raise UserError(f"loss.temperature must be above 0, got {self.temperature}")
        at_least("loss", self, 1, "fb_max_frames")


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Warm-up, then rounds of a B phase and an F phase. Lengths are silent in the paper; chosen by experiment."""

    strategy: Literal["alternate", "warmup_only", "only_b", "only_f"] = "alternate"
    """`only_b`: the warmed-up CBP teaches the VLP, once. `only_f`: frozen CLIP teaches the CBP, once (Table 4)."""
    warmup_steps: int = 300
    """Steps of the CBP branch with its own loss alone."""
    rounds: int = 3
    """B and F phases, each."""
    b_steps: int = 100
    """Steps of one B phase."""
    f_steps: int = 150
    """Steps of one F phase."""

    def __post_init__(self) -> None:
        if min(self.warmup_steps, self.b_steps, self.f_steps) < 0 or self.rounds < 1:
            raise UserError("schedule: steps must not be negative and rounds must be at least 1")


@dataclass(frozen=True, kw_only=True)
class SemiSettings:
    """What the warm-up learns from beside weakly labelled videos: clips with strong labels, clips without any, and a
    mean teacher (Tarvainen and Valpola, 2017), as DCASE 2019 task 4 has it. Its numbers are not published; ours."""

    strong_clips: int = 0
    """Clips of `data.strong` in a step, beside the `optimizer.batch` weakly labelled ones."""
    unlabelled_clips: int = 0
    """Clips of `data.unlabelled` in a step, beside the others."""
    frame_weight: float = 1.0
    """Weight of the cross-entropy of the frames of strongly labelled clips."""
    consistency: float = 0.0
    """Largest weight of the squared difference between the probabilities of student and teacher, of videos and of
    frames, over all clips of the step; 0: no teacher."""
    ramp_up: float = 0.5
    """Share t of the warm-up over which that weight rises, by exp(-5 (1 - t)^2)."""
    ema: float = 0.99
    """Decay of the average of the student's weights that is the teacher, less in its first steps."""
    result: Literal["teacher", "student"] = "teacher"
    """Whose weights the warm-up leaves, where there is a teacher."""

    def __post_init__(self) -> None:
        at_least("semi", self, 0, "strong_clips", "unlabelled_clips", "frame_weight", "consistency")
        if self.unlabelled_clips and not self.consistency:
            raise UserError(
                "semi.unlabelled_clips teach by agreement with the teacher alone: set semi.consistency above 0"
            )
        if not 0 < self.ramp_up <= 1:
            raise UserError(f"semi.ramp_up must be in (0, 1], got {self.ramp_up}")
        if not 0 <= self.ema < 1:
            raise UserError(f"semi.ema must be in [0, 1), got {self.ema}")

    @property
    def used(self) -> bool:
        """Whether anything but the videos' own weak labels teaches."""
        return bool(self.strong_clips or self.consistency)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Adam, one for each branch."""

    algorithm: Literal["adamw", "adam"] = "adamw"
    """Where weight decay acts: on the weights (`adamw`), or through the gradient (`adam`, which the published code of
    CO2-Net, UM and DELU uses). Without decay both are the same."""
    lr: float = 1e-4
    """Learning rate of the CBP branch."""
    vlp_lr: float = 1e-4
    """Learning rate of the VLP branch."""
    weight_decay: float = 0.0
    """On both branches; learnt pooling exponents have none."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0: no limit."""
    batch: int = 10
    """Videos in a step, over all processes. Silent in the paper; 10 is CO2-Net's."""
    accumulate: int = 1
    """Parts that a step's batch is cut into to save memory; losses are averaged over the parts. The crops are those of
    the whole batch; pairs of videos that share a class (CO2-Net, DELU) are drawn for each part."""
    slice: int = 0
    """Videos that pass through a network at a time; 0: a process's whole share. The result depends on this number and
    not on who computes a slice: one process equals N bit for bit at the same number (0 with N processes is
    batch / accumulate / N) and the same threads a process. It saves no memory."""
    snippets: int = 320
    """Most snippets taken of a video (the paper: 1000 on THUMOS14, 400 on ActivityNet)."""
    sampling: Literal["consecutive", "random_perturb", "uniform"] = "consecutive"
    """Which snippets: a run at a random place (the paper), one at random of each of `snippets` equal bins (UM,
    CO2-Net), or equally spaced."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the networks."""

    def __post_init__(self) -> None:
        at_least("optimizer", self, 0, "lr", "vlp_lr", "weight_decay", "clip_norm")
        at_least("optimizer", self, 1, "snippets")
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate:
            raise UserError(
                f"optimizer.batch {self.batch} must be a positive multiple of optimizer.accumulate {self.accumulate}"
            )
        part = self.batch // self.accumulate
        if self.slice < 0 or (self.slice and part % self.slice):
            raise UserError(
                f"optimizer.slice {self.slice} must be 0 or divide optimizer.batch / optimizer.accumulate = {part}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the training loop runs."""

    select: Literal["last", "held_out"] = "last"
    """Which F phase's CBP branch is the result (row `ours`): the last, or the one that classifies the held-out part
    of the training videos best (`data.held_out`; labels alone, no segments). The last is then reported beside it as
    `ours_last`. The evaluation videos are never looked at."""
    checkpoint_steps: int = 100
    """Steps between checkpoints; one is also written at the end of every phase."""
    log_steps: int = 10
    """Steps between lines of metrics.jsonl."""
    device: str = "auto"
    """`auto`: CUDA where there is one."""
    threads: int = 0
    """CPU threads; 0: torch's choice. Other numbers of threads may give other bits."""
    tensorboard: bool = False
    """Also write TensorBoard event files (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        at_least("training", self, 1, "checkpoint_steps", "log_steps")
        at_least("training", self, 0, "threads")
