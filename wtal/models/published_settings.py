"""Settings of the published methods that plug in as the CBP branch. Defaults are those published for THUMOS14."""

import math
from dataclasses import dataclass, fields

from feature_extraction.errors import UserError
from wtal.strict import at_least


@dataclass(frozen=True, kw_only=True)
class MagnitudeSettings:
    """UM (Lee et al., AAAI 2021)."""

    width: int | None = None
    """Width of its features; none: that of the joined input, as published (2048 to 2048)."""
    margin: float | None = None
    """Magnitude that foreground features are pushed to; none: 100 at width 2048, as published, and in proportion to
    the root of the width at others."""
    action_ratio: int = 9
    """T over the number of snippets that count as action."""
    background_ratio: int = 4
    """T over the number of snippets that count as background."""
    magnitude_weight: float = 5e-4
    """Weight of the magnitude loss."""
    background_weight: float = 1.0
    """Weight of the loss that wants background snippets to be of no class."""

    def __post_init__(self) -> None:
        at_least("cbp.um", self, 1, "width", "action_ratio", "background_ratio")
        at_least("cbp.um", self, 0, "magnitude_weight", "background_weight")
        if self.margin is not None and not 0 < self.margin < math.inf:
            raise UserError(f"cbp.um.margin must be a positive number, got {self.margin}")


@dataclass(frozen=True, kw_only=True)
class ConsensusSettings:
    """CO2-Net (Hong et al., ACM MM 2021)."""

    topk_ratio: int = 7
    """T over the number of snippets behind a video score in training; ActivityNet: 5."""
    coactivity: float = 1.0
    """Weight of the co-activity loss."""
    mutual: float = 1.0
    """Weight of the mutual loss of the two attentions."""
    norm: float = 0.8
    """Weight of the attentions' mean."""
    guide: float = 0.8
    """Weight of the guide loss (attention is the complement of the background class)."""
    smooth: int = 0
    """Snippets over which class scores and attentions are averaged, an odd number; 0: not at all. ActivityNet: 13."""

    def __post_init__(self) -> None:
        _check_consensus("cbp.co2net", self)


@dataclass(frozen=True, kw_only=True)
class EvidentialSettings:
    """DELU (Chen et al., ECCV 2022): CO2-Net's settings, and its own."""

    topk_ratio: int = 7
    """As in `co2net`; ActivityNet: 5."""
    coactivity: float = 1.0
    """As in `co2net`."""
    mutual: float = 1.0
    """As in `co2net`."""
    norm: float = 0.8
    """As in `co2net`."""
    guide: float = 0.4
    """As in `co2net`; ActivityNet: 0.8."""
    smooth: int = 0
    """As in `co2net`; ActivityNet: 13."""
    evidential: float = 1.3
    """Weight of the evidential video loss; ActivityNet: 1.2."""
    uncertainty: float = 0.4
    """Weight of the guide loss that uncertainty weights; ActivityNet: 0.2."""
    amplitude: float = 0.7
    """A, how far those weights are from 1 for the surest and the least sure snippet; ActivityNet: 0.2."""
    attention_ratio: int = 9
    """T over the number of most attended snippets behind a video's evidence; ActivityNet: 5."""

    def __post_init__(self) -> None:
        _check_consensus("cbp.delu", self)
        at_least("cbp.delu", self, 1, "attention_ratio")
        at_least("cbp.delu", self, 0, "evidential", "uncertainty")
        if not 0 <= self.amplitude <= 1:
            raise UserError(f"cbp.delu.amplitude must be in [0, 1], got {self.amplitude}")


def loss_weights(settings: ConsensusSettings | EvidentialSettings) -> dict[str, float]:
    """Weight of each loss term by name; the multiple-instance loss has 1."""
    names = ("coactivity", "mutual", "norm", "guide", "evidential", "uncertainty")
    present = {field.name for field in fields(settings)}
    return {"mil": 1.0} | {name: getattr(settings, name) for name in names if name in present}


def _check_consensus(where: str, settings: ConsensusSettings | EvidentialSettings) -> None:
    at_least(where, settings, 1, "topk_ratio")
    at_least(where, settings, 0, "coactivity", "mutual", "norm", "guide")
    if settings.smooth and (settings.smooth < 0 or settings.smooth % 2 == 0):
        raise UserError(f"{where}.smooth must be 0 or an odd number of snippets, got {settings.smooth}")
