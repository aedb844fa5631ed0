"""Commands killed at random moments and at chosen file operations, on full disks, two at once: gone on with, the same.

Each command runs in a fork of this process, so that torch is imported once. A kill is SIGKILL.
"""

import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

from tools.torture_parts.ground import Tally, configuration
from wtal.commands.main import main
from wtal.config.strict import dump

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod")


def fingerprint(run: Path) -> dict[str, str]:
    """Hash of every file of a run but of those that hold times of day and paths (settings, manifest, pages)."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and "report" not in path.parts and path.name not in ("config.yaml", "manifest.json")
    }


def start(arguments: list[str], said: Path, kill_at: int | None = None, largest: int | None = None) -> int:
    """Fork; returns the child's number. `kill_at` counts file operations, `largest` bounds a file's bytes."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        if kill_at is not None:
            _count_down(kill_at)
        if largest is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        code = main(arguments)
        sys.stdout.flush()
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _count_down(left: int) -> None:
    def hook(event: str, arguments: tuple) -> None:
        nonlocal left
        if event in EVENTS and arguments and "torture" in str(arguments[0]):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def code_of(child: int) -> int:
    """Exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def attack(folder: Path, world: Path, end: float, seed: int, tally: Tally) -> None:
    """Kill, fill and double commands until the clock shows `end`; compare what they leave with the unbroken run."""
    rng = random.Random(seed)
    wanted = fingerprint(world / "run")
    number = 0
    while not number or time.monotonic() < end:
        number += 1
        place = folder / f"kills-{number}"
        place.mkdir(parents=True)
        _one(place, world, rng, wanted, tally)
        if not tally.misses:
            shutil.rmtree(place)


def _one(place: Path, world: Path, rng: random.Random, wanted: dict[str, str], tally: Tally) -> None:
    run, said, config = place / "run", place / "said.txt", place / "config.yaml"
    settings = dump(configuration(world)).replace(str(world / "run"), str(run))
    config.write_text(settings)
    stages = [
        ["train", str(config)],
        ["predict", str(run), "--out", str(run / "predictions.json")],
        ["report", str(run)],
    ]
    for stage in stages:
        for _ in range(rng.randint(1, 3)):
            _break(stage, said, rng, tally)
        code = code_of(start(stage, said))
        if code:
            tally.miss(f"wtal {stage[0]} does not go on after breaks ({code}): {said.read_text()[-300:]!r} in {place}")
            return
    found = fingerprint(run)
    if found != wanted:
        different = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        tally.miss(f"after breaks {different[:6]} differ from the unbroken run's, in {place}")
    if litter := [str(path) for path in run.rglob(".*.part")]:
        tally.miss(f"left behind: {litter[:3]}")


def _break(stage: list[str], said: Path, rng: random.Random, tally: Tally) -> None:
    kind = rng.choice(("moment", "operation", "operation", "full", "two"))
    tally.count(f"breaks of {stage[0]}: {kind}")
    if kind == "moment":
        child = start(stage, said)
        time.sleep(rng.uniform(0, 1.5))
        try:
            os.kill(child, signal.SIGKILL)
        finally:
            code_of(child)
    elif kind == "operation":
        code_of(start(stage, said, kill_at=rng.randint(0, 120)))
    elif kind == "full":
        code = code_of(start(stage, said, largest=rng.choice((0, 100, 1000, 10_000, 40_000))))
        text = said.read_text()
        if "Traceback" in text or code not in (0, 1, 2, 70):
            tally.miss(f"wtal {stage[0]} on a full disk ended with {code}: {text[-300:]!r}")
    else:
        children = [start(stage, said.with_suffix(f".{n}")) for n in range(2)]
        codes = [code_of(child) for child in children]
        texts = [said.with_suffix(f".{n}").read_text() for n in range(2)]
        if any("Traceback" in text for text in texts) or not set(codes) <= {0, 2}:
            tally.miss(f"two of wtal {stage[0]} ended with {codes}: {[text[-200:] for text in texts]}")
