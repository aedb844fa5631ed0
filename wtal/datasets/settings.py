"""Settings of the data: where annotations and features lie, and which videos are for what."""

from dataclasses import dataclass
from typing import Literal

from feature_extraction.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Annotations, features, splits."""

    annotations: str = ""
    """Annotation file or folder."""
    features: str = ""
    """Feature store."""
    train_subset: str = "training"
    """Subset whose video-level labels train."""
    test_subset: str = "validation"
    """Subset that is evaluated."""
    exclude: tuple[str, ...] = ()
    """Video ids to leave out."""
    missing: Literal["error", "skip"] = "error"
    """What to do about annotated videos without features."""
    held_out: float = 0.0
    """Share of the training videos kept out of training, for choosing things without the evaluation videos."""
    held_out_seed: int = 0
    """Seed of that choice."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise UserError(f"data.held_out must be in [0, 1), got {self.held_out}")
