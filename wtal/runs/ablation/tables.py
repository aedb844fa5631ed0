"""The paper's tables as lists of variants: settings to change, and whose detections to measure.

A variant's run is found again by its settings, so tables share runs, and a second call does only what is missing. Runs
of other inputs (annotations, feature streams) are refused; a measurement keeps the inputs that it was made from.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write, read_json, sweep_parts, write_json
from wtal.config.inference import expand_assignments
from wtal.config.load import Config, load_config
from wtal.config.strict import build, override, plain
from wtal.models.pooling.head import POOLINGS
from wtal.runs.ablation.jobs import Job, result_file, run_all, shaping_hash
from wtal.runs.measure import FIGURES, legend, mean_and_spread
from wtal.runs.rows import rows_behind
from wtal.training.schedule import plan

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Variant:
    """One line of a table."""

    name: str
    train: tuple[str, ...] = ()
    """Settings changed for training."""
    row: str = "ours"
    """Whose scores: a row of `wtal.runs.rows.ROWS`."""
    infer: tuple[str, ...] = field(default=())
    """Settings changed for inference alone."""
    as_long: bool = False
    """Whether its warm-up has as many steps as the configuration's CBP branch has in all its phases."""
    plug_in: bool = False
    """Whether its CBP branch is trained by the recipe of `PLUG_INS`, which may be shortened."""

    def by(self, rule: str) -> tuple[str, ...]:
        """Its settings of inference when scored by `rule`."""
        return (*self.infer, f"inference.rule={rule}")


# the paper does not give the weights of its weighted fusion; the CBP branch has three quarters here
FUSIONS = {
    "average fusion": ("inference.fusion=average",),
    "weighted fusion": ("inference.fusion=weighted", "inference.fusion_weight=0.75"),
}
ALONE = ("schedule.strategy=warmup_only",)
# what the paper prints, by departure of ours; positions come with attention over the whole video
PRINTED: dict[str, tuple[str, ...]] = {
    "frame probability": ("cbp.activation=softmax", "vlp.activation=softmax"),
    "loss (6)": ("loss.kd_balance=plain",),
    "loss (7)": ("loss.fb_reduction=sum",),
    "bias and scale of (3)": ("vlp.bias=none", "vlp.learn_scale=false", "vlp.input_length=one"),
    "backbone": ("cbp.name=transformer", "cbp.window=0", "cbp.refinement=0", "vlp.window=0"),
    "pseudo-labels (4)": (
        *("pseudo_labels.first=probability", "pseudo_labels.later=probability", "pseudo_labels.later_vlp=''"),
        *("pseudo_labels.agreement=none", "pseudo_labels.together=0"),
        *("pseudo_labels.high=0.3", "pseudo_labels.low=0.1"),
    ),
    "inference": (
        *("inference.class_rule=absolute", "inference.class_threshold=0.85", "inference.class_rows=[]"),
        *("inference.scaling=absolute", "inference.thresholds=[0.45]", "inference.score=max", "inference.gamma=0"),
        "inference.untaught_cbp=own",
    ),
}


def printed(*departures: str) -> tuple[str, ...]:
    """The settings as printed, but for those of `departures`, which stay the configuration's."""
    return tuple(setting for name, group in PRINTED.items() if name not in departures for setting in group)


# the methods that the paper and we plug in, as their configurations train them: a softmax over classes, Adam with decay
# inside the gradient, its rate, steps, batch and snippets, one snippet of each bin
PLUG_INS = {
    "CO2-Net": ("co2net", 5000, "5e-5", "1e-3", 10, 500),
    "UM": ("um", 10000, "1e-4", "5e-4", 16, 750),
    "DELU": ("delu", 5000, "5e-5", "1e-3", 10, 320),
}


def _recipe(name: str, steps: int, lr: str, decay: str, batch: int, snippets: int) -> tuple[str, ...]:
    """A plug-in's own training as settings."""
    optimizer = {"algorithm": "adam", "lr": lr, "weight_decay": decay, "batch": batch, "snippets": snippets,
                 "sampling": "random_perturb"}  # fmt: skip
    return (
        f"cbp.name={name}", "cbp.activation=softmax", "pseudo_labels.first=probability",
        f"schedule.warmup_steps={steps}",
        *(f"optimizer.{key}={value}" for key, value in optimizer.items()),
    )  # fmt: skip


