"""A generated feature store with the paper's two defects, small enough to train in a second."""

from pathlib import Path

import numpy as np
import pytest

from feature_extraction.store.stream import create_stream
from wtal.config.load import Config
from wtal.config.strict import build
from wtal.datasets.annotations import AnnotationSet, Instance, VideoAnnotation, write_activitynet

CLASSES = ("Jump", "Throw", "Wave")
SNIPPET = 0.64


def make_world(folder: Path, training: int = 12, test: int = 6, seed: int = 0) -> None:
    """I3D-like streams show a class in the middle third of its instances; CLIP-like ones also in the context."""
    rng = np.random.default_rng(seed)
    identity = {"fps": 25.0, "window": 16, "stride": 16}
    dims = {"rgb": 16, "flow": 16, "clip": 8}
    streams = {name: create_stream(folder / "features", name, {**identity, "dim": dim}) for name, dim in dims.items()}
    direction = {name: np.linalg.qr(rng.normal(size=(dim, dim)))[0][: len(CLASSES)] for name, dim in dims.items()}
    videos = {}
    for number in range(training + test):
        subset = "training" if number < training else "validation"
        video_id = f"{subset}_{number:02d}"
        length = int(rng.integers(30, 50))
        label = number % len(CLASSES)
        starts = np.sort(rng.choice(np.arange(3, length - 12, 12), 2, replace=False))
        feature = {name: 0.4 * rng.normal(size=(length, dim)) for name, dim in dims.items()}
        instances = []
        for start in starts:
            instances.append(Instance(float(start * SNIPPET), float((start + 6) * SNIPPET), CLASSES[label]))
            for name in ("rgb", "flow"):
                feature[name][start + 2 : start + 4] += 3 * direction[name][label]
                feature[name][start : start + 6] += 0.8 * direction[name][label]
            feature["clip"][max(0, start - 3) : start + 9] += 2 * direction["clip"][label]
        videos[video_id] = VideoAnnotation(video_id, subset, (CLASSES[label],), tuple(instances), length * SNIPPET)
        for name, stream in streams.items():
            stream.write(video_id, feature[name], {"duration": length * SNIPPET, "source": f"{video_id}.mp4"})
    write_activitynet(folder / "annotations.json", AnnotationSet(CLASSES, videos))
    np.savez(folder / "text.npz", names=np.array(CLASSES), embeddings=direction["clip"].astype(np.float32))


def world_config(folder: Path, **sections) -> Config:
    """A configuration for `make_world`'s files with few steps; `sections` replace or extend whole sections."""
    values = {
        "out": str(folder / "run"),
        "data": {"annotations": str(folder / "annotations.json"), "features": str(folder / "features")},
        "cbp": {"width": 16, "heads": 2, "window": 2, "dropout_in": 0.2, "dropout_out": 0.2},
        "vlp": {
            "text": "precomputed",
            "text_embeddings": str(folder / "text.npz"),
            "heads": 2,
            "window": 2,
            "scale": 10.0,
        },
        "schedule": {"warmup_steps": 12, "rounds": 2, "b_steps": 6, "f_steps": 6},
        "optimizer": {"lr": 3e-3, "vlp_lr": 3e-3, "batch": 6, "snippets": 32},
        "training": {"checkpoint_steps": 4, "log_steps": 3, "threads": 1},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return build(Config, values)


@pytest.fixture
def world(tmp_path):
    make_world(tmp_path)
    return tmp_path


@pytest.fixture
def make_config(world):
    """`make_config(out="name", section={...})`: a configuration for this test's world, in a run folder of that name."""
    return lambda out="run", **sections: world_config(world, out=str(world / out), **sections)


@pytest.fixture
def generate():
    """The generator of a world, for tests that want another size or seed."""
    return make_world
