"""What the comparisons of sounds and of attention share: rows of settings, each trained over seeds and measured."""

import argparse
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from feature_extraction.errors import UserError
from feature_extraction.files import hash8
from wtal.config.load import Config, load_config
from wtal.config.strict import plain
from wtal.runs.ablation.jobs import end_with_parent
from wtal.runs.measure import mean_and_spread

Figures = dict[str, float]
Results = dict[str, dict[int, Figures]]
"""Row -> seed -> its figures."""


def parser_of(doc: str, rows: Sequence[str]) -> argparse.ArgumentParser:
    """Options of a comparison; its inputs are for the caller to add. `rows` are the names that --only takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of runs")
    parser.add_argument(
        "--only", nargs="+", metavar="ROW", choices=rows, default=list(rows), help="rows (default: all)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once, one thread each")
    parser.add_argument("--json", action="store_true", help="every run's figures as JSON")
    return parser


def named_config(config: str, settings: Sequence[str], seed: int, out: Path) -> Config:
    """The configuration of one run, in a folder of `out` named by what it follows from."""
    own = [*settings, f"seed={seed}", "training.threads=1", "training.checkpoint_steps=10000"]
    return load_config(config, [*own, f"out={out / hash8(plain(load_config(config, own)))}"])


def compare(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    run: Callable[[str, int], Figures],
    table: Callable[[Results], str],
) -> None:
    """Make `run(row, seed)` for every row and seed, and print them: JSON where that is asked for, else the table.

    `run` goes to other processes. Bad input ends the program with one line.
    """
    tasks = [(name, seed) for seed in options.seeds for name in options.only]
    found: dict[tuple[str, int], Figures] = {}
    try:
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
            futures = {pool.submit(run, *task): task for task in tasks}
            for future in tqdm(as_completed(futures), total=len(futures), disable=None, unit="run"):
                found[futures[future]] = future.result()
    except UserError as error:
        parser.error(str(error))
    results = {name: {seed: found[name, seed] for seed in options.seeds} for name in options.only}
    print(json.dumps(results, indent=1) if options.json else table(results))


def summary(values: Sequence[float], digits: int, factor: float = 1.0) -> str:
    """Mean and sample standard deviation of `factor` times the values; nothing for what was not measured."""
    known = [factor * value for value in values if not math.isnan(value)]
    if not known:
        return ""
    mean, spread = mean_and_spread(known)
    # one value has no spread, which is not a spread of 0
    return f"{mean:.{digits}f} ± " + (f"{spread:.{digits}f}" if len(known) > 1 else "–")


def markdown(results: Results, titles: dict[str, str], digits: int, factor: float = 1.0) -> list[str]:
    """Lines of a table: a row a variant, a column a figure that any run has, mean and spread over seeds."""
    columns = [key for key in titles if any(key in own for by_seed in results.values() for own in by_seed.values())]
    lines = ["| | " + " | ".join(titles[key] for key in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, by_seed in results.items():
        cells = [summary([own[key] for own in by_seed.values() if key in own], digits, factor) for key in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def contrast(results: Results, better: str, worse: str, key: str, unit: str, digits: int, factor: float = 1.0) -> str:
    """One line: a row over another in a figure, seed by seed."""
    gaps = [results[better][seed][key] - results[worse][seed][key] for seed in results[better]]
    wins = f"{sum(gap > 0 for gap in gaps)} of {len(gaps)} seeds"
    return f"- {better} over {worse}: {summary(gaps, digits, factor)} {unit}, {wins}"
