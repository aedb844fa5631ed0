"""One of the paper's tables: train and measure every variant over several seeds; what is there is not run again."""

import argparse
import json
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "table",
        choices=["table3", "table4", "table5", "table6", "fairness", "beyond", "readings", "pooling", "adaptive"],
        help="which table",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a shipped configuration's name")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that all variants share")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds (default: 0 1 2)")
    parser.add_argument("--out", type=Path, help="folder of runs and tables (default: runs/ablate-<CONFIG>)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once (default: one a core)")
    parser.add_argument(
        "--rules",
        choices=["probability", "softmax", "minmax", "both", "all"],
        help="what a frame's score is, for all rows alike; both: probability and minmax (default: both for "
        "table3, else inference.rule)",
    )
    parser.add_argument(
        "--plug-in-share",
        type=int,
        default=1,
        metavar="N",
        help="train CO2-Net, UM and DELU for 1/N of their published steps, at root-N times the rate (default: 1)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")


def run(options: argparse.Namespace) -> int:
    from feature_extraction.errors import PartialFailure
    from wtal.config.inference import RULES
    from wtal.config.load import load_config
    from wtal.runs.ablation.tables import left_out_phrase, markdown, run_table
    from wtal.runs.sandbox import make_sandbox

    make_sandbox(options.config, load_config(options.config, options.overrides))
    out = options.out or Path("runs") / f"ablate-{Path(options.config).stem}"
    wanted = options.rules or ("both" if options.table == "table3" else None)
    rules = {None: (), "both": ("probability", "minmax"), "all": RULES}.get(wanted, (wanted,))
    share = options.plug_in_share
    table = run_table(options.table, options.config, options.overrides, options.seeds, out, options.jobs, rules, share)
    print(json.dumps(table, indent=1) if options.json else markdown(table), end="\n" if options.json else "")
    if phrase := left_out_phrase(table):
        raise PartialFailure(f"{options.table}: {phrase}; to have them too, extract them and choose another --out")
    return 0
