"""Five small benchmarks of temporal pooling: mean and spread over seeds, every free weight chosen on a
development split.

    python tools/bench_pooling.py                      all five, 5 seeds
    python tools/bench_pooling.py --only adaptive,binding --seeds 2
    python tools/bench_pooling.py --keep runs.jsonl    write each finished run there; the same call again goes
    on python tools/bench_pooling.py --layouts FOLDER     real DCASE label files (validation.tsv, public.tsv)
    for `layouts`

The data are generated; `layouts` puts generated features on real event layouts, and is skipped by name where
the label files are not there. The table goes to standard output (Markdown, or `--json`), progress to standard
error.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from pooling_benchmarks import adaptive, binding, gating, sounds  # noqa: E402
from tqdm import tqdm  # noqa: E402


@dataclass(frozen=True)
class Benchmark:
    """A module with `run`, `VARIANTS`, `CHOICES`, `DEV` and `TEST`, and what to say of it."""

    module: ModuleType
    title: str
    leave_out: tuple[str, ...] = ()
    contrasts: tuple[tuple[str, str], ...] = field(default=())
    """(better, worse) as the papers have it; reported per seed whatever comes out."""


CHOSEN_N = "power, learnt n, lambda chosen on dev"
BENCHMARKS = {
    "power": Benchmark(
        sounds,
        "Power pooling, generated layouts: macro event F1",
        contrasts=(
            (CHOSEN_N, "linear_softmax"),
            (CHOSEN_N, "power, one fixed n chosen on dev"),
            (CHOSEN_N, "power, lambda 0"),
            (CHOSEN_N, "attention"),
            (CHOSEN_N, "auto"),
            (CHOSEN_N, "generalized_mean"),
        ),
    ),
    "layouts": Benchmark(
        sounds,
        "Power pooling, real DCASE 2019 label layouts, generated features: macro event F1",
        leave_out=("max", "mean"),
        contrasts=(
            (CHOSEN_N, "linear_softmax"),
            (CHOSEN_N, "power, one fixed n chosen on dev"),
            (CHOSEN_N, "power, lambda 0"),
            (CHOSEN_N, "attention"),
            (CHOSEN_N, "auto"),
            (CHOSEN_N, "generalized_mean"),
        ),
    ),
    "adaptive": Benchmark(
        adaptive,
        "Adaptive (generalised-mean) pooling and bag+instance loss: video mAP",
        contrasts=(
            ("LearnP, bag loss", "AveP, bag loss"),
            ("LearnP, bag loss", "MaxP, bag loss"),
            *(
                ("LearnP, bag+instance, lambda chosen on dev", f"{pool}, bag+instance, lambda chosen on dev")
                for pool in ("AveP", "MaxP")
            ),
            *((f"{pool}, bag+instance, lambda chosen on dev", f"{pool}, bag loss") for pool in adaptive.POOLS),
        ),
    ),
    "gating": Benchmark(
        gating,
        "Context Gating on words whose meaning hangs on the scene: GAP@20",
        contrasts=(
            ("soft-DBoW + CG + MoE", "soft-DBoW + MoE"),
            ("NetRVLAD + CG + MoE", "NetRVLAD + MoE"),
            ("NetFV + CG + MoE", "NetFV + MoE"),
            ("NetVLAD + CG + MoE", "NetVLAD + MoE"),
            ("NetVLAD + CG + MoE + CG", "NetVLAD + CG + MoE"),
            ("NetVLAD + MoE", "mean + MoE"),
        ),
    ),
    "binding": Benchmark(
        binding,
        "Attentional pooling, which object is next to the actor: accuracy",
        contrasts=(
            ("one actor: rank 1", "one actor: average"),
            ("one actor: rank 1", "one actor: max"),
            ("one actor: rank 1", "one actor: frame network + average"),
            ("two actors: rank 1", "two actors: average"),
            ("two actors: rank 2", "two actors: rank 1"),
            ("two actors: rank 2", "two actors: max"),
        ),
    ),
}


def one(benchmark: str, variant: str, seed: int, layouts: Path | None) -> dict[str, float]:
    """One training run on one thread."""
    torch.set_num_threads(1)
    options = {"layouts": layouts} if benchmark == "layouts" else {}
    return BENCHMARKS[benchmark].module.run(variant, seed, **options)


def choose(module: ModuleType, runs: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float]]]:
    """Add the rows whose free weight is chosen, seed by seed, by the development score."""
    rows = dict(runs)
    for name, candidates in module.CHOICES.items():
        seeds = range(len(runs[candidates[0]]))
        rows[name] = [max((runs[c][seed] for c in candidates), key=lambda result: result[module.DEV]) for seed in seeds]
    return rows


def summary(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation of the values that are numbers."""
    kept = [value for value in values if not math.isnan(value)]
    if not kept:
        return {"mean": math.nan, "spread": math.nan}
    return {"mean": float(np.mean(kept)), "spread": float(np.std(kept, ddof=1)) if len(kept) > 1 else 0.0}