def _inference(name: str) -> tuple[str, ...]:
    """A plug-in's own inference as settings."""
    return tuple(expand_assignments([f"inference.preset={name}"]))


FUSED = {"averaged": "average", "joined": "concatenation"}
"""Ways of feeding CLIP's features to a CBP branch, as a row says it: `cbp.early_fusion`."""
# equation (7) trains features, not the classifier; by itself it needs the bag loss beside it, and labels from scores
# without calibration are made of min-max scaled ones
CONTRAST_ALONE = ("loss.kd=0", "loss.fb=1", "loss.cls=1", "pseudo_labels.later=minmax", "pseudo_labels.together=0")

# average, maximum and learnt pooling (Zhou et al., ICCVW 2017) by their other loss; its weight is not published
ADAPTIVE = ("mean", "max", "generalized_mean")
BAG_AND_INSTANCE = {
    f"{name}, bag+instance": (f"cbp.pooling.name={name}", "cbp.instance_weight=0.5") for name in ADAPTIVE
}

TABLES: dict[str, list[Variant]] = {
    "table3": [
        Variant("CBP alone", row="cbp_warmup"),
        Variant("CBP alone, as many steps as ours", ALONE, row="cbp_warmup", as_long=True),
        Variant("VLP alone (frozen CLIP)", row="vlp_raw"),
        Variant("VLP after the last B step", row="vlp"),
        Variant("ours"),
    ],
    "table4": [
        Variant("warm-up only", row="cbp_warmup"),
        Variant("warm-up only, as many steps as alternating", ALONE, row="cbp_warmup", as_long=True),
        *(
            Variant(f"{title}, {fusion}", (f"schedule.strategy={strategy}",), infer=infer)
            for title, strategy in (("only F", "only_f"), ("only B", "only_b"))
            for fusion, infer in {"CBP": (), **FUSIONS}.items()
        ),
        Variant("only B, VLP", ("schedule.strategy=only_b",), row="vlp"),
        # where the configuration lets the CBP branch keep its background, only F has that too, and here has not
        Variant("only F, frozen CLIP's labels alone", ("schedule.strategy=only_f", "pseudo_labels.agreement=none")),
        # how much of it is the CBP branch's own second look
        Variant(
            "the CBP branch teaches itself, as many steps",
            ("pseudo_labels.agreement=own", "pseudo_labels.together=0"),
        ),
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
            for title, recipe in PLUG_INS.items()
            for variant in (
                Variant(title, _recipe(*recipe), "cbp_warmup", _inference(recipe[0]), plug_in=True),
                Variant(f"{title} in the framework", _recipe(*recipe), "ours", _inference(recipe[0]), plug_in=True),
            )
        ),
        Variant("transformer", ("cbp.name=transformer",), row="cbp_warmup"),
        Variant("transformer in the framework", ("cbp.name=transformer",)),
    ],
    # the same features for all: CLIP's in the input of methods that know no second branch
    "fairness": [
        Variant("own CBP", row="cbp_warmup"),
        *(
            Variant(f"own CBP, CLIP {said}", (*ALONE, f"cbp.early_fusion={fusion}"), row="cbp_warmup")
            for said, fusion in FUSED.items()
        ),
        Variant("own CBP in the framework"),
        *(
            variant
            for title, recipe in PLUG_INS.items()
            for variant in (
                Variant(title, _recipe(*recipe), "cbp_warmup", _inference(recipe[0]), plug_in=True),
                *(
                    Variant(
                        f"{title}, CLIP {said}",
                        (*ALONE, f"cbp.early_fusion={fusion}", *_recipe(*recipe)),
                        "cbp_warmup",
                        _inference(recipe[0]),
                        plug_in=True,
                    )
                    for said, fusion in FUSED.items()
                ),
                Variant(f"{title} in the framework", _recipe(*recipe), "ours", _inference(recipe[0]), plug_in=True),
            )
        ),
    ],
    # beyond the paper: each idea by itself against the configuration as it is
    "beyond": [
        Variant("as configured"),
        Variant("agreement of the branches", ("pseudo_labels.agreement=drop",)),
        Variant("thresholds per class", ("pseudo_labels.adaptive=true",)),
        Variant("averaged teachers (0.99)", ("pseudo_labels.ema=0.99",)),
        Variant("bag loss kept in F phases (0.1)", ("loss.cls=0.1",)),
        Variant("several time scales", ("cbp.name=multiscale",)),
        Variant("one round", ("schedule.rounds=1",)),
    ],
    "readings": [
        Variant("as printed", printed()),
        *(Variant(f"as printed, but our {name}", printed(name)) for name in PRINTED),
        Variant("as configured"),
    ],
    "pooling": [
        variant
        for title, head in {**{name: (f"cbp.pooling.name={name}",) for name in POOLINGS}, **BAG_AND_INSTANCE}.items()
        for variant in (Variant(f"{title}, warm-up", head, row="cbp_warmup"), Variant(f"{title}, ours", head))
    ],
    # video scores of the head itself, which other rows may choose classes with
    "adaptive": [
        Variant(title, (*ALONE, *head), "cbp_warmup", ("inference.class_rows=[]",))
        for name in ADAPTIVE
        for title, head in (
            (f"{name}, bag", (f"cbp.pooling.name={name}",)),
            (f"{name}, bag+instance", BAG_AND_INSTANCE[f"{name}, bag+instance"]),
        )
    ],
}


