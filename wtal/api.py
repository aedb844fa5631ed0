"""What `import wtal` gives: a trained run as an object, and what the commands do as functions. Times are seconds.

    import wtal
    localizer = wtal.load("runs/demo")
    for video_id, detections in localizer.detect(["new.mp4"]).items():
        for d in detections:
            print(video_id, d.label, d.start, d.end, d.score)

Settings may be texts (`["inference.thresholds=[0.3]"]`), a mapping with nested or dotted keys
(`{"inference.thresholds": [0.3]}`), or keywords (`inference={"thresholds": [0.3]}`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feature_extraction.errors import UserError
from wtal import report
from wtal.config.load import load_config
from wtal.config.strict import assignments
from wtal.datasets.annotations import AnnotationSet, Detection
from wtal.inference.scores import VideoScores
from wtal.runs.localizer import Localizer, open_run
from wtal.training.folder import RunFolder

__all__ = ["Detection", "Localizer", "VideoScores", "export", "load", "read", "report", "train"]

Overrides = Sequence[str] | Mapping[str, Any]


def load(run: str | Path, overrides: Overrides = (), **settings: Any) -> Localizer:
    """A run folder of `wtal train`, or a file of `wtal pack`; settings change its inference, such as
    `inference={"thresholds": [0.3]}`.

    Raises `UserError` where it is neither, and for an unknown setting.
    """
    if Path(run).is_file():
        from wtal.runs.pack import open_pack

        return open_pack(Path(run), overrides, **settings)
    return open_run(RunFolder(Path(run)), overrides, **settings)


def train(config: str | Path, overrides: Overrides = (), **settings: Any) -> Localizer:
    """Train (or finish training) what a YAML file or a shipped configuration's name describes; as `wtal train`."""
    from wtal.training.run import train as train_run

    run, _ = train_run(load_config(str(config), assignments(overrides, settings)))
    return load(run.path)


def export(
    detections: Mapping[str, Sequence[Detection]],
    to: str,
    out: str | Path,
    sources: Mapping[str, str | Path] | None = None,
) -> list[Path]:
    """Write detections for another tool (`csv`, `vtt`, `label-studio`, `fiftyone`, `via`, `elan`) into a folder.

    `sources` says where the video files lie, by video id. Returns the files. As `wtal export`: what starts before 0 is
    cut there, what ends before it starts is left out, and `UserError` is raised for a time or a score that is not
    finite.
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
