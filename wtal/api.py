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
from typing import TYPE_CHECKING

from feature_extraction.errors import UserError
from wtal.config.load import Config, config_of_run, load_config
from wtal.datasets.annotations import AnnotationSet, Detection
from wtal.inference.scores import VideoScores
from wtal.training.folder import ROWS, RunFolder

if TYPE_CHECKING:
    import torch

    from wtal.datasets.features import FeatureSet
    from wtal.models.streams import StreamedBranch

__all__ = ["Detection", "Localizer", "VideoScores", "export", "load", "read", "report", "train"]

Videos = str | Path | Sequence[str | Path]


class Localizer:
    """A trained run. Networks are loaded at the first use and kept."""

    def __init__(self, run: RunFolder, config: Config, classes: tuple[str, ...]) -> None:
        self.run = run
        self.config = config
        self.classes = classes
        """Class names, in the order of the scores' columns."""
        self._branches: dict[str, StreamedBranch] = {}

    def detect(self, videos: Videos, store: str | Path | None = None) -> dict[str, list[Detection]]:
        """Detections of video files (or of all videos in a folder) by video id, surest first; times in
        seconds.

        Features are extracted as for training and kept in `store` (default: `features-new` in the run
        folder), so that a second call is quick. Raises `UserError` naming a video that cannot be read, once
        the others' features are there.
        """
        from wtal.inference.detect import detect
        from wtal.runs.predict import rows_for

        own, *second = rows_for(self.config, "ours")
        return {
            video_id: detect(scored[own], self.classes, self.config.inference, *(scored[row] for row in second))
            for video_id, scored in self._scored(videos, store)
        }

    def scores(self, videos: Videos, store: str | Path | None = None) -> Iterator[tuple[str, VideoScores]]:
        """Frame and video probabilities behind the detections: (video id, scores), one video at a time."""
        for video_id, scored in self._scored(videos, store):
            yield video_id, scored["ours"]

    def _scored(self, videos: Videos, store: str | Path | None) -> Iterator[tuple[str, dict[str, VideoScores]]]:
        """(video id, row -> scores) of the row `ours`, and of the one that it is fused with."""
        from feature_extraction.networks.towers import pick_device
        from wtal.runs.new_videos import extract_streams, extractions_of
        from wtal.runs.predict import check_row, classified, rows_for
        from wtal.runs.rows import row_sources, score_row

        check_row(self.config, "ours")
        rows, sources = rows_for(self.config, "ours"), row_sources(self.config, self.run)
        places = [Path(videos)] if isinstance(videos, (str, Path)) else [Path(video) for video in videos]
        place = Path(store) if store is not None else self.run.path / "features-new"
        features, ids, failed = extract_streams(places, place, extractions_of(self.config))
        if failed:
            named = "; ".join(f"{video_id} ({reason})" for video_id, reason in sorted(failed.items()))
            raise UserError(f"{len(failed)} videos cannot be read: {named}")
        device = pick_device(self.config.training.device)
        self._load(rows, features, device)
        scored = [score_row(self._branches[row], sources[row].rule, features, ids, device, ROWS[row]) for row in rows]
        for by_row in zip(*scored, strict=True):
            yield (
                by_row[0][0],
                {
                    row: classified(self.config, {video_id: scores}, features, self.classes)[video_id]
                    for row, (video_id, scores) in zip(rows, by_row, strict=True)
                },
            )

    def _load(self, rows: Sequence[str], features: "FeatureSet", device: "torch.device") -> None:
        from wtal.models.build import build_branches
        from wtal.runs.rows import load_row, row_sources

        if all(row in self._branches for row in rows):
            return
        built = build_branches(self.config, features, self.classes)
        sources = row_sources(self.config, self.run)
        self._branches = {row: load_row(self.run, sources[row], built).to(device) for row in rows}


def load(run: str | Path, overrides: Sequence[str] = ()) -> Localizer:
    """A run folder of `wtal train`; `overrides` change its inference, such as
    `["inference.thresholds=[0.3]"]`.

    Raises `UserError` where the folder is no run, and for an unknown setting.
    """
    from wtal.datasets.formats.by_name import load_annotations
    from wtal.runs.predict import changed

    folder = RunFolder(Path(run))
    config = changed(config_of_run(folder.path), overrides)
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

    `sources` says where the video files lie, by video id. Returns the files. As `wtal export`: what starts
    before 0 is cut there, what ends before it starts is left out, and `UserError` is raised for a time or a
    score that is not finite.
    """
    from wtal.datasets.interchange.labelled import from_detections, within_time
    from wtal.datasets.interchange.tools import EXPORTERS

    if to not in EXPORTERS:
        raise UserError(f"unknown format {to!r}; there are: {', '.join(EXPORTERS)}")
    places = {video_id: Path(path) for video_id, path in (sources or {}).items()}
    videos, _ = within_time(from_detections(detections, places))
    return EXPORTERS[to](videos, Path(out))


def read(path: str | Path, source: str) -> AnnotationSet:
    """Annotations of another tool (`csv`, `via`, `label-studio`, `elan`, `activitynet`). As `wtal import`."""
    from wtal.datasets.interchange.tools import IMPORTERS

    if source not in IMPORTERS:
        raise UserError(f"unknown format {source!r}; there are: {', '.join(IMPORTERS)}")
    return IMPORTERS[source](Path(path))
