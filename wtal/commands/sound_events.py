"""Sound events from a run's frame scores: threshold, median filter, join; written as a DCASE table, and their F1.

Takes the score files that `wtal predict` left in the run folder; the table has the events of all of them. The
F1 (event-based, segment-based, clip-level; macro and micro) is measured on the clips of --reference, or of the
run's test subset, where those have strong labels. What is in a clip without scores counts as missed; such
clips are named, and the exit code is 3.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder with scores")
    parser.add_argument("--row", default="ours", help="row of the run whose scores to use (default: ours)")
    parser.add_argument("--out", type=Path, metavar="TSV", help="where the events go (default: RUN/events.tsv)")
    parser.add_argument("--reference", type=Path, metavar="TSV", help="strong labels to measure against")
    parser.add_argument("--threshold", type=float, default=0.5, help="frames at or over this are on (default 0.5)")
    parser.add_argument("--median", type=float, default=0.5, help="median filter in seconds (default 0.5; 0: none)")
    parser.add_argument("--clip-threshold", type=float, default=0.5, help="classes under this in the clip are off")
    parser.add_argument("--json", action="store_true", help="metrics by class as JSON")


def run(options: argparse.Namespace) -> int:
    import json
    import math

    import pandas as pd

    from feature_extraction.errors import PartialFailure, UserError
    from feature_extraction.files import atomic_write
    from wtal.config.load import config_of_run
    from wtal.datasets.formats.by_name import load_annotations
    from wtal.datasets.formats.dcase import STRONG, read_dcase
    from wtal.evaluation.sound_events import clip_f1, event_f1, segment_f1
    from wtal.inference.scores import VideoScores
    from wtal.inference.sound_events import events_from_scores
    from wtal.training.folder import RunFolder

    if not math.isfinite(options.clip_threshold):
        raise UserError(f"--clip-threshold must be a number, got {options.clip_threshold}")
    folder = RunFolder(options.run)
    data = config_of_run(folder.path).data
    annotations = load_annotations(data)
    if options.reference:
        reference = read_dcase(options.reference, "reference")
    else:
        reference = annotations.subset(*data.test_subset)
    found, tags = {}, {}
    for clip in sorted(annotations.videos.keys() | reference.videos.keys()):
        path = folder.scores(options.row, clip)
        if not path.is_file():
            continue
        scores = VideoScores.load(path)
        active = scores.video_C >= options.clip_threshold
        found[clip] = events_from_scores(
            scores.frame_TC,
            annotations.classes,
            scores.grid.snippet_seconds,
            threshold=options.threshold,
            median_seconds=options.median,
            active=active,
            duration=scores.duration or None,
        )
        tags[clip] = [name for name, on in zip(annotations.classes, active, strict=True) if on]
    if not found:
        raise UserError(f"{options.run}: no scores of row {options.row!r} for these clips; run `wtal predict` first")
    if not found.keys() & reference.videos.keys():
        raise UserError(f"{options.reference}: none of its {len(reference.videos)} clips has scores in this run")
    out = options.out or options.run / "events.tsv"
    rows = [
        (clip, f"{event.start:.3f}", f"{event.end:.3f}", event.label, f"{event.score:.4f}")
        for clip, events in found.items()
        for event in sorted(events, key=lambda e: (e.start, e.label))
    ]
    with atomic_write(out, "w") as stream:
        pd.DataFrame(rows, columns=[*STRONG, "score"]).to_csv(stream, sep="\t", index=False)
    strong = {clip: video.instances for clip, video in reference.videos.items()}
    weak = {clip: set(video.labels) for clip, video in reference.videos.items()}
    measured = {clip: events for clip, events in found.items() if clip in reference.videos}
    unscored = sorted(reference.videos.keys() - found.keys())
    results = {"clip": clip_f1(weak, {clip: tags[clip] for clip in measured})}
    if any(strong.values()):
        results = {"event": event_f1(strong, measured), "segment": segment_f1(strong, measured), **results}
    if options.json:
        table = {
            kind: {
                "macro": result.macro,
                "micro": result.micro,
                "classes": {name: counts.f1 for name, counts in result.per_class.items()},
            }
            for kind, result in results.items()
        }
        counts = {"clips": len(reference.videos), "clips_without_scores": len(unscored)}
        print(json.dumps({**counts, **table}, indent=1))
    else:
        for kind, result in results.items():
            macro, micro = 100 * result.macro, 100 * result.micro
            print(f"{kind + ' F1':12} macro {macro:6.2f}  micro {micro:6.2f}  ({len(strong)} clips)")
        print(out)
    if unscored:
        raise PartialFailure(
            f"{len(unscored)} clips of the reference have no scores, what is in them counts as missed: "
            f"{', '.join(unscored[:5])}{', ...' if len(unscored) > 5 else ''}"
        )
    return 0
