"""A folder of videos and a table of labels to annotations and a configuration that says what it chose and
why.

Legend: nothing here is an array.
"""

import dataclasses
import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write
from feature_extraction.listing import VideoFile, list_videos
from feature_extraction.store import encode_id
from feature_extraction.video import UnreadableVideo, VideoInfo, probe
from wtal.datasets.annotations import AnnotationSet, VideoAnnotation, read_activitynet, write_activitynet
from wtal.datasets.splits import hold_out
from wtal.datasets.weak_labels import read_csv, read_jsonl, video_name

TEST_SHARE = 0.2
"""Share of the labelled videos that are kept from training."""
FEW = 3
"""A class with fewer training videos than this is pointed out."""


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
) -> Prepared:
    """Check the videos of `folder` against the table `labels`, split them, write annotations and the file
    `config`.

    `labels` is CSV or JSONL with a column of videos and one of labels (rows of one video add up); `segments`
    is ActivityNet JSON with ground truth for some of the videos. `towers`: `public` networks, the small
    `shipped` ones, or `auto`: public where their weights are on this machine. Raises `UserError` for a label
    of a video that is not there, for no label at all, and for a `config` that exists.
    """
    annotations_file = config.with_name(f"{config.stem}-annotations.json")
    for path in (config, annotations_file):
        if path.exists():
            raise UserError(f"{path}: there already; delete it, or name another configuration with --out")
    table = (read_jsonl if labels.suffix.lower() in (".jsonl", ".json") else read_csv)(labels)
    files = list_videos(folder)
    named = match_videos(table.videos, files, folder, labels)
    infos, unreadable = probe_all(files)
    if not infos:
        raise UserError(f"{folder}: none of the {len(files)} videos can be read; the first: {unreadable[0]}")
    truth = read_activitynet(segments) if segments else None
    annotations, notes = annotate(named, table, infos, truth, seed)
    write_activitynet(annotations_file, annotations)
    chosen, why = choose_towers(towers)
    sections = configuration(folder, annotations_file, annotations, config, chosen, why, seed)
    with atomic_write(config, "w") as stream:
        stream.write(as_yaml(sections, config))
    return Prepared(config, annotations_file, tuple(notes), tuple(unreadable))


def match_videos(wanted: Iterable[str], files: list[VideoFile], folder: Path, labels: Path) -> dict[str, str]:
    """Name in the table -> id of the video. A name may be the path below the folder or, where only one video
    is called so, the file's name alone. Raises `UserError` naming and counting what is not there."""
    root = folder.resolve()
    by_id = {file.id for file in files}
    by_path = {_below(file.path, root): file.id for file in files}
    by_stem: dict[str, list[str]] = {}
    for file in files:
        by_stem.setdefault(video_name(file.path.name), []).append(file.id)
    found, missing = {}, []
    for name in wanted:
        alone = by_stem.get(name.rsplit("/", 1)[-1], [])
        match = by_path.get(name) or (encode_id(name) if encode_id(name) in by_id else None)
        match = match or (name if name in by_id else None) or (alone[0] if len(alone) == 1 else None)
        if match is None:
            missing.append(f"{name} (several are called so)" if len(alone) > 1 else name)
        elif match in found.values():
            raise UserError(f"{labels}: {name!r} and another row name the same video; use one name for it")
        else:
            found[name] = match
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UserError(f"{labels}: {len(missing)} videos are not in {folder}: {shown}; correct the table")
    return found


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
    """Labels, subsets and known segments of every readable video. Unlabelled videos can only be predicted
    on."""
    given = {
        named[name]: video for name, video in table.videos.items() if named[name] in infos and video.labels
    }
    if not given:
        raise UserError("no readable video has a label; training needs some")
    unlabelled = [video_id for video_id in infos if video_id not in given]
    notes = []
    if len({video.subset for video in given.values()}) > 1:
        subset = {video_id: video.subset for video_id, video in given.items()}
        test_names = sorted(set(subset.values()) - {"training"})
        notes.append(f"subsets are the table's: training, and for test {', '.join(test_names)}")
        subset = {video_id: name if name == "training" else "validation" for video_id, name in subset.items()}
    else:
        bare = {video_id: dataclasses.replace(video, instances=()) for video_id, video in given.items()}
        held = hold_out(AnnotationSet(table.classes, bare), TEST_SHARE, seed)
        subset = {video_id: "validation" if video_id in held else "training" for video_id in given}
        notes.append(
            f"{len(held)} of {len(given)} labelled videos are kept from training, spread over the classes"
        )
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
        raise UserError(
            f"{len(training)} videos would train and {test} would be predicted on; add videos without "
            "label, more labelled ones of a class, or a column 'subset' (training, validation)"
        )
    counts = {name: sum(name in video.labels for video in training) for name in table.classes}
    if few := [f"{name[:40]} ({count})" for name, count in counts.items() if count < FEW]:
        notes.append(
            f"classes with fewer than {FEW} training videos, which will be learnt badly: {_some(few)}"
        )
    annotated = sum(bool(video.instances) for video in videos.values() if video.subset == "validation")
    notes.append(
        f"{annotated} of {test} test videos have ground-truth segments; mAP is measured on them"
        if annotated
        else "no ground-truth segments: there will be detections, but no mAP"
    )
    extra = sorted({i.label for video in videos.values() for i in video.instances} - set(table.classes))
    if extra:
        raise UserError(
            f"the segments name {extra[0]!r}, which no video is labelled with; correct one of the two"
        )
    return AnnotationSet(table.classes, videos), notes


def choose_towers(wanted: str) -> tuple[str, str]:
    """`public` or `shipped`, and why."""
    from feature_extraction import weights
    from wtal.doctor import public_clip

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
    reason = (
        "as asked for"
        if wanted == "shipped"
        else f"because {', '.join(lacking)} weights are not on this machine"
    )
    return "shipped", (
        f"The small networks that come with wtal, {reason}. They were trained on rendered figures: quick, "
        "but weak on real videos. For real work: `wtal weights fetch i3d-rgb i3d-flow` and `wtal init` with "
        "`--towers public`."
    )


Section = tuple[str, dict[str, Any], str]


def configuration(
    folder: Path,
    annotations_file: Path,
    annotations: AnnotationSet,
    config: Path,
    towers: str,
    why: str,
    seed: int,
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
        from wtal.config import read_yaml
        from wtal.shipped import config_file

        shipped = read_yaml(config_file("sandbox"))
        reasons = {"extraction": why, "optimizer": "As for the built-in sandbox, whose networks these are."}
        for name in ("extraction", "cbp", "vlp", "optimizer"):
            if name in shipped:
                sections.append(
                    (name, dict(shipped[name]), reasons.get(name, "Sized for the small networks."))
                )
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
            (
                "inference",
                rule,
                "Videos may have several classes: those are kept whose video score is near the best's.",
            )
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


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
