"""Settings of the data: which annotations, which features, which videos train and which test."""

from dataclasses import dataclass
from typing import Literal

from feature_extraction.errors import UserError

FormatName = Literal[
    "activitynet",
    "bmn",
    "thumos-npy",
    "thumos-json",
    "thumos-txt",
    "csv",
    "jsonl",
    "dcase",
    "yt8m",
]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Annotations, features and splits. Paths are relative to the working directory."""

    annotations: str = ""
    """File or folder of annotations."""
    videos: str = ""
    """Folder of videos that `wtal run` extracts into `features`; empty: the features are there already."""
    format: FormatName = "activitynet"
    """Layout of `annotations`; `wtal.datasets.formats.by_name.FORMATS` says what each one is."""
    annotations_extra: str | None = None
    """Second path, for layouts that have one (video table of `bmn`, split folder of `thumos-json`, Ambiguous
    file of `thumos-npy`, durations folder of `thumos-txt`, class list of `csv` and `jsonl`, vocabulary of `yt8m`).
    None: beside the first one."""
    strong: str | None = None
    """`dcase` only: table of clips with onsets and offsets that train frames (`semi.strong_clips`), subset "strong"."""
    unlabelled: str | None = None
    """`dcase` only: table of clips (column `filename`) without labels (`semi.unlabelled_clips`), subset
    "unlabelled"."""
    boxes: str | None = None
    """CSV table of boxes (columns `video`, `start`, `end` in seconds, `left`, `top`, `right`, `bottom` in shares of the
    picture) that the warm-up teaches the bottom-up map of `cbp.name: spatial`; training videos may lack them."""
    features: str = ""
    """Root of the feature store."""
    streams: tuple[str, ...] = ("rgb", "flow", "clip")
    """Feature streams to read, by name (`rgb`), or by name and identity (`rgb-1a2b3c4d`) where there are
    several."""
    resample: tuple[str, ...] = ()
    """Those of `streams` whose snippets last longer or shorter than the others', such as audio: put on the time grid of
    the first other stream by the mean over what a snippet covers. A stream on another grid that is not named here is
    refused."""
    features_prefix: str = ""
    """Put before an annotated video's id to find its features (`v_` for many ActivityNet stores)."""
    missing: Literal["error", "skip"] = "error"
    """Videos without features: stop, or go on without them, name them, and end with exit code 3."""
    train_subset: tuple[str, ...] = ("training",)
    """Subsets of the annotations to train on (letter case ignored)."""
    test_subset: tuple[str, ...] = ("validation",)
    """Subsets of the annotations to test on (letter case ignored)."""
    exclude: Literal["none", "thumos14-213", "thumos14-212", "thumos14-211", "thumos14-210"] = "none"
    """Named list of videos to leave out: see `wtal.datasets.splits.EXCLUSIONS`."""
    held_out: float = 0.0
    """Part of the training videos, 0 to 0.5, kept from training to choose a checkpoint or a threshold on. The
    test subset is never used for that."""
    held_out_seed: int = 0
    """Which videos are held out."""

    def __post_init__(self) -> None:
        for name in ("streams", "train_subset", "test_subset"):
            if not getattr(self, name):
                raise UserError(f"data.{name} is empty; name at least one")
        if repeated := {name for name in self.streams if self.streams.count(name) > 1}:
            raise UserError(f"data.streams names {sorted(repeated)[0]!r} twice")
        if strangers := [name for name in self.resample if name not in self.streams]:
            raise UserError(f"data.resample names {strangers[0]!r}, which is not in data.streams")
        for name in ("strong", "unlabelled"):
            if getattr(self, name) and self.format != "dcase":
                raise UserError(
                    f"data.{name} is for data.format dcase, and data.format is {self.format!r}: leave it out"
                )
        if not 0 <= self.held_out <= 0.5:
            raise UserError(f"data.held_out must be in [0, 0.5], got {self.held_out}")
        if both := {n.lower() for n in self.train_subset} & {n.lower() for n in self.test_subset}:
            raise UserError(f"data: subset {sorted(both)[0]!r} is in both train_subset and test_subset")
