"""A folder of videos and a table of labels to annotations and a configuration that says what it chose and why.

Legend: nothing here is an array.
"""

import dataclasses
import math
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write
from feature_extraction.store.grid import TimeGrid
from feature_extraction.store.stream import encode_id
from feature_extraction.video.listing import VideoFile, list_videos
from feature_extraction.video.read import UnreadableVideo, VideoInfo, probe
from wtal.datasets.annotations import AnnotationSet, VideoAnnotation, read_activitynet, write_activitynet
from wtal.datasets.check import check_annotations
from wtal.datasets.formats.weak_labels import read_csv, read_jsonl, video_name
from wtal.datasets.splits import hold_out

TEST_SHARE = 0.2
"""Share of the labelled videos that are kept from training."""
FEW = 3
"""A class with fewer training videos than this is pointed out."""
SUBSETS = {
    # what a table may call a subset, in any letter case: what it becomes
    "training": "training",
    "train": "training",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "testing": "validation",
    "test": "validation",
}
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
    folder: Path, labels: Path, config: Path, segments: Path | None = None, towers: str = "auto", seed: int = 0
) -> Prepared:
    """Check the videos of `folder` against the table `labels`, split them, write annotations and the file `config`.

    `labels` is CSV or JSONL with a column of videos and one of labels (rows of one video add up); `segments`
    is ActivityNet JSON with ground truth for some of the videos. `towers`: `public` networks, the small
    `shipped` ones, or `auto`: public where their weights are on this machine. Raises `UserError` for a label
    of a video that is not there, for no label at all, for a subset that is none of `SUBSETS`, for segments of
    other videos only, for a seed that training refuses, and for a `config` that exists.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"seed must be from 0 to 2^63 - 1, got {seed}")
    annotations_file = config.with_name(f"{config.stem}-annotations.json")
    for path in (config, annotations_file):
        if path.exists():
            raise UserError(f"{path}: there already; delete it, or name another configuration with --out")
    read = read_jsonl if labels.suffix.lower() in (".jsonl", ".json") else read_csv
    table = with_known_subsets(read(labels, default_subset=""), labels)
    files = list_videos(folder)
    named = match_videos(table.videos, files, folder, labels)
    truth, unmatched = known_segments(segments, files, folder) if segments else (None, [])
    infos, unreadable = probe_all(files)
    if not infos:
        raise UserError(f"{folder}: none of the {len(files)} videos can be read; the first: {unreadable[0]}")
    annotations, notes = annotate(named, table, infos, truth, seed)
    if unmatched:
        notes.append(f"{segments}: {len(unmatched)} videos are not in {folder}: {_some(unmatched)}")
    grid = TimeGrid(25.0, 16, 16)  # of no weight: the findings that depend on it are left out
    for finding in check_annotations(annotations, grid):
        if finding.name not in KNOWN_ODD:
            details = [f"{key}: {detail}" for key, detail in finding.details.items()]
            notes.append(f"check: {finding.count} {finding.text}: {_some(details, '; ')}")
    write_activitynet(annotations_file, annotations)
    chosen, why = choose_towers(towers)
    sections = configuration(folder, annotations_file, annotations, config, chosen, why, seed)
    with atomic_write(config, "w") as stream:
        stream.write(as_yaml(sections, config))
    return Prepared(config, annotations_file, tuple(notes), tuple(unreadable))


def with_known_subsets(table: AnnotationSet, labels: Path) -> AnnotationSet:
    """The table with the names of `SUBSETS` made "training" and "validation"; "" stays. Raises `UserError` for
    any other name."""
    videos = {}
    for video_id, video in table.videos.items():
        subset = SUBSETS.get(video.subset.lower(), "")
        if video.subset and not subset:
            raise UserError(
                f"{labels}: video {video_id!r} is in subset {video.subset!r}; `wtal init` knows {', '.join(SUBSETS)}"
            )
        videos[video_id] = dataclasses.replace(video, subset=subset)
    return AnnotationSet(table.classes, videos)


def known_segments(segments: Path, files: list[VideoFile], folder: Path) -> tuple[AnnotationSet, list[str]]:
    """Ground truth by the ids of the videos in `folder`, and the names in it that no video there has."""
    truth = read_activitynet(segments)
    names = {name: video_name(name) for name in truth.videos}
    found, missing = _match(names.values(), files, folder, segments)
    if truth.videos and not found:
        raise UserError(
            f"{segments}: none of its {len(names)} videos is in {folder}: {_some(missing)}; "
            "name videos by their path below the folder"
        )
    videos = {found[name]: truth.videos[key] for key, name in names.items() if name in found}
    return AnnotationSet(truth.classes, videos), missing


def match_videos(wanted: Iterable[str], files: list[VideoFile], folder: Path, labels: Path) -> dict[str, str]:
    """Name in the table -> id of the video. A name may be the path below the folder or, where only one video
    is called so, the file's name alone. Raises `UserError` naming and counting what is not there."""
    found, missing = _match(wanted, files, folder, labels)
    if missing:
        raise UserError(f"{labels}: {len(missing)} videos are not in {folder}: {_some(missing)}; correct the table")
    return found


