"""Which of the user's videos train and which are for test; recordings that belong together stay together.

Legend: nothing here is an array.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet, VideoAnnotation
from wtal.datasets.splits import hold_out
from wtal.runs.own_videos.table import some

TEST_SHARE = 0.2
"""Share of the labelled videos that are kept from training."""


def split_videos(
    given: Mapping[str, VideoAnnotation], classes: tuple[str, ...], groups: Mapping[str, str], seed: int
) -> tuple[dict[str, str], list[str]]:
    """Subset ("training", "validation") of each labelled video, and what the user should know of the split.

    The table's own subsets where it names one; else a fifth is kept from training, spread over the classes (and the
    negatives), groups whole.
    """
    if any(video.subset for video in given.values()):
        subset = {video_id: video.subset or "training" for video_id, video in given.items()}
        blank = sum(not video.subset for video in given.values())
        count = sum(name == "training" for name in subset.values())
        notes = [
            f"subsets are the table's: {count} of {len(given)} labelled videos train, {len(given) - count} are for test"
            + (f"; {blank} without one train" if blank else "")
        ]
        torn = sorted({g for v, g in groups.items() if v in subset} - _whole(subset, groups))
        if torn:
            notes.append(f"groups with videos in both subsets: {some(torn)}; what is learnt of one is tested on itself")
    else:
        bare = {video_id: dataclasses.replace(video, instances=()) for video_id, video in given.items()}
        held = hold_out(AnnotationSet(classes, bare), TEST_SHARE, seed, groups)
        subset = {video_id: "validation" if video_id in held else "training" for video_id in given}
        together = len({groups[video_id] for video_id in given if video_id in groups})
        notes = [
            f"{len(held)} of {len(given)} labelled videos are kept from training, spread over the classes"
            + (f"; the {together} groups stay whole" if together else "")
        ]
    return subset, [*notes, *near_duplicates(subset, groups)]


def _whole(subset: Mapping[str, str], groups: Mapping[str, str]) -> set[str]:
    sides: dict[str, set[str]] = {}
    for video_id, name in subset.items():
        if video_id in groups:
            sides.setdefault(groups[video_id], set()).add(name)
    return {group for group, names in sides.items() if len(names) == 1}


def folder_groups(video_ids: Mapping[str, object]) -> dict[str, str]:
    """The folder of each video that lies in one. Raises `UserError` where all lie in one place."""
    found = {video_id: str(PurePosixPath(video_id).parent) for video_id in video_ids if "/" in video_id}
    if len(set(found.values())) < 2:
        raise UserError(
            "--groups folder: the videos are not in several folders; leave it out, or give a column 'group'"
        )
    return found


_TAIL = re.compile(
    r"""(?ix) (?: [\s._-]* (?: \(\d+\) | copy (?:[\s._-]*\d+)? | (?:part|pt|clip|seg|cut|take|cd|chunk) [\s._-]* \d+
    | \d{3,4}p | \d+fps | flip(?:ped)? | mirror(?:ed)? | aug\d* | crop(?:ped)? ) | [\s._-]+ [a-z] )+ $"""
)
_NUMBER = re.compile(r"[\s._-]*[a-z]{0,2}\d+$", re.IGNORECASE)


def stem_of_recording(name: str) -> str:
    """What is left of a file's name without what tells the parts and copies of one recording apart.

    `lobby (2)`, `lobby_part3` and `lobby-720p` are all `lobby`; of two numbers at the end the last is a part's
    (`cam2_0007` is `cam2`), while one alone is the recording's (`video_0007`).
    """
    stem = PurePosixPath(name).name.casefold()
    short = re.sub(r"[\s._-]+$", "", _TAIL.sub("", stem)) or stem
    without = _NUMBER.sub("", short)
    return without if without and re.search(r"\d", without) else short


def near_duplicates(subset: Mapping[str, str], groups: Mapping[str, str]) -> list[str]:
    """A note where names on both sides of the split look like parts or copies of one recording."""
    kinds: dict[str, list[str]] = {}
    for video_id in sorted(subset):
        kinds.setdefault(stem_of_recording(video_id), []).append(video_id)
    pairs = []
    for ids in kinds.values():
        sides = [[i for i in ids if (subset[i] == "training") == training] for training in (True, False)]
        # equal names in two folders are a camera's own way of counting
        alike = [(a, b) for a in sides[0] for b in sides[1] if _file_name(a) != _file_name(b)]
        apart = [(a, b) for a, b in alike if groups.get(a, a) != groups.get(b, b)]
        if apart:
            pairs.append(f"{apart[0][0]} (training) and {apart[0][1]} (test)")
    if not pairs or len(kinds) == 1:
        return []
    return [
        f"{len(pairs)} names are alike across the split: {some(pairs, '; ')}; if they show one recording, give them "
        "one 'group' in the table, or the test measures what was learnt by heart"
    ]


def _file_name(video_id: str) -> str:
    return PurePosixPath(video_id).name
