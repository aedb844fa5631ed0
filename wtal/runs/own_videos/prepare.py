"""A folder of videos and a table of labels to annotations and a configuration that says what it chose and
why.

Legend: nothing here is an array.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write
from feature_extraction.store.grid import TimeGrid
from feature_extraction.store.ids import plain_id
from feature_extraction.video.listing import VideoFile, list_videos
from feature_extraction.video.read import UnreadableVideo, VideoInfo, probe
from wtal.datasets.annotations import AnnotationSet, VideoAnnotation, read_activitynet, write_activitynet
from wtal.datasets.check import check_annotations
from wtal.datasets.formats.weak_labels import video_name
from wtal.runs.own_videos.configure import as_yaml, choose_towers, configuration
from wtal.runs.own_videos.split import folder_groups, split_videos
from wtal.runs.own_videos.table import LabelTable, match, match_videos, read_label_table, some

FEW = 3
"""A class with fewer training videos than this is pointed out."""
KNOWN_ODD = ("no_label", "zero_after_rounding")
"""Findings of `check_annotations` that are told otherwise, or depend on a protocol that nobody asked for."""


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made."""

    config: Path
    annotations: Path
    notes: tuple[str, ...]
    """What the user should know, one line each."""
    unreadable: tuple[str, ...]
    """Video files that cannot be read and were left out."""


