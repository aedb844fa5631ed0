"""Detections against ground truth: AP by class and threshold under a named protocol, and mIoU of frames.

PREDICTIONS are detections in seconds, in any of the layouts that --format names; a run folder stands for the
detections and video scores in it. With --videos video labels are measured too, or alone where the ground truth has
no segments: from tags (`wtal tag`), the run's pooled video scores, or else from a video's best detections. The
protocol `segmental` measures a label for every frame (accuracy, edit score, F1@10/25/50).
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_extraction.errors import UserError
from wtal.commands import evaluation_inputs as inputs

if TYPE_CHECKING:
    from wtal.datasets.annotations import AnnotationSet
    from wtal.datasets.formats.frame_labels import FrameLabels
    from wtal.datasets.formats.tags import Tags
    from wtal.evaluation.classification import ClassificationResult

SEGMENTAL = "segmental"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal evaluate`."""
    parser.add_argument("predictions", type=Path, help="detections (seconds), tags, a run folder, or its scores")
    inputs.add_ground_truth(parser)
    inputs.add_protocol(parser, f", or {SEGMENTAL} (a label a frame, as ED-TCN)")
    inputs.add_tiou(parser, "the protocol's usual ones")
    parser.add_argument("--per-class", action="store_true", help="also print the AP of each class")
    parser.add_argument("--bootstrap", type=int, metavar="N", help="confidence intervals from N draws of the videos")
    inputs.add_draws(parser)
    parser.add_argument(
        "--proposals", action="store_true", help="also average recall by number of proposals, classes ignored"
    )
    parser.add_argument(
        "--videos",
        action="store_true",
        help="also mAP, GAP@20, hit@1, PERR and accuracy of video labels, by tags, the run's video scores or else best "
        "detections",
    )
    parser.add_argument("--row", default="ours", help="row of the run whose video scores to use (default: ours)")
    parser.add_argument(
        "--background", nargs="+", default=[], metavar="LABEL", help=f"labels of no action ({SEGMENTAL})"
    )
    parser.add_argument("--fps", type=float, default=25.0, help=f"frames of detections in seconds ({SEGMENTAL}; 25)")
    inputs.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Print the measures; exit code 0."""
    from wtal.config.evaluation import PROTOCOL_NAMES

    if options.protocol not in (names := (*PROTOCOL_NAMES, SEGMENTAL)):
        raise UserError(f"unknown protocol {options.protocol!r}; there are: {', '.join(names)}")
    return _segmental(options) if options.protocol == SEGMENTAL else _detection(options)


def _detection(options: argparse.Namespace) -> int:
    from wtal.evaluation.bootstrap import BootstrapSettings, intervals_of
    from wtal.evaluation.detection.protocols import assign, result_of
    from wtal.evaluation.frame_miou import detection_frame_miou
    from wtal.evaluation.proposals import average_recall
    from wtal.evaluation.tables import evaluation_table, video_labels_table

    # what is wrong with the arguments is said before anything is read
    tiou = inputs.check_options(options)
    draws = BootstrapSettings(
        1000 if options.bootstrap is None else options.bootstrap, options.confidence, options.seed
    )
    truth = inputs.read_ground_truth(options)
    annotations = truth.annotations
    tags = _tags(options)
    file, scores = (None, None) if tags is not None else _places(options)
    segments = any(video.instances for video in annotations.videos.values())
    if not segments and not options.videos:
        raise UserError(
            f"{options.ground_truth}: the ground truth has no action instance in the chosen videos; is it the right "
            "file and subset? (--videos measures video labels alone)"
        )
    if scores is not None and file is None and not options.videos:
        raise UserError(f"{options.predictions}: a folder of scores, no detections; --videos measures video labels")
    predictions = None if file is None else inputs.read_detections(file, truth, options)
    videos = None
    if options.videos:
        videos = (
            _video_labels(options, annotations, predictions, scores) if tags is None else _tagged(tags, annotations)
        )
    name = options.predictions.stem if options.table != "text" else "all classes"
    if predictions is None or not segments:
        if not segments:
            inputs.note("the ground truth has no segments; video labels alone are measured")
        elif tags is not None:
            inputs.note("tags have no times; video labels alone are measured")
        values = {"protocol": "video labels", "videos": videos.as_dict()}
        table = video_labels_table(videos, options.per_class, options.table, name)
    else:
        assignment = assign(annotations, predictions, options.protocol, tiou)
        result = result_of(assignment, options.protocol)
        frames = detection_frame_miou(annotations, predictions)
        extras = {
            "bootstrap": None if options.bootstrap is None else intervals_of(assignment, options.protocol, draws),
            "proposals": average_recall(annotations, predictions) if options.proposals else None,
            "videos": videos,
        }
        for note in result.notes:
            inputs.note(note)
        values = result.as_dict() | frames.as_dict()
        values |= {key: part.as_dict() for key, part in extras.items() if part is not None}
        table = evaluation_table(result, frames, options.per_class, **extras, style=options.table, name=name)
    inputs.show(options, values, table)
    file = file if tags is None else options.predictions
    inputs.trace(options, values, predictions=file, scores=scores if options.videos else None)
    return 0


def _places(options: argparse.Namespace) -> tuple[Path | None, Path | None]:
    """The file of detections and the folder of video scores that PREDICTIONS stands for; None for what is not
    there."""
    from wtal.inference.score_file import INDEX

    path = options.predictions
    if not path.is_dir():
        scores = path.parent / "scores" / options.row
        return path, scores if path.name == "predictions.json" and scores.is_dir() else None
    if (path / INDEX).is_file():
        return None, path
    file, scores = path / "predictions.json", path / "scores" / options.row
    if not file.is_file() and not scores.is_dir():
        raise UserError(
            f"{path}: neither a run folder with predictions.json or scores/{options.row} nor a folder of scores; "
            "run `wtal predict` first, or name a file of detections"
        )
    return (file if file.is_file() else None), (scores if scores.is_dir() else None)


def _tags(options: argparse.Namespace) -> "Tags | None":
    from wtal.datasets.formats.tags import is_tags, read_tags

    path = options.predictions
    if not path.is_file() or not is_tags(path):
        return None
    if not options.videos:
        raise UserError(f"{path}: tags say nothing of times; --videos measures video labels")
    return read_tags(path)


def _tagged(tags: "Tags", truth: "AnnotationSet") -> "ClassificationResult":
    from wtal.evaluation.classification import video_score_map

    labelled = [video_id for video_id, video in truth.videos.items() if video.labels]
    if not tags.videos.keys() & set(labelled):
        raise UserError(
            f"none of the {len(tags.videos)} tagged videos ({inputs.some(sorted(tags.videos))}) is a labelled one of "
            f"the ground truth ({inputs.some(sorted(labelled))}); write the ids as it does"
        )
    if absent := [video_id for video_id in labelled if video_id not in tags.videos]:
        inputs.note(f"no tags of {len(absent)} video(s) ({inputs.some(absent)}); their labels are missed")
    named = {label for video_id in labelled for label in truth.videos[video_id].labels}
    if not named & set(tags.classes):
        raise UserError(
            f"none of the tags' classes ({inputs.some(list(tags.classes))}) is a label of the ground truth "
            f"({inputs.some(sorted(named))}); write the labels as it does"
        )
    if foreign := sorted(set(tags.classes) - named):
        inputs.note(f"no video of the ground truth has the label {inputs.some(foreign)}, which tags name: always wrong")
    if unknown := sorted(named - set(tags.classes)):
        inputs.note(f"label {inputs.some(unknown)} of the ground truth is none of the tags' classes; it is missed")
    return video_score_map(truth, {video_id: tags.scores(video_id) for video_id in tags.videos}, tags.classes)


def _video_labels(
    options: argparse.Namespace, truth: "AnnotationSet", predictions: Any, scores: Path | None
) -> "ClassificationResult":
    from wtal.evaluation.classification import video_map, video_score_map

    if scores is None:
        inputs.note(
            f"{options.predictions}: no pooled video scores; a video's score for a class is its best detection's"
        )
        return video_map(truth, predictions)
    classes = _classes_of_run(scores, truth)
    found = _read_scores(scores, truth)
    labelled = [video_id for video_id, video in truth.videos.items() if video.labels]
    if not found.keys() & set(labelled):
        raise UserError(f"{scores}: no scores of any of the {len(labelled)} labelled videos; run `wtal predict` first")
    if absent := [video_id for video_id in labelled if video_id not in found]:
        inputs.note(f"{scores}: no scores of {len(absent)} video(s) ({inputs.some(absent)}); their labels are missed")
    if bare := len(truth.videos) - len(labelled):
        inputs.note(f"{bare} video(s) without a label are left out of the measures of video labels")
    return video_score_map(truth, found, classes)


def _read_scores(folder: Path, truth: "AnnotationSet") -> dict[str, Any]:
    from wtal.inference.score_file import ScoreFile

    file = ScoreFile(folder)
    return {video_id: file[video_id].video_C for video_id in sorted(truth.videos) if video_id in file}


def _classes_of_run(scores: Path, truth: "AnnotationSet") -> tuple[str, ...]:
    """Class names in the order of the score files: the run's, or the ground truth's where there is no run."""
    from wtal.config.load import config_of_run
    from wtal.datasets.formats.by_name import load_annotations

    run = scores.parent.parent
    if not (run / "config.yaml").is_file():
        return truth.classes
    return load_annotations(config_of_run(run).data).classes


def _segmental(options: argparse.Namespace) -> int:
    from wtal.datasets.formats.frame_labels import read_frame_labels
    from wtal.evaluation.segmental import segmental
    from wtal.evaluation.tables import segmental_table

    if not 0 < options.fps < float("inf"):
        raise UserError(f"--fps must be a number over 0, got {options.fps}")
    inputs.layouts(options)
    background = list(options.background)
    truth = read_frame_labels(options.ground_truth, "Y")
    if truth is not None:
        predicted = read_frame_labels(options.predictions, "P")
        if predicted is None:
            raise UserError(
                f"{options.predictions}: no frame labels, which the ground truth has; expected a folder of text files "
                "(a label a line), JSON {video: [label, ...]}, npz or Matlab"
            )
    else:
        truth, predicted, background = _frames_of_segments(options, background)
    if not truth.keys() & predicted.keys():
        raise UserError(
            f"{options.predictions}: none of its {len(predicted)} videos ({inputs.some(sorted(predicted))}) is in the "
            f"ground truth ({inputs.some(sorted(truth))}); write the ids as it does"
        )
    if surplus := sorted(predicted.keys() - truth.keys()):
        inputs.note(f"{len(surplus)} video(s) are not in the ground truth ({inputs.some(surplus)}) and are left out")
    result = segmental(truth, predicted, background)
    inputs.show(options, result.as_dict(), segmental_table(result, options.table))
    inputs.trace(options, result.as_dict(), predictions=options.predictions)
    return 0


def _frames_of_segments(
    options: argparse.Namespace, background: list[str]
) -> "tuple[FrameLabels, FrameLabels, list[str]]":
    """Ground truth and detections in seconds as labels of frames; what is in no segment is background."""
    from wtal.datasets.formats.frame_labels import frames_of, seconds_of

    truth = inputs.read_ground_truth(options)
    found = inputs.read_detections(options.predictions, truth, options)
    seconds = seconds_of(truth.annotations)
    background = background or ["background"]
    instances = {video_id: video.instances for video_id, video in truth.annotations.videos.items()}
    inputs.note(f"segments are cut into frames at {options.fps:g} fps; what is in none is {background[0]!r}")
    return (
        frames_of(instances, seconds, options.fps, background[0]),
        frames_of(found, seconds, options.fps, background[0]),
        background,
    )
