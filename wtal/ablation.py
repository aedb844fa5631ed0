"""The paper's tables as lists of variants: settings to change, and whose detections to measure.

A variant's run is found again by its settings, so tables share runs, and a second call does only what is missing.
"""

import csv
import io
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write, hash8, read_json, write_json
from wtal.config import Config, load_config
from wtal.models.pooling import POOLINGS
from wtal.strict import build, override, plain
from wtal.summary import mean_and_spread


@dataclass(frozen=True)
class Variant:
    """One line of a table."""

    name: str
    train: tuple[str, ...] = ()
    """Settings changed for training."""
    row: str = "ours"
    """Whose scores: a row of `wtal.runs.ROWS`."""
    infer: tuple[str, ...] = field(default=())
    """Settings changed for inference alone."""


# the paper does not give the weights of its weighted fusion; the CBP branch has three quarters here
FUSIONS = {
    "average fusion": ("inference.fusion=average",),
    "weighted fusion": ("inference.fusion=weighted", "inference.fusion_weight=0.75"),
}
# the methods that the paper and we plug in, and the paper's own backbone
PLUG_INS = {"CO2-Net": "co2net", "UM": "um", "DELU": "delu", "transformer": "transformer"}
ALONE = ("schedule.strategy=warmup_only",)
# equation (7) trains features, not the classifier; by itself it needs the bag loss beside it, and scores without
# calibration are min-max scaled
CONTRAST_ALONE = ("loss.kd=0", "loss.fb=1", "loss.cls=1", "pseudo_labels.later=minmax")

TABLES: dict[str, list[Variant]] = {
    "table3": [
        Variant("CBP alone", row="cbp_warmup"),
        Variant("VLP alone (frozen CLIP)", row="vlp_raw"),
        Variant("VLP after the last B step", row="vlp"),
        Variant("ours"),
    ],
    "table4": [
        Variant("warm-up only", row="cbp_warmup"),
        *(
            Variant(f"{title}, {fusion}", (f"schedule.strategy={strategy}",), infer=infer)
            for title, strategy in (("only F", "only_f"), ("only B", "only_b"))
            for fusion, infer in {"CBP": (), **FUSIONS}.items()
        ),
        Variant("only B, VLP", ("schedule.strategy=only_b",), row="vlp"),
        Variant("alternating"),
    ],
    "table5": [
        Variant("warm-up only", row="cbp_warmup"),
        Variant("A1: L_kd", ("loss.fb=0",)),
        Variant("A2: L_fb", CONTRAST_ALONE),
        Variant("L_kd and L_fb"),
    ],
    "table6": [
        Variant("own CBP", row="cbp_warmup"),
        Variant("own CBP, early fusion (average)", (*ALONE, "cbp.early_fusion=average"), row="cbp_warmup"),
        Variant("own CBP, early fusion (concatenation)", (*ALONE, "cbp.early_fusion=concatenation"), row="cbp_warmup"),
        Variant("own CBP in the framework"),
        *(
            variant
            for title, name in PLUG_INS.items()
            for variant in (
                Variant(title, (f"cbp.name={name}",), row="cbp_warmup"),
                Variant(f"{title} in the framework", (f"cbp.name={name}",)),
            )
        ),
    ],
    # beyond the paper: each idea by itself against the configuration as it is
    "beyond": [
        Variant("as configured"),
        Variant("agreement of the branches", ("pseudo_labels.agreement=drop",)),
        Variant("thresholds per class", ("pseudo_labels.adaptive=true",)),
        Variant("averaged teachers (0.99)", ("pseudo_labels.ema=0.99",)),
        Variant("several time scales", ("cbp.name=multiscale",)),
        Variant("one round", ("schedule.rounds=1",)),
    ],
    "pooling": [
        variant
        for name in POOLINGS
        for variant in (
            Variant(f"{name}, warm-up", (f"cbp.pooling.name={name}",), row="cbp_warmup"),
            Variant(f"{name}, ours", (f"cbp.pooling.name={name}",)),
        )
    ],
}


@dataclass(frozen=True)
class Job:
    """One training run and all measurements wanted of it."""

    config: Config
    measures: tuple[tuple[str, tuple[str, ...]], ...]
    """(row, inference settings) pairs."""


def run_table(
    name: str, config_name: str, overrides: Sequence[str], seeds: Sequence[int], out: Path, jobs: int
) -> dict:
    """Train and measure what is missing of a table; returns it as data (see `collect`), also written to `out`.

    Files: `<out>/<table>.md`, `.csv`, `.json`; runs under `<out>/runs/`. `jobs` runs at once, one thread each.
    """
    if name not in TABLES:
        raise UserError(f"unknown table {name!r}; allowed: {', '.join(TABLES)}")
    if not seeds:
        raise UserError("no seed given; give at least one, for example --seeds 0 1 2")
    base = load_config(config_name, overrides)
    wanted = jobs_of(TABLES[name], base, seeds, out)
    _run_all(list(wanted.values()), jobs, name)
    table = collect(name, TABLES[name], base, seeds, out)
    write_json(out / f"{name}.json", table)
    with atomic_write(out / f"{name}.md", "w") as stream:
        stream.write(markdown(table))
    with atomic_write(out / f"{name}.csv", "w") as stream:
        stream.write(comma_separated(table))
    return table


