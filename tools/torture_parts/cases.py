"""The commands that are broken off: what each reads, where it writes, and what it leaves when nothing happens to it."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import yaml

from feature_extraction.networks.i3d import I3D, save_i3d
from tools.torture_parts.child import operations
from tools.torture_parts.ground import CLASSES, configuration, make_world
from wtal.config.strict import dump, plain
from wtal.datasets.annotations import AnnotationSet, Instance, VideoAnnotation, write_activitynet

TIMES = ("started", "command", "wtal_seal")
"""What a manifest says of the hour and the words of its making; its seal, too, is over these."""

_HOUR = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")


@dataclass(frozen=True)
class Case:
    """A command, and what it leaves unbroken."""

    name: str
    arguments: list[str]
    place: Path
    """The folder that it writes, and the only one."""
    start: Path | None
    """What `place` holds before the command; None: nothing."""
    whole: Path
    """What `place` holds after it."""
    wanted: dict[str, str]
    """The same by hash."""
    operations: int
    seconds: float

    def reset(self) -> None:
        """Put `place` to its beginning."""
        shutil.rmtree(self.place, ignore_errors=True)
        if self.start is not None:
            shutil.copytree(self.start, self.place, symlinks=True)


def fingerprint(place: Path) -> dict[str, str]:
    """Hash of every file below `place`; of manifests and pages without the hour that the run began, of what is
    remembered without what it was remembered of (feature files count with the hour of their last change there)."""
    found = {}
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder, name)
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            if name == "manifest.json":
                manifest = {key: value for key, value in json.loads(content).items() if key not in TIMES}
                content = json.dumps(manifest, sort_keys=True).encode()
            elif name == "measured.json" and not path.is_symlink():
                rows = {row: each["figures"] for row, each in json.loads(content).items() if row != "wtal_seal"}
                content = json.dumps(rows, sort_keys=True).encode()
            elif name == "index.html":
                content = _HOUR.sub(b"", content)
            found[str(path.relative_to(place))] = hashlib.sha256(content).hexdigest()
    return found


def make_cases(folder: Path, seed: int, seconds: float) -> list[Case]:
    """Make the worlds below `folder`, and run every command once, unbroken. Raises `SystemExit` where one fails.

    `seconds`: how long they will be attacked. Where it is long enough, ablate with two processes is one of them.
    """
    ground, out = folder / "ground", folder / "out"
    for place in (ground, out, folder / "unbroken"):
        place.mkdir(parents=True)
    make_world(ground, seed)
    run, settings = out / "run", dump(configuration(ground)).replace(str(ground / "run"), str(out / "run"))
    (ground / "config.yaml").write_text(settings)
    cases = [_case(folder, "train", ["train", str(ground / "config.yaml")], run)]
    predict = ["predict", str(run), "--out", str(run / "predictions.json")]
    cases.append(_case(folder, "predict", predict, run, cases[-1].whole))
    cases.append(_case(folder, "report", ["report", str(run)], run, cases[-1].whole))
    config, videos = make_videos(ground)
    extract = ["extract", str(videos), "--config", str(config), "--out", str(out / "store")]
    cases.append(_case(folder, "extract", extract, out / "store"))
    cases.append(_case(folder, "run", ["run", str(_run_config(ground, out / "whole", videos))], out / "whole"))
    # new processes import everything themselves, which takes them as long as dozens of trainings here
    for jobs in (1, 2) if 500 * cases[0].seconds < seconds else (1,):
        words = ["ablate", "table3", str(ground / "config.yaml"), "--seeds", "0", "--jobs", str(jobs)]
        name = "ablate" if jobs == 1 else f"ablate --jobs {jobs}"
        place = out / f"ablate-{jobs}"
        cases.append(_case(folder, name, [*words, "--out", str(place)], place))
    return cases


def _case(folder: Path, name: str, arguments: list[str], place: Path, start: Path | None = None) -> Case:
    ended, number, seconds = operations(arguments, place)
    whole = folder / "unbroken" / name.replace(" ", "")
    if ended.code or not number:
        raise SystemExit(f"wtal {name} fails unbroken ({ended.code}): {ended.said[-2000:]}")
    shutil.copytree(place, whole, symlinks=True)
    return Case(name, arguments, place, start, whole, fingerprint(place), number, seconds)


def write_video(path: Path, frames: int, size: int = 32, **container: str) -> Path:
    """A video of a bar that moves, 25 frames a second."""
    with av.open(str(path), "w", **container) as file:
        stream = file.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(frames):
            image = np.full((size, size, 3), 5 * number % 200, np.uint8)
            image[:, 2 * number % size : 2 * number % size + 5] = 255
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    return path


def make_videos(ground: Path, count: int = 4) -> tuple[Path, Path]:
    """A folder of small videos, and extraction settings with small networks; returns (settings, folder)."""
    videos = ground / "videos"
    videos.mkdir()
    for number in range(count):
        write_video(videos / f"v_{number}.mp4", 20 + 8 * number)
    values = extraction(ground)
    config = ground / "extraction.yaml"
    config.write_text(yaml.safe_dump(values))
    return config, videos


def extraction(ground: Path) -> dict:
    """Settings of an extraction with networks of a few channels, whose weights are made where they are missing."""
    for name, channels in (("rgb", 3), ("flow", 2)):
        if not (ground / f"{name}.safetensors").exists():
            save_i3d(I3D(channels, 4, 1 / 64), ground / f"{name}.safetensors")
    return {
        "streams": ["rgb", "flow"], "short_side": 32, "crop": 0, "device": "cpu", "window": 8, "stride": 8,
        "i3d_rgb": str(ground / "rgb.safetensors"), "i3d_flow": str(ground / "flow.safetensors"),
        "flow": {"scales": 1, "warps": 1, "inner_iterations": 2, "outer_iterations": 1, "median": 1},
    }  # fmt: skip


def _run_config(ground: Path, out: Path, videos: Path) -> Path:
    """Settings of the whole way, from the videos to the report."""
    truth = {}
    for number, path in enumerate(sorted(videos.iterdir())):
        label, subset = CLASSES[number % 2], "validation" if number >= 2 else "training"
        truth[path.stem] = VideoAnnotation(path.stem, subset, (label,), (Instance(0.0, 0.5, label),), 1.0)
    write_activitynet(ground / "whole.json", AnnotationSet(CLASSES[:2], truth))
    settings = plain(configuration(ground))
    settings["data"] |= {
        "annotations": str(ground / "whole.json"), "videos": str(videos), "features": str(out / "features"),
        "streams": ["rgb"],
    }  # fmt: skip
    settings["cbp"] |= {"name": "convolution", "streams": ["rgb"]}
    settings["inference"] |= {"class_rows": []}
    settings["schedule"] |= {"strategy": "warmup_only", "warmup_steps": 4}
    settings |= {"out": str(out), "extraction": {**extraction(ground), "streams": ["rgb"]}}
    path = ground / "whole.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