class AblationTable(dict[str, Any]):
    """A table as JSON data: `rows` holds per variant mean and spread over seeds of every figure, and each seed's."""

    def to_frame(self) -> "pandas.DataFrame":
        """One row a variant: mean and spread of each figure, as fractions; a single seed has no spread."""
        import pandas

        cells = [
            {"rule": row["rule"]}
            | {f"{key} {part}": value for key, figure in row["figures"].items() for part, value in figure.items()}
            for row in self["rows"]
        ]
        return pandas.DataFrame(cells, pandas.Index([row["name"] for row in self["rows"]], name="variant"))


def run_table(
    name: str,
    config_name: str,
    overrides: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    jobs: int,
    rules: Sequence[str] = (),
    plug_in_share: int = 1,
) -> AblationTable:
    """Train and measure what is missing of a table, which is also written to `out`.

    All rows are scored by one of `rules` after the other; none: by `inference.rule`. The warm-up of CO2-Net, UM and
    DELU has one `plug_in_share`th of the published steps, at a rate as many times as high as the root of that.

    Files: `<out>/<table>.md`, `.csv`, `.json`; runs under `<out>/runs/`. `jobs` runs at once, one thread each.
    Raises `UserError`, before anything is trained, for a row that a variant's strategy does not have, for bad inputs
    and for runs in `out` that were made from others.
    """
    if name not in TABLES:
        raise UserError(f"unknown table {name!r}; allowed: {', '.join(TABLES)}")
    if not seeds:
        raise UserError("no seed given; give at least one, for example --seeds 0 1 2")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"a seed is given twice ({', '.join(map(str, seeds))}): it would count as two trainings")
    base = load_config(config_name, overrides)
    if plug_in_share < 1 or any(steps % plug_in_share for _, steps, *_ in PLUG_INS.values()):
        raise UserError(f"a share of 1/{plug_in_share} of the published steps is no whole number; for example 10")
    configs = {
        (variant.name, seed): variant_config(base, variant, seed, out, plug_in_share)
        for variant in TABLES[name]
        for seed in seeds
    }
    _check_rows(name, TABLES[name], configs)
    rules = rules or (base.inference.rule,)
    left_out = run_all(list(jobs_of(TABLES[name], configs, rules).values()), jobs, name)
    table = collect(name, TABLES[name], base, configs, rules, left_out)
    if plug_in_share > 1 and any(variant.plug_in for variant in TABLES[name]):
        table["legend"] += (
            f" {', '.join(PLUG_INS)}: 1/{plug_in_share} of the published steps of their warm-up, at a rate "
            f"{plug_in_share**0.5:.3g} times as high."
        )
    sweep_parts(out)
    write_json(out / f"{name}.json", table)
    for suffix, text in (("md", markdown(table)), ("csv", table.to_frame().to_csv())):
        with atomic_write(out / f"{name}.{suffix}", "w") as stream:
            stream.write(text)
    return table


def variant_config(base: Config, variant: Variant, seed: int, out: Path, plug_in_share: int = 1) -> Config:
    """A variant's configuration, with a run folder named by the hash of everything that shapes its training."""
    own = [*variant.train, f"seed={seed}", "training.threads=1"]
    if variant.as_long:
        own.append(f"schedule.warmup_steps={sum(p.steps for p in plan(base.schedule) if p.kind != 'B')}")
    changed = build(Config, override(plain(base), own))
    if variant.plug_in and plug_in_share > 1:
        steps, lr = changed.schedule.warmup_steps // plug_in_share, changed.optimizer.lr * plug_in_share**0.5
        changed = build(Config, override(plain(changed), [f"schedule.warmup_steps={steps}", f"optimizer.lr={lr!r}"]))
    return build(Config, {**plain(changed), "out": str(out / "runs" / shaping_hash(changed))})