def table(name: str, rows: dict[str, list[dict[str, float]]], seconds: float) -> str:
    """Markdown: a row a variant, mean ± standard deviation, then the papers' contrasts seed by seed."""
    benchmark = BENCHMARKS[name]
    module = benchmark.module
    columns = [module.TEST]
    for results in rows.values():
        columns += [key for key in results[0] if key not in columns and key != module.DEV]
    lines = [
        f"### {name}: {benchmark.title}",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for variant, results in rows.items():
        cells = [_cell([r[c] for r in results if c in r]) for c in columns]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    lines.append("")
    for better, worse in benchmark.contrasts:
        gaps = [a[module.TEST] - b[module.TEST] for a, b in zip(rows[better], rows[worse], strict=True)]
        wins = sum(gap > 0 for gap in gaps)
        gap = summary(gaps)
        said = "holds" if wins == len(gaps) else "does NOT hold" if gap["mean"] <= 0 else "holds on average only"
        lines.append(
            f"- {better} over {worse}: {gap['mean']:+.3f} ± {gap['spread']:.3f}, {wins} of {len(gaps)} seeds; {said}"
        )
    return "\n".join([*lines, f"- {seconds:.0f} CPU seconds", ""])


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    s = summary(values)
    if math.isnan(s["mean"]):
        return "-"
    return f"{s['mean']:.0f}" if abs(s["mean"]) >= 100 else f"{s['mean']:.3f} ± {s['spread']:.3f}"


def main() -> int:
    shared = Path(os.environ.get("WTAL_SHARED_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(BENCHMARKS), help="names, joined by commas")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ... (default 5)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes of one thread each")
    parser.add_argument("--layouts", type=Path, default=shared / "sed" / "layouts", help="folder of DCASE label files")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="finished runs, kept and read again")
    parser.add_argument("--json", action="store_true", help="every run's numbers as JSON")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"unknown benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    if options.seeds < 1 or options.jobs < 1:
        parser.error("--seeds and --jobs must be at least 1")
    if "layouts" in names and not (options.layouts / "validation.tsv").is_file():
        print("layouts: skipped, no DCASE label files here (--layouts FOLDER)", file=sys.stderr)
        names.remove("layouts")
    # seed by seed, so that what an interrupted call kept is whole tables of fewer seeds
    tasks = [
        (name, variant, seed)
        for seed in range(options.seeds)
        for name in names
        for variant in BENCHMARKS[name].module.VARIANTS
        if variant not in BENCHMARKS[name].leave_out
    ]
    kept = read_kept(options.keep)
    start = time.perf_counter()
    # spawned, because a forked child inherits torch's thread pools in an unknown state
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(timed, *task, options.layouts): task for task in tasks if task not in kept}
        for future in tqdm(as_completed(futures), total=len(futures), disable=None, unit="run"):
            kept[futures[future]] = future.result()
            if options.keep:
                with open(options.keep, "a", encoding="utf-8") as stream:
                    stream.write(json.dumps([*futures[future], *kept[futures[future]]]) + "\n")
    runs: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in names}
    spent = dict.fromkeys(names, 0.0)
    for task in tasks:
        result, seconds = kept[task]
        runs[task[0]].setdefault(task[1], []).append(result)
        spent[task[0]] += seconds
    total = time.perf_counter() - start
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {options.jobs} processes, torch {torch.__version__}"
    rows = {name: choose(BENCHMARKS[name].module, runs[name]) for name in names}
    if options.json:
        print(json.dumps({"machine": machine, "seconds": total, "seeds": options.seeds, "results": rows}, indent=1))
        return 0
    for name in names:
        print(table(name, rows[name], spent[name]))
    print(f"{options.seeds} seeds, mean ± standard deviation; {total:.0f} s in all on {machine}.")
    return 0


def read_kept(path: Path | None) -> dict[tuple[str, str, int], tuple[dict[str, float], float]]:
    """Finished runs of an earlier call: (benchmark, variant, seed) -> (numbers, CPU seconds)."""
    if path is None or not path.is_file():
        return {}
    kept = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            name, variant, seed, result, seconds = json.loads(line)
        except ValueError:
            continue  # the line that a kill cut short
        kept[name, variant, seed] = (result, seconds)
    return kept


def timed(benchmark: str, variant: str, seed: int, layouts: Path | None) -> tuple[dict[str, float], float]:
    """One run and the CPU seconds it took (a shared machine's clock says little)."""
    start = time.process_time()
    return one(benchmark, variant, seed, layouts), time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
