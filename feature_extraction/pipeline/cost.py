"""A small model of what extraction costs: a data set's hours of video times what each part of the work takes, on
machines that are not at hand.

What one core (or this GPU) takes for a frame and a snippet is measured on the spot; the rest is arithmetic. On a CPU
all parts share the cores. On a GPU flow and networks follow one another there, while the cores decode. No GPU was
measured for this project: where none is at hand, a GPU's speed is what is aimed at (`AIM_FLOPS`, `AIM_PAIRS`), and the
prediction says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from feature_extraction.settings import ExtractionSettings

DECODED = 2500 * 340 * 256
"""Pixels a second that one core decodes of 340x256 H.264 (docs/performance.md: 2,442 to 2,690 frames)."""
AIM_FLOPS = 100e12
"""Operations a second of the networks on a GPU, in half precision: aimed at, not measured."""
AIM_PAIRS = 3000 * 340 * 256
"""Pixels a second of TV-L1 on a GPU, with OpenCV's settings: aimed at, not measured."""
LAPTOP_CORES, DECODING_CORES = 8, 8
SOURCE_PIXELS = 340 * 256
"""Of a frame where nothing is known of the videos."""


@dataclass(frozen=True)
class Workload:
    """A data set by its size."""

    name: str
    videos: int
    hours: float


WORKLOADS = (
    # hours as the annotation files' durations add up: Thumos14reduced, and BMN's list of ActivityNet 1.3
    Workload("THUMOS14", 412, 24.4),
    Workload("ActivityNet 1.3", 19_228, 624.0),
    Workload("1,000 hours of own video", 30_000, 1000.0),
)


@dataclass(frozen=True)
class PartCost:
    """What one part of the work (a network, or flow) takes."""

    seconds: float
    """For one item (snippet, frame or pair of frames), on one core or on this GPU."""
    a_second: float
    """Items in a second of video."""
    flops: float
    """Operations of an item; 0 for flow."""
    pixels: int = 0
    """Of a frame, for flow."""

    @property
    def here(self) -> float:
        """Seconds of one core (or of this GPU) for a second of video."""
        return self.seconds * self.a_second

    @property
    def aimed(self) -> float:
        """Seconds of a GPU as fast as is aimed at, for a second of video."""
        return (self.flops / AIM_FLOPS + self.pixels / AIM_PAIRS) * self.a_second


@dataclass(frozen=True)
class Prediction:
    """Hours that a data set takes on three machines; None where that cannot be told from here."""

    name: str
    videos: int
    hours_of_video: float
    laptop: float | None
    one_gpu: float
    eight_gpus: float


def predict(parts: Mapping[str, PartCost], settings: ExtractionSettings, on_gpu: bool) -> list[Prediction]:
    """What `WORKLOADS` cost with these settings, from the parts as measured here: cores of a CPU, or a GPU."""
    decoding = settings.fps * SOURCE_PIXELS / DECODED  # seconds of a core for a second of video
    here = sum(part.here for part in parts.values())
    gpu = here if on_gpu else sum(part.aimed for part in parts.values())
    one = max(gpu, decoding / DECODING_CORES)
    found = []
    for load in WORKLOADS:
        laptop = None if on_gpu else load.hours * (here + decoding) / LAPTOP_CORES
        found.append(Prediction(load.name, load.videos, load.hours, laptop, load.hours * one, load.hours * one / 8))
    return found


def text(predictions: list[Prediction], on_gpu: bool) -> str:
    """The predictions as lines, with what they rest on."""
    if not predictions:
        return ""
    gpu = "from this one" if on_gpu else "none was measured: at the speed that is aimed at"
    lines = [f"prediction, not measured, for whole data sets with these settings (GPU: {gpu}):"]
    for each in predictions:
        laptop = "" if each.laptop is None else f"{_said(each.laptop)} on {LAPTOP_CORES} cores like one of these, "
        lines.append(
            f"  {each.name} ({each.videos:,} videos, {each.hours_of_video:,g} hours): {laptop}"
            f"{_said(each.one_gpu)} on one GPU, {_said(each.eight_gpus)} on eight"
        )
    return "\n".join(lines)


def _said(hours: float) -> str:
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.0f} min"