def _match(
    wanted: Iterable[str], files: list[VideoFile], folder: Path, source: Path
) -> tuple[dict[str, str], list[str]]:
    root = folder.resolve()
    by_id = _by_name((file.id, file.id) for file in files)
    by_path = _by_name((_below(file.path, root), file.id) for file in files)
    by_stem: dict[str, list[str]] = {}
    for file in files:
        by_stem.setdefault(_composed(video_name(file.path.name)), []).append(file.id)
    found, missing = {}, []
    for name in wanted:
        alone = by_stem.get(_composed(name.rsplit("/", 1)[-1]), [])
        forms = (name, _composed(name))
        places = [by_path.get(form) for form in forms]
        places += [by_id.get(form) or by_id.get(encode_id(form)) for form in forms]
        places += alone if len(alone) == 1 else []
        match = next((place for place in places if place is not None), None)
        if match is None:
            missing.append(f"{name} (several are called so)" if len(alone) > 1 else name)
        elif match in found.values() or name in found:
            raise UserError(f"{source}: {name!r} and another row name the same video; use one name for it")
        else:
            found[name] = match
    return found, missing


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    # Some systems write an accented letter as letter and accent, tables mostly as one sign: composed names are
    # found too, and a name that is exactly the same comes first.
    exact = dict(pairs)
    return {_composed(name): video_id for name, video_id in exact.items()} | exact


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def probe_all(files: Iterable[VideoFile]) -> tuple[dict[str, VideoInfo], list[str]]:
    """Facts of every readable video by id, and a line for every other."""
    infos, unreadable = {}, []
    for file in files:
        try:
            infos[file.id] = probe(file.path)
        except UnreadableVideo as error:
            unreadable.append(f"{file.path.name}: {error}")
    return infos, unreadable


def annotate(
    named: Mapping[str, str],
    table: AnnotationSet,
    infos: Mapping[str, VideoInfo],
    truth: AnnotationSet | None,
    seed: int,
) -> tuple[AnnotationSet, list[str]]:
    """Labels, subsets and known segments of every readable video. Unlabelled videos can only be predicted on."""
    given = {named[name]: video for name, video in table.videos.items() if named[name] in infos and video.labels}
    if not given:
        raise UserError("no readable video has a label; training needs some")
    unlabelled = [video_id for video_id in infos if video_id not in given]
    notes = []
    by_table = any(video.subset for video in table.videos.values())
    if by_table:
        subset = {video_id: video.subset or "training" for video_id, video in given.items()}
        blank = sum(not video.subset for video in given.values())
        count = sum(name == "training" for name in subset.values())
        notes.append(
            f"subsets are the table's: {count} of {len(given)} labelled videos train, {len(given) - count} are for test"
            + (f"; {blank} without one train" if blank else "")
        )
    else:
        bare = {video_id: dataclasses.replace(video, instances=()) for video_id, video in given.items()}
        held = hold_out(AnnotationSet(table.classes, bare), TEST_SHARE, seed)
        subset = {video_id: "validation" if video_id in held else "training" for video_id in given}
        notes.append(f"{len(held)} of {len(given)} labelled videos are kept from training, spread over the classes")
    known = {} if truth is None else truth.videos
    videos = {}
    for video_id, info in infos.items():
        instances = known[video_id].instances if video_id in known else ()
        if video_id in given and not instances:
            instances = given[video_id].instances
        own = tuple(given[video_id].labels) if video_id in given else ()
        videos[video_id] = VideoAnnotation(
            video_id, subset.get(video_id, "validation"), own, instances, info.duration or None
        )
    test = sum(video.subset == "validation" for video in videos.values())
    training = [video for video in videos.values() if video.subset == "training"]
    if unlabelled:
        notes.append(f"without label, only predicted on: {_some(unlabelled)} ({len(unlabelled)} in all)")
    if not training or not test:
        advice = (
            f"put some into subset {'validation' if training else 'training'}, or take the column 'subset' out"
            if by_table
            else "add videos without label, more labelled ones of a class, or a column 'subset' (training, validation)"
        )
        raise UserError(f"{len(training)} videos would train and {test} would be predicted on; {advice}")
    counts = {name: sum(name in video.labels for video in training) for name in table.classes}
    if few := [f"{name[:40]} ({count})" for name, count in counts.items() if count < FEW]:
        notes.append(f"classes with fewer than {FEW} training videos, which will be learnt badly: {_some(few)}")
    annotated = sum(bool(video.instances) for video in videos.values() if video.subset == "validation")
    notes.append(
        f"{annotated} of {test} test videos have ground-truth segments; mAP is measured on them"
        if annotated
        else "no ground-truth segments: there will be detections, but no mAP"
    )
    extra = sorted({i.label for video in videos.values() for i in video.instances} - set(table.classes))
    if extra:
        raise UserError(f"the segments name {extra[0]!r}, which no video is labelled with; correct one of the two")
    return AnnotationSet(table.classes, videos), notes


