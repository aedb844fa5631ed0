"""The Python interface: a trained run as an object, from video files to detections.

    from wtal.api import load
    localizer = load("runs/demo/run")
    for video_id, detections in localizer.detect(["new.mp4"]).items():
        for d in detections:
            print(video_id, d.label, d.start, d.end, d.score)

What the commands do is here too: `train`, `report`, `export`, `read`. Times are seconds everywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from feature_extraction.errors import UserError
from wtal.config import Config, load_config
from wtal.datasets.annotations import AnnotationSet, Detection
from wtal.inference.scores import VideoScores
from wtal.runs import ROWS, RunFolder

__all__ = ["Detection", "Localizer", "VideoScores", "export", "load", "read", "report", "train"]

Videos = str | Path | Sequence[str | Path]


class Localizer:
    """A trained run. Networks are loaded at the first use and kept."""

    def __init__(self, run: RunFolder, config: Config, classes: tuple[str, ...]) -> None:
        self.run = run
        self.config = config
        self.classes = classes
        """Class names, in the order of the scores' columns."""
        self._branch = None

    def detect(self, videos: Videos, store: str | Path | None = None) -> dict[str, list[Detection]]:
        """Detections of video files (or of all videos in a folder) by video id, surest first; times in
        seconds.

        Features are extracted as for training and kept in `store` (default: `features-new` in the run
        folder), so that a second call is quick. Raises `UserError` naming a video that cannot be read, once
        the others' features are there.
        """
        from wtal.inference.detect import detect

        return {
            video_id: detect(scores, self.classes, self.config.inference)
            for video_id, scores in self.scores(videos, store)
        }

    def scores(self, videos: Videos, store: str | Path | None = None) -> Iterator[tuple[str, VideoScores]]:
        """Frame and video probabilities behind the detections: (video id, scores), one video at a time."""
        from feature_extraction.pipeline import extract
        from wtal.prediction import classified
        from wtal.scoring import row_sources, score_row
        from wtal.shipped import resolve
        from wtal.training.assemble import open_features

        place = Path(store) if store is not None else self.run.path / "features-new"
        summary = extract(videos, place, self.config.extraction, resolve=resolve)
        if summary.failed:
            named = "; ".join(f"{video_id} ({reason})" for video_id, reason in sorted(summary.failed.items()))
            raise UserError(f"{len(summary.failed)} videos cannot be read: {named}")
        features = open_features(self.config, place)
        source = row_sources(self.config)["ours"]
        branch, device = self._load(features)
        ids = sorted([*summary.done, *summary.present])
        for video_id, scores in score_row(branch, source.rule, features, ids, device, ROWS["ours"]):
            yield video_id, classified(self.config, {video_id: scores}, features, self.classes)[video_id]

    def _load(self, features):
        from wtal.scoring import load_row, row_sources
        from wtal.training.assemble import build_branches, pick_device

        device = pick_device(self.config.training.device)
        if self._branch is None:
            branches = build_branches(self.config, features, self.classes)
            self._branch = load_row(self.run, row_sources(self.config)["ours"], branches).to(device)
        return self._branch, device


def load(run: str | Path, overrides: Sequence[str] = ()) -> Localizer:
    """A run folder of `wtal train`; `overrides` change its inference, such as
    `["inference.thresholds=[0.3]"]`.

    Raises `UserError` where the folder is no run, and for an unknown setting.
    """
    from wtal.datasets.load import load_annotations
    from wtal.prediction import changed

    folder = RunFolder(Path(run))
    config = changed(folder.config(), overrides)
    return Localizer(folder, config, load_annotations(config.data).classes)


def train(config: str, overrides: Sequence[str] = ()) -> Localizer:
    """Train (or finish training) what a YAML file or a shipped configuration's name describes; as `wtal
    train`."""
    from wtal.training.run import train as train_run

    run, _ = train_run(load_config(config, overrides))
    return load(run.path)


def report(run: str | Path, out: str | Path | None = None, *, bundle: bool = False) -> Path:
    """The HTML report of a run that has predictions; returns its index page. As `wtal report`."""
    from wtal.report.build import report_run

    return report_run(RunFolder(Path(run)), None if out is None else Path(out), bundle=bundle)


def export(
    detections: Mapping[str, Sequence[Detection]],
    to: str,
    out: str | Path,
    sources: Mapping[str, str | Path] | None = None,
) -> list[Path]:
    """Write detections for another tool (`csv`, `vtt`, `label-studio`, `fiftyone`, `via`, `elan`) into a
    folder.

    `sources` says where the video files lie, by video id. Returns the files. As `wtal export`.
    """
    from wtal.report.exporters import EXPORTERS
    from wtal.report.interchange import from_detections

    if to not in EXPORTERS:
        raise UserError(f"unknown format {to!r}; there are: {', '.join(EXPORTERS)}")
    places = {video_id: Path(path) for video_id, path in (sources or {}).items()}
    return EXPORTERS[to](from_detections(detections, places), Path(out))


def read(path: str | Path, source: str) -> AnnotationSet:
    """Annotations of another tool (`csv`, `via`, `label-studio`, `elan`, `activitynet`). As `wtal import`."""
    from wtal.report.importers import IMPORTERS

    if source not in IMPORTERS:
        raise UserError(f"unknown format {source!r}; there are: {', '.join(IMPORTERS)}")
    return IMPORTERS[source](Path(path))
