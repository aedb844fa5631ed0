"""Training steps at THUMOS14's widths, and scoring with what they train. The VLP branch with fixed texts, and with
learnt prompts through a text tower of CLIP's size and random weights.

The features are random numbers: 2 x 1024 wide for a CBP branch, 512 for the VLP branch, lengths as THUMOS14's.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from feature_extraction.files import write_json
from feature_extraction.store.stream import create_stream
from wtal.commands.bench_stages.measure import Bench, Row, flops_of
from wtal.config.load import Config
from wtal.config.strict import build
from wtal.datasets.annotations import AnnotationSet, VideoAnnotation, write_activitynet
from wtal.datasets.features import FeatureSet
from wtal.inference.scores import score_videos
from wtal.models.build import CBP_BRANCHES, build_branches
from wtal.training.folder import RunFolder
from wtal.training.processes import Processes
from wtal.training.quality import PhaseQuality, Tracker
from wtal.training.run import training_videos
from wtal.training.schedule import Phase, plan
from wtal.training.statistics import measure, start_at_mean
from wtal.training.student import make_student
from wtal.training.trainer import Trainer

CLASSES = tuple(f"class {i:02d}" for i in range(20))
BRANCHES = tuple(name for name in CBP_BRANCHES if name != "spatial")
"""Those that take one feature a snippet."""
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
"""The text tower of CLIP ViT-B."""
DIMS = {"rgb": 1024, "flow": 1024, "clip": 512}


@cache
def make_store(folder: Path, videos: int) -> Path:
    """Random features of videos of log-normal lengths (median 270 snippets, as THUMOS14's), labels and texts."""
    rng = np.random.default_rng(0)
    identity = {"fps": 25.0, "window": 16, "stride": 16}
    streams = {name: create_stream(folder / "features", name, {**identity, "dim": dim}) for name, dim in DIMS.items()}
    known = {}
    for number, length in enumerate(np.clip(rng.lognormal(np.log(270), 0.65, videos), 20, 2500).astype(int)):
        video_id = f"video_{number:04d}"
        for name, stream in streams.items():
            array_TD = rng.standard_normal((length, DIMS[name]), dtype=np.float32)
            stream.write(video_id, array_TD, {"duration": length * 0.64, "source": ""})
        known[video_id] = VideoAnnotation(video_id, "training", (CLASSES[number % 20],), (), length * 0.64)
    known["test"] = VideoAnnotation("test", "validation", (CLASSES[0],))
    write_activitynet(folder / "annotations.json", AnnotationSet(CLASSES, known))
    np.savez(folder / "text.npz", names=np.array(CLASSES), embeddings=rng.normal(size=(20, 512)).astype(np.float32))
    return folder / "features"


def make_trainer(bench: Bench, name: str, text: str = "precomputed") -> tuple[Trainer, FeatureSet]:
    """A trainer of the default settings but for the CBP branch and the VLP's texts; in a hurry with smaller batches of
    shorter crops."""
    folder = bench.folder / "training"
    store = make_store(folder, 30 if bench.quick else 200)
    size = {"batch": 4, "snippets": 64} if bench.quick else {"batch": 10, "snippets": 320}
    fixed = {"text_embeddings": str(folder / "text.npz")} if text == "precomputed" else {}
    tower = folder / "clip.json"
    seen = {"image_size": 32, "patch_size": 32, "layers": 1, "width": 64}  # nothing is shown to the image tower
    write_json(tower, {"embed_dim": DIMS["clip"], "vision_cfg": seen, "text_cfg": TEXT})
    config = build(
        Config,
        {
            "out": str(folder / f"{name}-{text}"),
            "data": {"annotations": str(folder / "annotations.json"), "features": str(store)},
            "cbp": {"name": name},
            "vlp": {"text": text, "scale": 20.0} | fixed,
            "extraction": {"clip_model": str(tower), "clip_pretrained": None},
            "schedule": {"warmup_steps": 10**6, "rounds": 1, "b_steps": 10**6, "f_steps": 10**6},
            "optimizer": size,
            "training": {"checkpoint_steps": 10**9},
        },
    )
    features = FeatureSet(store)
    ids = list(features.ids())
    annotations = AnnotationSet(CLASSES, {v: VideoAnnotation(v, "", (CLASSES[i % 20],)) for i, v in enumerate(ids)})
    branches = build_branches(config, features, CLASSES, measure(config, features, ids[:20], size["snippets"]))
    start_at_mean(branches, features, ids[:20])
    for part in (branches.cbp, branches.vlp, branches.raw_vlp):
        part.to(bench.device)
    run = RunFolder(Path(config.out))
    run.path.mkdir(exist_ok=True)  # two stages may step the same branch
    trainer = Trainer(
        config, run, training_videos(features, annotations, ids),
        {part: make_student(getattr(branches, part), 1e-4, 0.0, False) for part in ("cbp", "vlp")},
        branches.raw_vlp, PhaseQuality(features, annotations, ids, 0.3), Tracker(run.path, False), Processes(),
        bench.device,
    )  # fmt: skip
    return trainer, features


def training(bench: Bench) -> Iterator[Row]:
    """One step of each phase of each of `BRANCHES`; the ceiling is the step's matrix products, the baseline the same
    step with one video at a time through the network."""
    for name in BRANCHES:
        trainer, _ = make_trainer(bench, name)
        for phase in plan(trainer.config.schedule):
            if phase.kind != "B":
                yield _step(bench, trainer, phase, name)
            elif name == "transformer":  # B steps train the VLP branch, whatever the CBP branch is
                yield _step(bench, trainer, phase, "VLP")
                learning, _ = make_trainer(bench, name, text="learned")
                yield _step(bench, learning, phase, "VLP with learnt prompts")


def _step(bench: Bench, trainer: Trainer, phase: Phase, branch: str) -> Row:
    pseudo = trainer._pseudo_labels(phase)
    whole = trainer.config
    sliced = replace(whole, optimizer=replace(whole.optimizer, slice=1))
    batches = trainer._load(phase, trainer.step)

    def step(config: Config) -> None:
        trainer.config = config
        trainer._train_step(phase, batches, pseudo)

    flops = flops_of(lambda: step(whole))
    took = bench.seconds({"whole": lambda: step(whole), "sliced": lambda: step(sliced)}, 1 if bench.quick else 3)
    trainer.config = whole
    size = f"{whole.optimizer.batch} x {whole.optimizer.snippets}"
    return Row(
        "training", f"{branch}, {phase.kind}, {size} snippets", 1 / took["whole"], "steps", bench.product / flops,
        "its matrix products", took["sliced"] / took["whole"], "PyTorch, eager, one video at a time",
    )  # fmt: skip


def scoring(bench: Bench) -> Iterator[Row]:
    """Whole videos through the convolution; the ceiling is its matrix products."""
    trainer, features = make_trainer(bench, "convolution")
    branch = trainer.students["cbp"].branch
    ids = list(features.ids())[: 20 if bench.quick else 100]

    def score() -> None:
        for output, _ in score_videos(branch, features, ids, bench.device):
            output.p_BTC.cpu()

    flops = flops_of(score)
    snippets = sum(features.length(video_id) for video_id in ids)
    took = bench.seconds({"score": score})["score"]
    yield Row(
        "scoring", "convolution, whole videos", snippets / took, "snippets", bench.product * snippets / flops,
        "its matrix products",
    )  # fmt: skip