def variant_config(base: Config, variant: Variant, seed: int, out: Path) -> Config:
    """A variant's configuration, with a run folder named by the hash of everything that shapes its training."""
    changed = build(Config, override(plain(base), [*variant.train, f"seed={seed}", "training.threads=1"]))
    shaping = {k: v for k, v in plain(changed).items() if k not in ("out", "inference", "evaluation", "sandbox")}
    return build(Config, {**plain(changed), "out": str(out / "runs" / hash8(shaping))})


def jobs_of(variants: Iterable[Variant], base: Config, seeds: Sequence[int], out: Path) -> dict[str, Job]:
    """Run folder to job; variants that differ in row or inference only share one."""
    measures: dict[str, dict[tuple[str, tuple[str, ...]], None]] = {}
    configs: dict[str, Config] = {}
    for variant in variants:
        for seed in seeds:
            config = variant_config(base, variant, seed, out)
            configs[config.out] = config
            measures.setdefault(config.out, {})[variant.row, variant.infer] = None
    return {folder: Job(config, tuple(measures[folder])) for folder, config in configs.items()}


def result_file(config: Config, row: str, infer: tuple[str, ...]) -> Path:
    """Where a measurement is kept. Its name holds the inference and evaluation settings it was made with."""
    key = hash8([plain(config.inference), plain(config.evaluation), list(infer)])
    return Path(config.out) / "results" / f"{row}-{key}.json"


def _run_all(jobs: Sequence[Job], parallel: int, title: str) -> None:
    left = [job for job in jobs if any(not result_file(job.config, *measure).is_file() for measure in job.measures)]
    if not left:
        return
    bar = tqdm(total=len(left), desc=title, unit="run", disable=None)
    if parallel <= 1:
        for job in left:
            execute(job)
            bar.update()
        return
    # spawn: a fork of a process with running torch threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(parallel, len(left)), mp_context=context) as pool:
        for done in as_completed([pool.submit(execute, job) for job in left]):
            done.result()
            bar.update()


def execute(job: Job) -> None:
    """Train a job's run and write each of its measurements."""
    from wtal.datasets.annotations import AnnotationSet
    from wtal.datasets.load import load_annotations
    from wtal.datasets.splits import split
    from wtal.prediction import load_scores, other_row, predict_run
    from wtal.summary import measure
    from wtal.training.run import train

    config = job.config
    run, _ = train(config)
    predict_run(run, run.predictions, "ours", (), None)
    test = split(load_annotations(config.data), config.data).test
    truth = AnnotationSet(test.classes, {key: video for key, video in test.videos.items() if video.instances})
    for row, infer in job.measures:
        changed = build(Config, override(plain(config), infer))
        other = other_row(config)
        values = measure(
            changed,
            truth,
            load_scores(run, row, list(truth.videos)),
            load_scores(run, other, list(truth.videos)) if other else None,
        )
        ends = [record for record in run.records() if record["kind"] == "phase_end"]
        exponents = {k: v for record in ends for k, v in record.items() if k.startswith("exponent_")}
        write_json(result_file(config, row, infer), {**values, **exponents})


def collect(name: str, variants: Sequence[Variant], base: Config, seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """The measurements of a table: per variant, mean and spread over seeds of every figure, and each seed's values."""
    lines = []
    for variant in variants:
        results = []
        for seed in seeds:
            config = variant_config(base, variant, seed, out)
            results.append(read_json(result_file(config, variant.row, variant.infer)))
        flat = [{**{f"mAP@{k}": v for k, v in r["mAP"].items()}, **_numbers(r)} for r in results]
        figures = {
            key: dict(zip(("mean", "spread"), mean_and_spread([f[key] for f in flat]), strict=True)) for key in flat[0]
        }
        by_seed = dict(zip(map(str, seeds), results, strict=True))
        lines.append({"name": variant.name, "figures": figures, "seeds": by_seed})
    return {"table": name, "protocol": base.evaluation.protocol, "seeds": list(seeds), "rows": lines}


def _numbers(result: Mapping[str, Any]) -> dict[str, float]:
    return {key: result[key] for key in ("average_mAP", "fg_miou", "bg_miou")}


def markdown(table: Mapping[str, Any]) -> str:
    """A Markdown table in percent, `mean ± spread` (sample standard deviation over seeds)."""
    keys = list(table["rows"][0]["figures"])
    lines = [
        f"{table['table']}, protocol `{table['protocol']}`, seeds {', '.join(map(str, table['seeds']))}; percent, "
        "mean ± standard deviation",
        "",
        "| | " + " | ".join(keys) + " |",
        "|---|" + "---|" * len(keys),
    ]
    for row in table["rows"]:
        cells = [f"{100 * row['figures'][k]['mean']:.1f} ± {100 * row['figures'][k]['spread']:.1f}" for k in keys]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def comma_separated(table: Mapping[str, Any]) -> str:
    """The same as CSV: name, then mean and spread of each figure, as fractions."""
    keys = list(table["rows"][0]["figures"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", *(f"{key} {part}" for key in keys for part in ("mean", "spread"))])
    for row in table["rows"]:
        writer.writerow([row["name"], *(row["figures"][key][part] for key in keys for part in ("mean", "spread"))])
    return text.getvalue()
