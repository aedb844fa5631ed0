"""Check this machine: versions, devices, decoders, codecs, weights, write access; what to do about problems.

Exit code 0 where nothing is wrong (notes are not wrong), 1 where something will fail.
"""

import argparse
import dataclasses
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from feature_extraction.errors import reason_of

OK, NOTE, PROBLEM = "ok", "note", "problem"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal doctor`."""
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where runs will be written")
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of the lines")


def run(options: argparse.Namespace) -> int:
    findings = examine(options.out)
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], ensure_ascii=False, indent=1))
    else:
        for finding in findings:
            print(f"{finding.state:8} {finding.about}: {finding.text}")
            if finding.advice:
                print(f"{'':8} -> {finding.advice}")
        problems = sum(finding.state == PROBLEM for finding in findings)
        print(f"{problems} problem{'s' if problems != 1 else ''}" if problems else "nothing is wrong")
    return 1 if any(finding.state == PROBLEM for finding in findings) else 0


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    about: str
    state: Literal["ok", "note", "problem"]
    """`note`: works, but with less than it could; `problem`: something will fail."""
    text: str
    advice: str = ""
    """What to do; empty where all is well."""


def examine(out: Path) -> list[Finding]:
    """Run every check of `CHECKS`; `out` is where runs would be written. A check that breaks is itself a finding."""
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            findings += check(out)
        except Exception as error:  # a broken installation may raise anything at all
            reason = f"{type(error).__name__}: {reason_of(error, 300)}"
            findings.append(Finding(name, PROBLEM, f"the check itself failed ({reason})", "install wtal again"))
    return findings


def _python(out: Path) -> Iterator[Finding]:
    version = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("python", OK, version)


PACKAGES = {
    # distribution: module
    "torch": "torch",
    "open_clip_torch": "open_clip",
    "decord2": "decord",
    "av": "av",
    "opencv-contrib-python-headless": "cv2",
    "numba": "numba",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
    "safetensors": "safetensors",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
}


def _packages(out: Path) -> Iterator[Finding]:
    for name, module in PACKAGES.items():
        version = _version(name)
        try:
            _import(module)
        except Exception as error:  # an import runs foreign code
            advice = f"pip install --force-reinstall {name}"
            yield Finding(
                "packages", PROBLEM, f"{name} {version or 'missing'}: cannot be imported ({reason_of(error)})", advice
            )
            continue
        if version is None:
            yield Finding(
                "packages", NOTE, f"{module} comes from another distribution than {name}", f"pip install {name}"
            )
        else:
            yield Finding("packages", OK, f"{name} {version}")


def _clashes(out: Path) -> Iterator[Finding]:
    if _version("decord") and _version("decord2"):
        yield Finding(
            "packages",
            PROBLEM,
            "decord and decord2 are both installed and overwrite each other's files",
            "pip uninstall decord decord2 && pip install decord2",
        )
    others = [name for name in ("opencv-python", "opencv-python-headless", "opencv-contrib-python") if _version(name)]
    if others and _version("opencv-contrib-python-headless"):
        yield Finding(
            "packages",
            NOTE,
            f"{', '.join(others)} beside opencv-contrib-python-headless: they overwrite each other's files",
            f"pip uninstall {' '.join(others)} && pip install --force-reinstall opencv-contrib-python-headless",
        )


def _devices(out: Path) -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB of memory"
    yield Finding("devices", OK, f"{cores} CPU cores{memory}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            yield Finding("devices", OK, f"cuda:{index} {found.name}, {found.total_memory / 2**30:.0f} GiB")
        torch.zeros(8, device="cuda").sum().item()
    elif torch.version.cuda:
        yield Finding(
            "devices",
            NOTE,
            f"torch is built for CUDA {torch.version.cuda}, but no GPU can be used",
            "check `nvidia-smi`; the driver may be older than this CUDA version",
        )
    else:
        yield Finding(
            "devices",
            NOTE,
            "no GPU: torch is a CPU build",
            "fine for small runs; on a GPU machine install torch for CUDA",
        )


CODECS = {
    # what a file holds: decoders of which one must be there
    "H.264": ("h264",),
    "HEVC": ("hevc",),
    "VP9": ("vp9", "libvpx-vp9"),
    "AV1": ("libdav1d", "av1", "libaom-av1"),
    "MPEG-4": ("mpeg4",),
}


def _codecs(out: Path) -> Iterator[Finding]:
    import av

    missing = [name for name, decoders in CODECS.items() if not any(_has_codec(av, name) for name in decoders)]
    if missing:
        advice = "pip install --force-reinstall --only-binary=:all: av, or convert such files with ffmpeg"
        yield Finding("codecs", PROBLEM, f"PyAV cannot decode {', '.join(missing)}", advice)
    else:
        yield Finding("codecs", OK, f"PyAV decodes {', '.join(CODECS)}")


def _has_codec(av, name: str) -> bool:
    try:
        av.codec.Codec(name, "r")
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def _decoders(out: Path) -> Iterator[Finding]:
    """Write a second of H.264 and read it back with both decoders."""
    import av

    from feature_extraction.video.read import read_frames

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(25):
                picture = np.full((48, 64, 3), 10 * number, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        for decoder in ("decord", "pyav"):
            try:
                count = sum(1 for _ in read_frames(path, decoder))
            except Exception as error:  # foreign code, foreign errors
                count, reason = 0, f" ({reason_of(error)})"
            else:
                reason = ""
            if count == 25:
                yield Finding("decoders", OK, f"{decoder} reads an H.264 file back")
            else:
                package = "decord2" if decoder == "decord" else "av"
                yield Finding(
                    "decoders",
                    PROBLEM,
                    f"{decoder} gave {count} of 25 frames of an H.264 file{reason}",
                    f"pip install --force-reinstall {package}",
                )


def _optical_flow(out: Path) -> Iterator[Finding]:
    import torch

    from feature_extraction.flow.compute import cuda_backend, tvl1_flow

    frames = np.random.default_rng(0).uniform(0, 255, (2, 32, 32)).astype(np.float32)
    flow = np.asarray(tvl1_flow(frames[:1], frames[1:]))
    state = OK if flow.shape == (1, 2, 32, 32) and np.isfinite(flow).all() else PROBLEM
    yield Finding(
        "optical flow",
        state,
        "TV-L1 runs" if state == OK else "TV-L1 gives no flow",
        "" if state == OK else "pip install --force-reinstall numba",
    )
    if torch.cuda.is_available():
        backend, reason = cuda_backend("cuda")
        if backend == "triton":
            yield Finding("optical flow", OK, "TV-L1 on cuda: Triton")
        else:
            yield Finding("optical flow", NOTE, f"TV-L1 on cuda: PyTorch, slower: {reason}", "pip install triton")


def _weights(out: Path) -> Iterator[Finding]:
    from feature_extraction.errors import UserError
    from feature_extraction.networks import weights
    from feature_extraction.networks.clip_models import public_clip
    from wtal.config.shipped import shipped_folder

    try:
        shipped = sorted(
            path.name for path in shipped_folder("data/sandbox").iterdir() if path.suffix == ".safetensors"
        )
    except UserError as error:
        yield Finding("weights", PROBLEM, str(error), "install wtal again")
    else:
        lacking = {"i3d_rgb.safetensors", "i3d_flow.safetensors", "clip.safetensors"} - set(shipped)
        if lacking:
            yield Finding(
                "weights", PROBLEM, f"shipped towers are missing: {', '.join(sorted(lacking))}", "install wtal again"
            )
        else:
            yield Finding("weights", OK, f"shipped towers: {', '.join(shipped)} (for the sandbox; weak on real video)")
    for name in ("i3d-rgb", "i3d-flow"):
        try:
            found = weights.find(name)
        except UserError as error:
            yield Finding("weights", PROBLEM, str(error), f"unset {weights.VARIABLE} or make the folder")
            continue
        if found:
            yield Finding("weights", OK, f"{name}: {found}")
        else:
            yield Finding("weights", NOTE, f"{name}: not on this machine", f"wtal weights fetch {name}")
    if clip := public_clip():
        yield Finding("weights", OK, f"CLIP: {clip}")
    else:
        yield Finding(
            "weights",
            NOTE,
            "CLIP ViT-B-16-quickgelu (openai): not on this machine",
            f"wtal weights fetch clip, or put it into ${weights.VARIABLE} as ViT-B-16-quickgelu-openai.safetensors",
        )


def _writing(out: Path) -> Iterator[Finding]:
    from feature_extraction.networks.weights import cache_folder

    places = {"runs": out, "cache of weights": cache_folder(), "temporary files": Path(tempfile.gettempdir())}
    for what, place in places.items():
        existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                free = shutil.disk_usage(existing).free / 2**30
        except OSError as error:
            yield Finding(
                "writing",
                PROBLEM,
                f"{what}: {existing} cannot be written ({error.strerror})",
                f"choose another folder or change its owner: sudo chown $USER {existing}",
            )
            continue
        if free < 1:
            yield Finding("writing", NOTE, f"{what}: {existing} has {free:.1f} GiB free", "free some space")
        else:
            yield Finding("writing", OK, f"{what}: {existing} can be written, {free:.0f} GiB free")


def _import(module: str) -> None:
    if module == "open_clip":
        from feature_extraction.networks.clip_models import import_open_clip

        import_open_clip()
    else:
        importlib.import_module(module)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


CHECKS: dict[str, Callable[[Path], Iterator[Finding]]] = {
    # in the order of the report
    "python": _python,
    "packages": _packages,
    "clashes": _clashes,
    "devices": _devices,
    "codecs": _codecs,
    "decoders": _decoders,
    "optical flow": _optical_flow,
    "weights": _weights,
    "writing": _writing,
}
