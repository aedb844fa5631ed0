"""Power pooling as its paper ran it: sound events from weak labels, strong synthetic ones and unlabelled clips.

    python tools/generate_sounds.py --out data/sounds
    wtal extract-audio data/sounds/audio --out data/sounds/features
    python tools/bench_sounds.py data/sounds --out runs/sounds

Trains each row over the seeds in the layout that generate_sounds.py writes (with the real tables and audio in their
place it is the task itself), and prints mean and standard deviation of macro figures on the test clips: F1, precision
and recall of events (collars of 0.2 s), F1 of segments and clips, PSDS where psds_eval can be used, and the rank
correlation of n with the mean duration of each class's test events. A second call does only what is missing.
"""

import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402
from seeded_rows import Figures, Results, compare, contrast, markdown, named_config, parser_of  # noqa: E402

STRONG, UNLABELLED = ("semi.strong_clips=6",), ("semi.unlabelled_clips=12", "semi.consistency=10")
POWER = ("cbp.pooling.name=power", "cbp.pooling.regulariser=0.003")
LINEAR = ("cbp.pooling.name=linear_softmax",)
VARIANTS: dict[str, tuple[str, ...]] = {
    "linear softmax, weak": LINEAR,
    "linear softmax, weak + strong + unlabelled": (*LINEAR, *STRONG, *UNLABELLED),
    "power, weak": POWER,
    "power, weak + strong": (*POWER, *STRONG),
    "power, weak + unlabelled": (*POWER, *UNLABELLED),
    "power, weak + strong + unlabelled": (*POWER, *STRONG, *UNLABELLED),
}
SMALL = ("cbp.width=64", "schedule.warmup_steps=400", "optimizer.batch=10", "optimizer.lr=4e-3")
FIGURES = {
    "event": "event F1", "event_precision": "precision", "event_recall": "recall", "segment": "segment F1",
    "clip": "clip F1", "psds1": "PSDS 1", "psds2": "PSDS 2", "rho": "rho(n, duration)",
}  # fmt: skip
CONTRASTS = (
    ("power, weak", "linear softmax, weak"),
    ("power, weak + strong + unlabelled", "linear softmax, weak + strong + unlabelled"),
    ("power, weak + strong", "power, weak"),
    ("power, weak + unlabelled", "power, weak"),
    ("power, weak + strong + unlabelled", "power, weak"),
    ("power, weak + strong + unlabelled", "power, weak + strong"),
)


def run(root: Path, out: Path, more: tuple[str, ...], variant: str, seed: int) -> Figures:
    """Train one row with one seed where that is not done, and measure it on the test clips."""
    from wtal.datasets.features import open_features
    from wtal.datasets.formats.by_name import load_annotations
    from wtal.evaluation.psds import why_not
    from wtal.evaluation.sound_events import clip_f1, event_f1, segment_f1
    from wtal.inference.sound_events import events_from_scores, psds_of_scores
    from wtal.runs.localizer import Localizer
    from wtal.training.run import train

    data = {"annotations": "weak.tsv", "annotations_extra": "test.tsv", "strong": "synthetic.tsv",
            "unlabelled": "unlabel_in_domain.tsv", "features": "features"}  # fmt: skip
    settings = [*(f"data.{key}={root / name}" for key, name in data.items()), *SMALL, *VARIANTS[variant], *more]
    config = named_config("sed_dcase19", settings, seed, out)
    folder, _ = train(config)
    annotations, features = load_annotations(config.data), open_features(config.data)
    truth = annotations.subset(*config.data.test_subset)
    localizer = Localizer(folder, config, annotations)
    scored = dict(localizer.score("cbp_warmup", features, sorted(truth.videos)))
    tags = {
        clip: [name for name, p in zip(annotations.classes, own.video_C, strict=True) if p >= 0.5]
        for clip, own in scored.items()
    }
    found = {
        clip: events_from_scores(
            own.frame_TC,
            annotations.classes,
            own.grid.snippet_seconds,
            active=own.video_C >= 0.5,
            duration=own.duration,
        )
        for clip, own in scored.items()
    }
    reference = {clip: video.instances for clip, video in truth.videos.items()}
    event = event_f1(reference, found)
    result = {
        "event": event.macro, "event_precision": event.macro_precision, "event_recall": event.macro_recall,
        "segment": segment_f1(reference, found).macro,
        "clip": clip_f1({clip: set(video.labels) for clip, video in truth.videos.items()}, tags).macro,
    }  # fmt: skip
    if not why_not():
        result |= psds_of_scores(reference, scored, annotations.classes)
    exponents = [r["exponent_n"] for r in folder.records() if "exponent_n" in r]
    if exponents:
        lengths = {name: [] for name in annotations.classes}
        for instances in reference.values():
            for instance in instances:
                lengths[instance.label].append(instance.end - instance.start)
        result["rho"] = float(spearmanr(exponents[-1], [np.mean(own) for own in lengths.values()]).statistic)
    return result


def table(results: Results) -> str:
    """Markdown: a row a variant, then the contrasts seed by seed."""
    pairs = [pair for pair in CONTRASTS if results.keys() >= set(pair)]
    lines = [contrast(results, *pair, "event", "event F1", digits=3) for pair in pairs]
    return "\n".join([*markdown(results, FIGURES, digits=3), "", *lines])


def main() -> int:
    parser = parser_of(__doc__, list(VARIANTS))
    parser.add_argument("sounds", type=Path, help="folder of tables and features")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that all rows share")
    options = parser.parse_args()
    compare(parser, options, partial(run, options.sounds, options.out, tuple(options.overrides)), table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