def choose_towers(wanted: str) -> tuple[str, str]:
    """`public` or `shipped`, and why."""
    from feature_extraction.networks import weights
    from feature_extraction.networks.clip_models import public_clip

    lacking = [name for name in ("i3d-rgb", "i3d-flow") if weights.find(name) is None]
    if public_clip() is None:
        lacking.append("CLIP")
    if wanted == "public":
        return (
            "public",
            "Kinetics I3D and CLIP ViT-B/16, as asked for; what is missing is downloaded at the first use.",
        )
    if wanted == "auto" and not lacking:
        return "public", "Kinetics I3D and CLIP ViT-B/16: their weights are on this machine."
    reason = "as asked for" if wanted == "shipped" else f"because {', '.join(lacking)} weights are not on this machine"
    return "shipped", (
        f"The small networks that come with wtal, {reason}. They were trained on rendered figures: quick, "
        "but weak on real videos. For real work: `wtal weights fetch i3d-rgb i3d-flow` and `wtal init` with "
        "`--towers public`."
    )


Section = tuple[str, dict[str, Any], str]


def configuration(
    folder: Path, annotations_file: Path, annotations: AnnotationSet, config: Path, towers: str, why: str, seed: int
) -> list[Section]:
    """(section, settings, why) in the order of the file. Settings that are not named keep their defaults."""
    videos = annotations.videos.values()
    training = [video for video in videos if video.subset == "training"]
    place = config.absolute().parent
    sections: list[Section] = [
        ("out", {"out": str(place / "runs" / config.stem)}, "The run folder."),
        ("seed", {"seed": seed}, "Everything random in training."),
        (
            "data",
            {
                "videos": str(folder.resolve()),
                "annotations": str(annotations_file.absolute()),
                "features": str(place / "features" / config.stem),
                "missing": "skip",
            },
            f"{len(training)} videos train, {len(videos) - len(training)} are predicted on. A video "
            "that cannot be read is left out and named, so that one broken file does not stop the run.",
        ),
    ]
    if towers == "shipped":
        from wtal.config.shipped import config_file
        from wtal.config.strict import read_yaml

        shipped = read_yaml(config_file("sandbox"))
        reasons = {"extraction": why, "optimizer": "As for the built-in sandbox, whose networks these are."}
        for name in ("extraction", "cbp", "vlp", "optimizer"):
            if name in shipped:
                sections.append((name, dict(shipped[name]), reasons.get(name, "Sized for the small networks.")))
        grid = (float(shipped["extraction"].get("fps", 25)), int(shipped["extraction"].get("stride", 16)))
    else:
        sections.append(("extraction", {"fps": 25.0, "window": 16, "stride": 16}, why))
        sections.append(("optimizer", {}, ""))
        grid = (25.0, 16)
    longest = max((video.duration or 0.0) for video in training)
    snippets = min(1000, max(64, math.ceil(longest * grid[0] / grid[1])))
    optimizer = next(values for name, values, _ in sections if name == "optimizer")
    optimizer |= {"batch": min(10, len(training)), "snippets": snippets}
    place_of = [name for name, _, _ in sections].index("optimizer")
    sections[place_of] = (
        "optimizer",
        optimizer,
        f"Batches of {optimizer['batch']} videos; {snippets} snippets of a video at a time, because the "
        f"longest training video has {longest:.0f} s.",
    )
    if all(len(video.labels) == 1 for video in training):
        rule = {"class_rule": "top", "class_top": 1}
        sections.append(("inference", rule, "Every training video has one class, so each video gets one."))
    else:
        rule = {"class_rule": "relative", "class_threshold": 0.3}
        sections.append(
            ("inference", rule, "Videos may have several classes: those are kept whose video score is near the best's.")
        )
    return sections


def as_yaml(sections: Iterable[Section], config: Path) -> str:
    """The file's text: a comment that says why above every section."""
    parts = [f"# Made by `wtal init`. To train and predict: wtal run {config.name}\n"]
    for name, values, why in sections:
        if not values:
            continue
        parts.append("".join(f"# {line}\n" for line in textwrap.wrap(why, 100)))
        content = values if name in values else {name: values}
        parts[-1] += yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return "\n".join(parts)


def _below(path: Path, root: Path) -> str:
    try:
        return video_name(path.relative_to(root).as_posix())
    except ValueError:  # a link that leads elsewhere
        return video_name(path.name)


def _some(names: list[str], between: str = ", ") -> str:
    return between.join(names[:5]) + (f"{between}..." if len(names) > 5 else "")
