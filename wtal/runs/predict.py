"""`wtal predict` as functions: scores of a run's rows, detections of one of them, and their measure where truth is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_extraction.errors import PartialFailure, UserError
from feature_extraction.files import write_json
from feature_extraction.networks.towers import pick_device
from wtal.config.inference import expand_assignments
from wtal.config.load import Config
from wtal.config.strict import build, override, plain
from wtal.datasets.annotations import AnnotationSet, Detection, write_predictions
from wtal.datasets.features import FeatureSet, available, open_features
from wtal.datasets.formats.by_name import load_annotations
from wtal.datasets.splits import split
from wtal.inference.detect import detect
from wtal.inference.scores import VideoScores
from wtal.models.build import build_branches
from wtal.runs.measure import measure, summary_of
from wtal.runs.new_videos import extract_streams, extractions_of
from wtal.runs.rows import row_sources, score_rows, write_scores
from wtal.training.folder import ROWS, RunFolder

if TYPE_CHECKING:
    from wtal.training.video_classifier import TrainedVideoClassifier


def changed(config: Config, overrides: Sequence[str]) -> Config:
    """A run's configuration with changes that prediction may make: `inference.*`, `evaluation.*`, `training.device`."""
    for assignment in overrides:
        if not assignment.startswith(("inference.", "evaluation.", "training.device=")):
            raise UserError(f"{assignment!r}: prediction takes inference.*, evaluation.* and training.device only")
    return build(Config, override(plain(config), expand_assignments(overrides)))


def predict_run(run: RunFolder, out: Path, row: str, overrides: Sequence[str], store: Path | None) -> int:
    """Score all rows on the evaluation videos, write the detections of `row` to `out`, and measure what can be.

    Without `overrides` and from the run's own features the run folder's `predictions.json` and `summary.json` are
    written too; otherwise it is left as it is, because a report of it should show the run's own settings. With
    another feature `store` neither its scores are read nor any written. Returns 0, or raises `PartialFailure` at
    the end where evaluation videos have no features (with `data.missing: skip`).
    """
    config = changed(run.config(), overrides)
    check_row(config, row)
    own_store = store is None or store.resolve() == Path(config.data.features).resolve()
    features = open_features(config, store)
    annotations = load_annotations(config.data)
    ids, missing = available(features, sorted(split(annotations, config.data).test.videos), config.data.missing)
    branches = build_branches(config, features, annotations.classes)
    device = pick_device(config.training.device)
    if own_store:
        write_scores(config, run, branches, features, ids, device)
        rows = {name: load_scores(run, name, ids) for name in row_sources(config)}
    else:
        rows = score_rows(config, run, branches, features, ids, device, rows_for(config, row))
    rows = {name: classified(config, scores, features, annotations.classes) for name, scores in rows.items()}
    detections = detections_of(config, annotations.classes, rows[row], fused_with(config, rows))
    write_predictions(out, detections, details=f"wtal, row {row}")
    if own_store and not overrides:
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
    """Raise `UserError` for a row that this run does not have, and for fusion where it has one branch alone."""
    sources = row_sources(config)
    if row not in sources:
        raise UserError(f"row {row!r} is not one of this run's: {', '.join(sources)}")
    if config.inference.fusion != "none" and other_row(config) is None:
        raise UserError(
            f"inference.fusion={config.inference.fusion} needs the scores of both branches, and this run has the CBP "
            "branch alone; set inference.fusion=none"
        )


def other_row(config: Config) -> str | None:
    """The row that settings with fusion fuse with: the trained VLP, else frozen CLIP, else none."""
    sources = row_sources(config)
    return next((row for row in ("vlp", "vlp_raw") if row in sources), None)


def rows_for(config: Config, row: str) -> list[str]:
    """The rows behind the detections of `row`: itself, and with fusion the one that it is fused with."""
    second = other_row(config) if config.inference.fusion != "none" else None
    return list(dict.fromkeys([row, *([second] if second else [])]))


def fused_with(config: Config, rows: Mapping[str, dict[str, VideoScores]]) -> dict[str, VideoScores] | None:
    """Of scored rows the one that settings with fusion fuse with; None where it was not scored."""
    second = other_row(config)
    return rows.get(second) if second else None


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
    from wtal.training.video_classifier import replace_video_scores

    classifier = open_video_classifier(config)
    return replace_video_scores(scores, classifier, features, tuple(classes), settings.video_classifier_weight)


def open_video_classifier(config: Config) -> "TrainedVideoClassifier":
    """The classifier that `inference.video_classifier` names. Raises `UserError` for a folder that holds none."""
    from wtal.training.video_classifier import load_video_classifier

    return load_video_classifier(Path(config.inference.video_classifier))


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
    # in a negative every detection is false
    videos = {i: annotations.videos[i] for i in ids if i in videos or annotations.videos[i].negative}
    truth = AnnotationSet(annotations.classes, videos)
    other = fused_with(config, rows)
    measured = {row: measure(config, truth, rows[row], other) for row in ROWS if row in rows}
    summary = summary_of(config, truth, measured)
    write_json(run.summary, summary)
    return summary


def predict_videos(
    run: RunFolder, videos: Sequence[Path], out: Path, row: str, overrides: Sequence[str], store: Path | None
) -> int:
    """Extract features of new videos with the run's extraction settings and write their detections to `out`.

    Features are kept beside the run (`features-new/`) so that a second call is quick. What can be told without them
    is refused before anything is extracted. Videos that cannot be read are named by a `PartialFailure` after the
    others are written.
    """
    config = changed(run.config(), overrides)
    check_row(config, row)
    rows = rows_for(config, row)
    extractions = extractions_of(config)
    annotations = load_annotations(config.data)
    sources = row_sources(config, run)
    for checkpoint in (sources[name].checkpoint for name in rows):
        if checkpoint is not None and not (run.checkpoints / f"{checkpoint}.pt").is_file():
            raise UserError(f"{run.checkpoints / checkpoint}.pt: no such checkpoint; has `wtal train` got that far?")
    device = pick_device(config.training.device)
    if config.inference.video_classifier:
        open_video_classifier(config)
    features, ids, failed = extract_streams(videos, store or run.path / "features-new", extractions)
    branches = build_branches(config, features, annotations.classes)
    scored = {
        name: classified(config, scores, features, annotations.classes)
        for name, scores in score_rows(config, run, branches, features, ids, device, rows).items()
    }
    detections = detections_of(config, annotations.classes, scored[row], fused_with(config, scored))
    write_predictions(out, detections, details=f"wtal, row {row}")
    if failed:
        raise PartialFailure(f"{len(failed)} videos could not be read: {', '.join(failed)}")
    return 0