Configurations = dict[tuple[str, int], Config]
"""(variant's name, seed) -> its configuration."""


def jobs_of(variants: Sequence[Variant], configs: Configurations, rules: Sequence[str]) -> dict[str, Job]:
    """Run folder to job; variants that differ in row, rule or inference only share one."""
    measures: dict[str, dict[tuple[str, tuple[str, ...]], None]] = {}
    by_folder: dict[str, Config] = {}
    for variant in variants:
        for (name, _), config in configs.items():
            if name == variant.name:
                by_folder[config.out] = config
                measures.setdefault(config.out, {}).update({(variant.row, variant.by(rule)): None for rule in rules})
    return {folder: Job(config, tuple(measures[folder])) for folder, config in by_folder.items()}


def _check_rows(table: str, variants: Sequence[Variant], configs: Configurations) -> None:
    for variant in variants:
        config = next(config for (name, _), config in configs.items() if name == variant.name)
        try:
            rows_behind(build(Config, override(plain(config), variant.infer)), variant.row)
        except UserError as error:
            raise UserError(
                f"{table}, {variant.name!r} with schedule.strategy={config.schedule.strategy}: {error}"
            ) from None


def collect(
    name: str,
    variants: Sequence[Variant],
    base: Config,
    configs: Configurations,
    rules: Sequence[str],
    left_out: Mapping[str, int],
) -> AblationTable:
    """The measurements of a table.

    The spread of a single seed is None. `left_out`: videos without features, by part (see `run_all`).
    """
    seeds = list(dict.fromkeys(seed for _, seed in configs))
    lines = []
    for rule, variant in itertools.product(rules, variants):
        results = []
        for seed in seeds:
            result = read_json(result_file(configs[variant.name, seed], variant.row, variant.by(rule)))
            results.append({key: value for key, value in result.items() if key != "inputs"})
        flat = [{**{f"mAP@{k}": v for k, v in r["mAP"].items()}, **{key: r[key] for key in FIGURES}} for r in results]
        figures = {}
        for key in flat[0]:
            mean, spread = mean_and_spread([f[key] for f in flat])
            figures[key] = {"mean": mean, "spread": spread if len(flat) > 1 else None}
        by_seed = dict(zip(map(str, seeds), results, strict=True))
        said = replace(base.inference, rule=rule).said_rule
        lines.append({"name": variant.name, "rule": said, "figures": figures, "seeds": by_seed})
    about = {"protocol": base.evaluation.protocol, "legend": legend(base)}
    return AblationTable(table=name, **about, seeds=seeds, left_out=dict(left_out), rows=lines)


def markdown(table: Mapping[str, Any]) -> str:
    """A Markdown table a rule, percent, `mean ± spread` (sample standard deviation over seeds), every measured tIoU."""
    parts = [
        f"{table['table']}, protocol `{table['protocol']}`, seeds {', '.join(map(str, table['seeds']))}; percent, "
        "mean ± standard deviation"
    ]
    if phrase := left_out_phrase(table):
        parts.append(phrase)
    for rule, group in itertools.groupby(table["rows"], lambda row: row["rule"]):
        rows = list(group)
        keys = list(rows[0]["figures"])
        lines = [[f"rule `{rule}`", *(FIGURES.get(key, key) for key in keys)]]
        lines += [[row["name"], *(_cell(row["figures"][key]) for key in keys)] for row in rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        cells = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
        bar = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        parts.append("\n".join([cells[0], bar, *cells[1:]]))
    return "\n\n".join([*parts, table["legend"]]) + "\n"


def _cell(figure: Mapping[str, float | None]) -> str:
    # one value has no spread, which is not a spread of 0
    spread = "–" if figure["spread"] is None else f"{100 * figure['spread']:.1f}"
    return f"{100 * figure['mean']:.1f} ± {spread}"


def left_out_phrase(table: Mapping[str, Any]) -> str:
    """How many videos have no features and are in none of the figures; empty where all have."""
    counts = [f"{count} {part}" for part, count in table["left_out"].items() if count]
    return f"without features, and left out: {' and '.join(counts)} videos" if counts else ""
