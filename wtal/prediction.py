"""`wtal predict` as functions: scores of a run's rows, detections of one of them, and their measure where truth is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feature_extraction.errors import PartialFailure, UserError
from feature_extraction.files import write_json
from wtal.config import Config
from wtal.datasets.annotations import AnnotationSet, Detection, write_predictions
from wtal.datasets.features import FeatureSet, available
from wtal.datasets.load import load_annotations
from wtal.datasets.splits import split
from wtal.inference.detect import detect
from wtal.inference.presets import expand_assignments
from wtal.inference.scores import VideoScores
from wtal.runs import ROWS, RunFolder
from wtal.scoring import load_row, row_sources, score_row, write_scores
from wtal.strict import build, override, plain
from wtal.summary import measure, summary_of
from wtal.training.assemble import build_branches, open_features, pick_device


def changed(config: Config, overrides: Sequence[str]) -> Config:
    """A run's configuration with changes that prediction may make: `inference.*`, `evaluation.*`, `training.device`."""
    for assignment in overrides:
        if not assignment.startswith(("inference.", "evaluation.", "training.device=")):
            raise UserError(f"{assignment!r}: prediction takes inference.*, evaluation.* and training.device only")
    return build(Config, override(plain(config), expand_assignments(overrides)))



def predict_run(run: RunFolder, out: Path, row: str, overrides: Sequence[str], store: Path | None) -> int:
    """Score all rows on the evaluation videos, write the detections of `row` to `out`, and measure what can be.

    Without `overrides` the run folder's own `predictions.json` and `summary.json` are written too; with some it is
    left as it is, because a report of it should show the run's own settings. Returns 0, or 3 where
    evaluation videos have no features (with `data.missing: skip`).
    """
    config = changed(run.config(), overrides)
    check_row(config, row)
    features = open_features(config, store)
    annotations = load_annotations(config.data)
    ids, missing = available(features, sorted(split(annotations, config.data).test.videos), config.data.missing)
    branches = build_branches(config, features, annotations.classes)
    device = pick_device(config.training.device)
    write_scores(config, run, branches, features, ids, device)
    rows = {
        name: classified(config, load_scores(run, name, ids), features, annotations.classes)
        for name in row_sources(config)
    }
    second = other_row(config)
    detections = detections_of(config, annotations.classes, rows[row], rows[second] if second else None)
    write_predictions(out, detections, details=f"wtal, row {row}")
    if not overrides:
        if row == "ours" and out.resolve() != run.predictions.resolve():
            write_predictions(run.predictions, detections, details=f"wtal, row {row}")
        summarise(config, run, annotations, ids, rows)
    if missing:
        raise PartialFailure(
            f"{len(missing)} evaluation videos have no features ({', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}); the others are in {out}"
        )
    return 0


def check_row(config: Config, row: str) -> None:
    """Raise `UserError` for a row that this run does not have."""
    sources = row_sources(config)
    if row not in sources:
        raise UserError(f"row {row!r} is not one of this run's: {', '.join(sources)}")


def other_row(config: Config) -> str | None:
    """The row that settings with fusion fuse with: the trained VLP, else frozen CLIP, else none."""
    sources = row_sources(config)
    return next((row for row in ("vlp", "vlp_raw") if row in sources), None)


def load_scores(run: RunFolder, row: str, ids: Sequence[str]) -> dict[str, VideoScores]:
    """A row's written scores by video id."""
    return {video_id: VideoScores.load(run.scores(row, video_id)) for video_id in ids}


def classified(
    config: Config, scores: dict[str, VideoScores], features: FeatureSet, classes: Sequence[str]
) -> dict[str, VideoScores]:
    """The scores with the video classifier's class probabilities, where `inference.video_classifier` names one."""
    settings = config.inference
    if not settings.video_classifier:
        return scores
    from wtal.training.video_classifier import load_video_classifier, replace_video_scores

    classifier = load_video_classifier(Path(settings.video_classifier))
    return replace_video_scores(scores, classifier, features, tuple(classes), settings.video_classifier_weight)


def detections_of(
    config: Config,
    classes: Sequence[str],
    scores: dict[str, VideoScores],
    other: dict[str, VideoScores] | None,
) -> dict[str, list[Detection]]:
    """Detections of every video of `scores`; `other` is the branch to fuse with, where the settings say so."""
    return {
        video_id: detect(own, classes, config.inference, other[video_id] if other else None)
        for video_id, own in scores.items()
    }


def summarise(
    config: Config, run: RunFolder, annotations: AnnotationSet, ids: Sequence[str], rows: dict[str, Any]
) -> dict[str, Any] | None:
    """Measure all rows on the videos with segments and write summary.json; None where nobody annotated segments."""
    videos = {video_id: annotations.videos[video_id] for video_id in ids if annotations.videos[video_id].instances}
    if not videos:
        return None
    truth = AnnotationSet(annotations.classes, videos)
    second = other_row(config)
    other = rows[second] if second else None
    measured = {row: measure(config, truth, rows[row], other) for row in ROWS if row in rows}
    summary = summary_of(config, truth, measured)
    write_json(run.summary, summary)
    return summary


def predict_videos(
    run: RunFolder, videos: Sequence[Path], out: Path, row: str, overrides: Sequence[str], store: Path | None
) -> int:
    """Extract features of new videos with the run's extraction settings and write their detections to `out`.

    Features are kept beside the run (`features-new/`) so that a second call is quick. Videos that cannot be read are
    named by a `PartialFailure` after the others are written.
    """
    from feature_extraction.pipeline import extract
    from wtal.shipped import resolve

    config = changed(run.config(), overrides)
    check_row(config, row)
    place = store or run.path / "features-new"
    extraction = extract(list(videos), place, config.extraction, resolve=resolve)
    features = open_features(config, place)
    annotations = load_annotations(config.data)
    branches = build_branches(config, features, annotations.classes)
    source = row_sources(config, run)[row]
    device = pick_device(config.training.device)
    branch = load_row(run, source, branches).to(device)
    ids = sorted([*extraction.done, *extraction.present])
    scored = dict(score_row(branch, source.rule, features, ids, device, ROWS[row]))
    scored = classified(config, scored, features, annotations.classes)
    write_predictions(out, detections_of(config, annotations.classes, scored, None), details=f"wtal, row {row}")
    if extraction.failed:
        raise PartialFailure(f"{len(extraction.failed)} videos could not be read: {', '.join(extraction.failed)}")
    return 0
