"""Which videos train, which are held out of training, which are evaluated - and which lack features."""

from dataclasses import dataclass

import numpy as np

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet
from wtal.datasets.features import FeatureSet
from wtal.datasets.settings import DataSettings


@dataclass(frozen=True)
class Split:
    """Video ids, sorted. `missing` have no features and were left out, as `data.missing: skip` allows."""

    train: list[str]
    held_out: list[str]
    missing: list[str]


def training_split(annotations: AnnotationSet, features: FeatureSet, settings: DataSettings) -> Split:
    """The training subset, less a random share that is held out for choosing things without the evaluation videos.

    The share is drawn once per data set (`data.held_out_seed`), not per run, so that runs compare on the same videos.
    Raises `UserError` for an empty subset, and for missing features unless `data.missing` is `skip`.
    """
    ids, missing = with_features(annotations.subset(settings.train_subset), features, settings)
    if not ids:
        raise UserError(f"no training video: subset {settings.train_subset!r} has no video with features")
    count = round(settings.held_out * len(ids))
    chosen = set(np.random.default_rng(settings.held_out_seed).permutation(len(ids))[:count].tolist())
    return Split(
        [video_id for i, video_id in enumerate(ids) if i not in chosen],
        [video_id for i, video_id in enumerate(ids) if i in chosen],
        missing,
    )


def evaluation_split(
    annotations: AnnotationSet, features: FeatureSet, settings: DataSettings
) -> tuple[list[str], list[str]]:
    """Ids of the evaluation videos with features, and of those without (only with `data.missing: skip`)."""
    return with_features(annotations.subset(settings.test_subset), features, settings)


def with_features(
    annotations: AnnotationSet, features: FeatureSet, settings: DataSettings
) -> tuple[list[str], list[str]]:
    """Sorted ids that have features, and those that have none. Raises `UserError` naming some unless skipping."""
    known = set(features.ids())
    ids = [video_id for video_id in sorted(annotations.videos) if video_id not in settings.exclude]
    missing = [video_id for video_id in ids if video_id not in known]
    if missing and settings.missing == "error":
        raise UserError(
            f"{len(missing)} of {len(ids)} videos have no features ({', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}); extract them, or set data.missing=skip"
        )
    return [video_id for video_id in ids if video_id in known], missing
