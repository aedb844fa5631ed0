"""A feature store looked through, file by file: `verify` says what is damaged, `repair` puts it aside.

Every array is compared with the hash in its sidecar. `repair` renames damaged videos to <file>.damaged, so that the
same `wtal extract` or `wtal convert features` as before makes them again, gives a hash to videos that have none, and
removes what killed writers left. The exit code is 3 where something was damaged.
"""

import argparse
import json
from pathlib import Path

SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal store verify|repair STORE`."""
    parser.add_argument("action", choices=("verify", "repair"), help="look, or look and put in order")
    parser.add_argument("store", type=Path, metavar="STORE", help="feature store of `wtal extract` or `wtal convert`")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every name")


def run(options: argparse.Namespace) -> int:
    """Print what was found; returns the exit code."""
    from tqdm import tqdm

    from feature_extraction.store.verify import repair_store, verify_store

    act = verify_store if options.action == "verify" else repair_store
    check = act(options.store, lambda items: tqdm(items, desc=options.action, unit="video", disable=None))
    if options.json:
        print(json.dumps(check.plain(), ensure_ascii=False, indent=1))
        return 3 if check.damaged else 0
    print(f"{check.whole} whole, {len(check.damaged)} damaged, {len(check.unhashed)} without a hash, "
          f"{len(check.parts)} parts of killed writers")  # fmt: skip
    shown = list(check.damaged.items())[:SHOWN]
    print(*(f"  {name}: {reason}" for name, reason in shown), sep="\n", end="\n" if shown else "")
    if len(shown) < len(check.damaged):
        print(f"  ... {len(check.damaged) - len(shown)} more; --json has all")
    if options.action == "repair" and check.damaged:
        print("put aside as <file>.damaged; run the extraction or conversion again")
    elif check.damaged or check.unhashed:
        print(f"`wtal store repair {options.store}` puts the damaged aside and gives a hash to those without")
    return 3 if check.damaged else 0