def prepare(
    folder: Path,
    labels: Path,
    config: Path,
    segments: Path | None = None,
    towers: str = "auto",
    seed: int = 0,
    negative: Sequence[str] = (),
    by_folder: bool = False,
) -> Prepared:
    """Check the videos of `folder` against the table `labels`, split them, write annotations and the file
    `config`.

    `labels` is CSV or JSONL with a column of videos and one of labels (rows of one video add up); videos with an empty
    label, or a label of `negative`, are negatives. A column `group`, or with `by_folder` the folder, says which videos
    stay together in the split. `segments` is ActivityNet JSON with ground truth for some of the videos. `towers`:
    `public` networks, the small `shipped` ones, or `auto`: public where their weights are on this machine. Raises
    `UserError` for a label of a video that is not there, for no label at all, for a subset that is none of `SUBSETS`,
    for segments of other videos only, for public towers without weights, for a seed that training refuses, and for a
    `config` that exists.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"seed must be from 0 to 2^63 - 1, got {seed}")
    annotations_file = config.with_name(f"{config.stem}-annotations.json")
    for path in (config, annotations_file):
        if path.exists():
            raise UserError(f"{path}: there already; delete it, or name another configuration with --out")
    chosen, why = choose_towers(towers)
    table = read_label_table(labels, negative)
    files = list_videos(folder)
    named = match_videos(table.labels.videos, files, folder, labels)
    truth, unmatched = known_segments(segments, files, folder) if segments else (None, [])
    infos, unreadable = probe_all(files)
    if not infos:
        raise UserError(f"{folder}: none of the {len(files)} videos can be read; the first: {unreadable[0]}")
    annotations, notes = annotate(named, table, infos, truth, seed, by_folder)
    if unmatched:
        notes.append(f"{segments}: {len(unmatched)} videos are not in {folder}: {some(unmatched)}")
    grid = TimeGrid(25.0, 16, 16)  # of no weight: the findings that depend on it are left out
    for finding in check_annotations(annotations, grid):
        if finding.name not in KNOWN_ODD:
            details = [f"{key}: {detail}" for key, detail in finding.details.items()]
            notes.append(f"check: {finding.count} {finding.text}: {some(details, '; ')}")
    if chosen == "shipped":
        notes.append(f"networks: {why}")
    write_activitynet(annotations_file, annotations)
    sections = configuration(folder, annotations_file, annotations, config, chosen, why, seed)
    with atomic_write(config, "w") as stream:
        stream.write(as_yaml(sections, config))
    return Prepared(config, annotations_file, tuple(notes), tuple(unreadable))


def known_segments(segments: Path, files: list[VideoFile], folder: Path) -> tuple[AnnotationSet, list[str]]:
    """Ground truth by the ids of the videos in `folder`, and the names in it that no video there has."""
    truth = read_activitynet(segments)
    names = {name: video_name(name) for name in truth.videos}
    found, missing = match(names.values(), files, folder, segments)
    if truth.videos and not found:
        raise UserError(
            f"{segments}: none of its {len(names)} videos is in {folder}: {some(missing)}; "
            "name videos by their path below the folder"
        )
    videos = {found[name]: truth.videos[key] for key, name in names.items() if name in found}
    return AnnotationSet(truth.classes, videos), missing


def probe_all(files: Iterable[VideoFile]) -> tuple[dict[str, VideoInfo], list[str]]:
    """Facts of every readable video by id (the form for people), and a line for every other."""
    infos, unreadable = {}, []
    for file in files:
        try:
            infos[plain_id(file.id)] = probe(file.path)
        except UnreadableVideo as error:
            suffix = "" if file.id.endswith(file.path.suffix) else file.path.suffix
            unreadable.append(f"{plain_id(file.id)}{suffix}: {error}")
    return infos, unreadable


def annotate(
    named: Mapping[str, str],
    table: LabelTable,
    infos: Mapping[str, VideoInfo],
    truth: AnnotationSet | None,
    seed: int,
    by_folder: bool = False,
) -> tuple[AnnotationSet, list[str]]:
    """Labels, subsets and known segments of every readable video. Videos without a label, and no negatives, can only be
    predicted on."""
    classes = table.labels.classes
    given = {
        named[name]: video
        for name, video in table.labels.videos.items()
        if named[name] in infos and (video.labels or video.negative)
    }
    if not any(video.labels for video in given.values()):
        raise UserError("no readable video has a label; training needs some")
    groups = {named[name]: group for name, group in table.groups.items()}
    if by_folder:
        groups |= folder_groups(given)
    groups = {video_id: group for video_id, group in groups.items() if video_id in given}
    subset, notes = split_videos(given, classes, groups, seed)
    notes = [*table.notes, *notes]
    known = {} if truth is None else truth.videos
    videos = {}
    for video_id, info in infos.items():
        own = given.get(video_id)
        instances = known[video_id].instances if video_id in known else ()
        if own is not None and own.negative and instances:
            raise UserError(
                f"video {video_id!r} is a negative in the table, but has segments of {instances[0].label!r}; correct "
                "one of the two"
            )
        if own is not None and not instances:
            instances = own.instances
        videos[video_id] = VideoAnnotation(
            video_id,
            subset.get(video_id, "validation"),
            own.labels if own else (),
            instances,
            info.duration or None,
            negative=own is not None and own.negative,
        )
    unlabelled = [video_id for video_id in infos if video_id not in given]
    if unlabelled:
        notes.append(f"without label, only predicted on: {some(unlabelled)} ({len(unlabelled)} in all)")
    _check_sides(videos, any(video.subset for video in given.values()), bool(groups))
    extra = sorted({i.label for video in videos.values() for i in video.instances} - set(classes))
    if extra:
        raise UserError(f"the segments name {extra[0]!r}, which no video is labelled with; correct one of the two")
    return AnnotationSet(classes, videos), [*notes, *_what_there_is(videos, classes)]


def _check_sides(videos: Mapping[str, VideoAnnotation], by_table: bool, grouped: bool) -> None:
    """Raise `UserError` where none would train or none would be predicted on."""
    training = [video for video in videos.values() if video.subset == "training" and video.labels]
    test = sum(video.subset == "validation" for video in videos.values())
    if training and test:
        return
    if by_table:
        advice = f"put some into subset {'validation' if training else 'training'}, or take the column 'subset' out"
    elif grouped:
        advice = "no group can be taken out of training as a whole; make smaller groups, or give a column 'subset'"
    else:
        advice = "add videos without label, more labelled ones of a class, or a column 'subset' (training, validation)"
    raise UserError(f"{len(training)} videos would train and {test} would be predicted on; {advice}")


def _what_there_is(videos: Mapping[str, VideoAnnotation], classes: Sequence[str]) -> Iterable[str]:
    training = [video for video in videos.values() if video.subset == "training"]
    test = [video for video in videos.values() if video.subset == "validation"]
    negatives = [sum(video.negative for video in side) for side in (training, test)]
    if any(negatives):
        yield (
            f"negatives, in which none of the classes happens: {negatives[0]} train, {negatives[1]} are for test; "
            "give an empty label only to videos that somebody looked through"
        )
    if len(classes) == 1 and not negatives[0]:
        yield (
            f"every training video is labelled {classes[0]!r} and none is a negative: labels then cannot tell the "
            "action from anything else. Name videos without it in the table, with an empty label (or a label of "
            "their own and --negative LABEL)"
        )
    counts = Counter(label for video in training for label in video.labels)
    if few := [f"{name[:40]} ({counts[name]})" for name in classes if counts[name] < FEW]:
        yield f"classes with fewer than {FEW} training videos, which will be learnt badly: {some(few)}"
    annotated = sum(bool(video.instances) for video in test)
    yield (
        f"{annotated} of {len(test)} test videos have ground-truth segments; mAP is measured on them"
        + (f" and on the {negatives[1]} negatives" if negatives[1] else "")
        if annotated
        else "no ground-truth segments: there will be detections, but no mAP"
    )
