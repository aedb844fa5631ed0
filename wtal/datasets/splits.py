"""Which videos train, which choose, which test; and the videos that the field leaves out of THUMOS14."""

import hashlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from feature_extraction.errors import UserError
from wtal.config.data import DataSettings
from wtal.datasets.annotations import AnnotationSet

EXCLUSIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    # The challenge's temporal test set.
    "thumos14-213": (),
    # 1292 has Ambiguous segments only. CO2-Net, DELU, P-MIL, RSKP and the other users of the npy layout.
    "thumos14-212": ("video_test_0001292",),
    # 0270 is annotated beyond its end. OpenTAD.
    "thumos14-211": ("video_test_0001292", "video_test_0000270"),
    # 1496 is annotated beyond its span. UM, BaSNet, CoLA and the other users of the json + split layout.
    "thumos14-210": ("video_test_0001292", "video_test_0000270", "video_test_0001496"),
}


@dataclass(frozen=True)
class Splits:
    """The videos of an experiment; the three sets are disjoint and know the same classes."""

    train: AnnotationSet
    held_out: AnnotationSet
    """Training videos kept from training, to choose on; empty where `held_out` is 0."""
    test: AnnotationSet


def without(annotations: AnnotationSet, exclusion: str) -> AnnotationSet:
    """`annotations` less the videos of `EXCLUSIONS[exclusion]`; an unknown name is a `UserError`."""
    if exclusion not in EXCLUSIONS:
        raise UserError(f"exclusion {exclusion!r} is not one of {', '.join(EXCLUSIONS)}")
    gone = set(EXCLUSIONS[exclusion])
    return _pick(annotations, [video_id for video_id in annotations.videos if video_id not in gone])


def split(annotations: AnnotationSet, settings: DataSettings) -> Splits:
    """Cut `annotations` into training, held-out and test videos.

    Raises `UserError` for an unknown subset and for training videos without a label (named and counted).
    """
    training = annotations.subset(*settings.train_subset)
    require_labels(training)
    held_out = hold_out(training, settings.held_out, settings.held_out_seed)
    kept = [video_id for video_id in training.videos if video_id not in held_out]
    return Splits(_pick(training, kept), _pick(training, sorted(held_out)), annotations.subset(*settings.test_subset))


def require_labels(training: AnnotationSet) -> None:
    """Raise `UserError`, naming and counting them, where videos have no label and are no negatives either: they
    cannot teach anything. So it does where all are negatives."""
    bare = [video.video_id for video in training.videos.values() if not video.labels and not video.negative]
    if bare:
        raise UserError(
            f"{len(bare)} training videos have no label: "
            f"{', '.join(bare[:5])}{', ...' if len(bare) > 5 else ''}; "
            "give each at least one class, mark it as negative, or take them out of the training subset"
        )
    if training.videos and all(video.negative for video in training.videos.values()):
        raise UserError("every training video is a negative; training needs some with a label")


NO_CLASS = frozenset({""})


def hold_out(training: AnnotationSet, fraction: float, seed: int, groups: Mapping[str, str] | None = None) -> set[str]:
    """Ids of `round(fraction * videos)` training videos, spread over the classes in proportion.

    The choice depends on the ids, the labels and `seed` alone, not on the order of the file. No class loses
    its last training video, so fewer may be returned. Videos of one of `groups` (group by id) go together; where
    groups are large, other numbers than that may be returned.
    """
    wanted = round(fraction * len(training.videos))
    if not wanted:
        return set()
    order = sorted(training.videos, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    if groups:
        return _hold_out_groups(training, wanted, fraction, order, groups)
    # negatives are spread like a class of their own
    kind_of = {key: frozenset(training.videos[key].labels) or NO_CLASS for key in order}
    left = Counter(label for key in order for label in kind_of[key])
    lack = {label: fraction * count for label, count in left.items()}
    # Videos of equal labels are interchangeable but for their order, so only the first of each kind competes.
    queues: dict[frozenset[str], deque[tuple[int, str]]] = {}
    for place, key in enumerate(order):
        queues.setdefault(kind_of[key], deque()).append((place, key))
    chosen: set[str] = set()
    while len(chosen) < wanted:
        free = [kind for kind, queue in queues.items() if queue and all(left[label] > 1 for label in kind)]
        if not free:
            break
        # The kind whose classes lack most held-out videos; of equals the one whose next video comes first.
        best = max(free, key=lambda k: (sum(lack[x] for x in sorted(k)) / max(1, len(k)), -queues[k][0][0]))
        chosen.add(queues[best].popleft()[1])
        for label in best:
            left[label] -= 1
            lack[label] -= 1
    return chosen


def _hold_out_groups(
    training: AnnotationSet, wanted: int, fraction: float, order: list[str], groups: Mapping[str, str]
) -> set[str]:
    """Whole groups, those first that bring the classes nearest to their share, up to about `wanted` videos."""
    members: dict[str, list[str]] = {}
    for key in order:
        # a video of no group is one by itself; the blank keeps it apart from a group of its name
        members.setdefault(f"group {groups[key]}" if key in groups else f" {key}", []).append(key)
    counts = {
        name: Counter(label for key in keys for label in frozenset(training.videos[key].labels) or NO_CLASS)
        for name, keys in members.items()
    }
    left = sum(counts.values(), Counter())
    lack = {label: fraction * count for label, count in left.items()}

    def miss(taken: Counter[str]) -> float:
        return sum((lack[label] - taken[label]) ** 2 / lack[label] for label in lack)

    chosen: set[str] = set()
    taken: Counter[str] = Counter()
    while len(chosen) < wanted:
        free = [name for name in members if all(left[label] > n for label, n in counts[name].items())]
        best = min(free, key=lambda name: miss(taken + counts[name]), default=None)
        if best is None or (chosen and miss(taken + counts[best]) >= miss(taken)):
            break
        chosen |= set(members.pop(best))
        taken += counts[best]
        left -= counts[best]
    return chosen


def _pick(annotations: AnnotationSet, video_ids: list[str]) -> AnnotationSet:
    return AnnotationSet(annotations.classes, {video_id: annotations.videos[video_id] for video_id in video_ids})
