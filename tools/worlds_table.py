"""Tables of the ablation over several simulated worlds: one row a variant, one column a world.

    python tools/worlds_table.py ANNOTATIONS --worlds 100 101 102 103 104 105 --tables table3 table4 --out FOLDER

Worlds that FOLDER lacks are made first (tools/simulate_features.py), runs and measurements that it has are not made
again, so a stopped call goes on. Cells are average mAP, mean ± standard deviation over seeds of training; the last
columns say in how many worlds *ours* (the last row of table3) is above the row, and by how much in the mean.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from feature_extraction.errors import UserError  # noqa: E402
from wtal.config.inference import RULES  # noqa: E402
from wtal.runs.ablation.tables import TABLES, run_table  # noqa: E402

OURS = "ours"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that all runs share")
    parser.add_argument("--format", default="thumos-npy", help="of the annotations")
    parser.add_argument("--worlds", type=int, nargs="+", required=True)
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=["table3", "table4"])
    parser.add_argument("--rules", nargs="+", choices=RULES, default=["probability"])
    parser.add_argument("--config", default="thumos14_simulated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--plug-in-share", type=int, default=1, help="as of `wtal ablate`")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    # (rule, row) -> world -> seed -> its figures
    cells: dict[tuple[str, str], dict[int, dict[str, dict]]] = {}
    try:
        for world in options.worlds:
            folder = simulated(options, world)
            inputs = {"annotations": "annotations.json", "features": "features"}
            overrides = [f"data.{key}={folder / name}" for key, name in inputs.items()]
            overrides += [f"vlp.text_embeddings={folder / 'text.npz'}", *options.overrides]
            for table in options.tables:
                runs = folder / f"ablate-{Path(options.config).stem}"
                asked = (options.seeds, runs, options.jobs, options.rules, options.plug_in_share)
                made = run_table(table, options.config, overrides, *asked)
                for row in made["rows"]:
                    cells.setdefault((row["rule"], row["name"]), {})[world] = row["seeds"]
    except UserError as error:
        print(f"worlds_table: {error}", file=sys.stderr)
        return 2
    for rule in dict.fromkeys(rule for rule, _ in cells):
        print(markdown(rule, {name: by for (own, name), by in cells.items() if own == rule}), end="\n\n")
    return 0


def simulated(options: argparse.Namespace, world: int) -> Path:
    """The folder of a world, made where it is not there."""
    folder = options.out / f"world{world}"
    if not (folder / "annotations.json").is_file():
        command = [sys.executable, str(ROOT / "tools" / "simulate_features.py"), str(options.annotations)]
        command += ["--format", options.format, "--world", str(world), "--out", str(folder)]
        if subprocess.run(command, stdout=sys.stderr).returncode:
            raise UserError(f"world {world} could not be made; see above")
    return folder


def markdown(rule: str, rows: dict[str, dict[int, dict[str, dict]]]) -> str:
    """The table of one rule."""
    worlds = list(next(iter(rows.values())))
    average = {
        name: {w: [100 * seed["average_mAP"] for seed in by[w].values()] for w in worlds} for name, by in rows.items()
    }
    known = {
        name: [100 * s["average_mAP_true_classes"] for w in worlds for s in by[w].values()] for name, by in rows.items()
    }
    lines = [[f"rule `{rule}`", *map(str, worlds), "mean", "true classes", "ours above in", "ours above by"]]
    for name, by in average.items():
        means = {w: statistics.mean(by[w]) for w in worlds}
        line = [name, *(cell(by[w]) for w in worlds), f"{statistics.mean(means.values()):.1f}"]
        line.append(f"{statistics.mean(known[name]):.1f}")
        if OURS in average and name != OURS:
            gain = [statistics.mean(average[OURS][w]) - means[w] for w in worlds]
            line += [f"{sum(g > 0 for g in gain)} of {len(worlds)}", f"{statistics.mean(gain):.1f}"]
        lines.append([*line, *["–"] * (len(lines[0]) - len(line))])
    bar = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], bar, *lines[1:]])


def cell(values: list[float]) -> str:
    """Mean and spread; one value has none."""
    spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else "–"
    return f"{statistics.mean(values):.1f} ± {spread}"


if __name__ == "__main__":
    sys.exit(main())
