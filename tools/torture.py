"""Attack the program for a while, count, and leave a reproducer for whatever came through.

    python tools/torture.py --minutes 20 [--seed S] [--keep FOLDER]

A small run is trained, and then in turn: files of every layout are changed at random and read (one line or a value,
within seconds); bits are flipped and ends cut off in every kind of file that is written (noticed, or without effect);
train, predict and report are killed at random moments and file operations, run on full disks and twice at once, and
gone on with (the same bytes as the unbroken run). Exit code 1 where anything came through. The same seed makes the
same changes; moments of kills are the machine's.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools.torture_parts import flip, kill, mutate  # noqa: E402
from tools.torture_parts.ground import Tally, make_layouts, make_run, make_world  # noqa: E402


def torture(folder: Path, minutes: float, seed: int) -> Tally:
    """Attack for about `minutes`; misses leave their files in `folder`."""
    torch.set_num_threads(1)  # a fork of a process with threads in torch hangs
    tally, world = Tally(), folder / "world"
    annotations = make_world(world, 0)
    make_run(world)
    # kills first: the others leave changed files behind where they are cut short
    now, seconds = time.monotonic, 60 * minutes
    kill.attack(folder / "kills", world, now() + 0.45 * seconds, seed, tally)
    # mutations take the seals off some files of the run, so flips come before them
    make_layouts(folder / "flips", annotations)
    flip.attack(world, folder / "flips" / "i3d.safetensors", now() + 0.15 * seconds, seed, tally)
    mutate.attack(folder, world, annotations, now() + 0.4 * seconds, seed, tally)
    return tally


def main() -> int:
    """Print the counts; 1 where anything came through."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.5, help="how long to attack (default: 1.5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the changes (default: 0)")
    parser.add_argument("--keep", type=Path, help="folder for the files (default: a temporary one, kept on misses)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=options.keep))
    tally = torture(folder, options.minutes, options.seed)
    groups: dict[str, int] = {}
    for name, number in tally.tried.items():
        group = "mutations" if name.startswith("mutations") else name
        groups[group] = groups.get(group, 0) + number
    for name, number in sorted(groups.items()):
        print(f"{number:8} {name}")
    print(f"{len(tally.misses)} came through" + (f"; the files are in {folder}" if tally.misses else ""))
    if not tally.misses:
        shutil.rmtree(folder)
    return 1 if tally.misses else 0


if __name__ == "__main__":
    sys.exit(main())
