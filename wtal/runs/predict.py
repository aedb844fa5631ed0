"""`wtal predict` as functions: scores of a run's rows, detections of one of them, and their measure where truth is."""

import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from feature_extraction.errors import PartialFailure
from feature_extraction.files import atomic_write, write_sealed
from feature_extraction.store.ids import plain_id
from wtal.datasets.detections import write_predictions
from wtal.datasets.features import FeatureSet, open_features
from wtal.runs.localizer import Localizer, open_run
from wtal.runs.measure import measure, summary_of, videos_of
from wtal.runs.new_videos import needed_streams
from wtal.runs.remembered import Remembered, origin_of
from wtal.runs.rows import rows_behind, without_signal
from wtal.training.folder import RunFolder


def predict_run(run: RunFolder, out: Path, row: str, overrides: Sequence[str], store: Path | None) -> int:
    """Score all rows on the evaluation videos, write the detections of `row` to `out`, and measure what can be.

    Without `overrides` and from the run's own features the run folder's `predictions.json` and `summary.json` are
    written too (without rows that lack a signal of the inference); otherwise it is left as it is, because a report of
    it should show the run's own settings. With another feature `store` neither its scores are read nor any written.
    Returns 0, or raises `PartialFailure` at the end where evaluation videos have no features (with
    `data.missing: skip`).
    """
    run.claim()
    localizer = open_run(run, overrides)
    config, annotations = localizer.config, localizer.annotations
    rows_behind(config, row)
    features = open_features(config.data, store)
    videos = videos_of(config, annotations, features)
    ids, missing = videos.ids, videos.missing["test"]
    own_store = store is None or store.resolve() == Path(config.data.features).resolve()
    if own_store and localizer.stores:
        localizer.write(features, ids)
    detections = localizer.detections(localizer.stored(row, ids) if own_store else localizer.score(row, features, ids))
    own = own_store and not overrides
    if own and row == "ours" and out.resolve() != run.predictions.resolve():
        write_predictions(run.predictions, detections, details=f"wtal, row {row}")
        with open(run.predictions, "rb") as written, atomic_write(out) as stream:
            shutil.copyfileobj(written, stream, 1 << 20)
    else:
        write_predictions(out, detections, details=f"wtal, row {row}")
    if own and videos.truth.videos:
        if skipped := without_signal(config):
            tqdm.write(f"not measured: {', '.join(skipped)} (no attention, which inference asks for)", sys.stderr)
        remembered, rows = Remembered(run.measured), {}
        for name in localizer.sources:
            if name not in skipped:
                made = partial(measure, localizer, name, features, videos, detections if name == row else None)
                rows[name] = remembered.figures(name, origin_of(localizer, name, features, videos), made)
        remembered.save()
        write_sealed(run.summary, summary_of(config, videos.truth, rows))
    if missing:
        raise PartialFailure(
            f"{len(missing)} evaluation videos have no features ({', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}); the others are in {out}"
        )
    return 0


def predict_videos(localizer: Localizer, videos: Sequence[Path], out: Path, row: str, store: Path | None) -> int:
    """Extract features of new videos with the run's extraction settings and write their detections to `out`.

    Features are kept beside the run (`features-new/`) so that a second call is quick. Videos that cannot be read are
    named by a `PartialFailure` after the others are written.
    """
    rows_behind(localizer.config, row)
    features, ids, failed = localizer.extract(videos, store, row)
    detections = localizer.detections(localizer.score(row, features, ids))
    write_predictions(out, detections, details=f"wtal, row {row}")
    if failed:
        raise PartialFailure(f"{len(failed)} videos could not be read: {', '.join(failed)}")
    return 0


def predict_store(localizer: Localizer, store: Path, out: Path, row: str) -> int:
    """Detections of every video of a feature store, to `out`."""
    rows_behind(localizer.config, row)
    features = FeatureSet(store, needed_streams(localizer.config))
    localizer.check_networks(features)
    ids = [plain_id(video_id) for video_id in features.ids()]
    write_predictions(out, localizer.detections(localizer.score(row, features, ids)), details=f"wtal, row {row}")
    return 0
