"""Settings of inference."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """Thin for now."""

    class_threshold: float = 0.5
    """Share of the best class."""
    thresholds: tuple[float, ...] = (0.45,)
    """On frame scores."""
