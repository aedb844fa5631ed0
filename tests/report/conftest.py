"""A small run's report data with real scores."""

from pathlib import Path

import numpy as np
import pytest

from feature_extraction.store.grid import TimeGrid
from wtal.config.inference import InferenceSettings
from wtal.datasets.annotations import Instance
from wtal.inference.detect import detect
from wtal.inference.scores import VideoScores
from wtal.report.data import Chart, Curve, Errors, ReportData, ReportVideo, Table

HOSTILE_LABEL = "<script>window.hacked = 1</script>\"'&\n\u202eright to left\u202c " + "x" * 300
HOSTILE_ID = "a <img src=x onerror='window.hacked = 1'>\" & %2F \u202egnp"
CLASSES = ("hug", "kick", "point", HOSTILE_LABEL)
GRID = TimeGrid(12.5, 8, 4)
SECONDS = 12.0


def write_video(path: Path, seconds: float = SECONDS, fps: int = 25, size: tuple[int, int] = (96, 64)) -> Path:
    """An H.264 file whose brightness tells the time."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "12"}
        count = int(seconds * fps)
        for number in range(count):
            picture = np.full((size[1], size[0], 3), 20 + 200 * number // count, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def random_scores(seed: int, duration: float = SECONDS, attention: bool = True) -> VideoScores:
    """Smooth random scores, so that there are runs above every threshold."""
    rng = np.random.default_rng(seed)
    length = int(np.ceil(duration / GRID.snippet_seconds))
    noise = rng.normal(size=(length + 8, len(CLASSES)))
    smooth = np.stack([np.convolve(noise[:, c], np.ones(5) / 2.2, "valid") for c in range(len(CLASSES))], axis=1)
    frame_TC = (1 / (1 + np.exp(-smooth[:length]))).astype(np.float32)
    video_C = np.sort(rng.uniform(0.3, 1, len(CLASSES))).astype(np.float32)
    attention_T = rng.uniform(0, 1, length).astype(np.float32) if attention else None
    return VideoScores(frame_TC, video_C, GRID, duration, attention_T)


@pytest.fixture(scope="session")
def make_data(tmp_path_factory):
    """`make_data(settings) -> ReportData` of three videos; the first has a video file, the second is
    hostile."""
    video = write_video(tmp_path_factory.mktemp("videos") / "a 100% 'file' #1?.mp4")
    ids = ["plain", HOSTILE_ID, "unlabelled"]
    scores = {
        video_id: {row: random_scores(10 * i + j) for j, row in enumerate(("cbp_warmup", "vlp_raw", "vlp", "ours"))}
        for i, video_id in enumerate(ids)
    }
    truth = (Instance(1.0, 3.5, "hug"), Instance(2.0, 4.0, HOSTILE_LABEL), Instance(6.0, 8.0, "hug"))

    def make(settings: InferenceSettings | None = None) -> ReportData:
        settings = settings or InferenceSettings(class_threshold=0.5)
        videos = tuple(
            ReportVideo(
                video_id,
                SECONDS,
                tuple(detect(scores[video_id]["ours"], CLASSES, settings)),
                labels=() if video_id == "unlabelled" else ("hug", HOSTILE_LABEL),
                ground_truth=None if video_id == "unlabelled" else truth,
                ambiguous=((9.0, 10.0),) if video_id == "plain" else (),
                source=video if video_id == "plain" else None,
                ap=None if video_id == "unlabelled" else 0.25 + i / 2,
                errors=None if video_id == "unlabelled" else Errors(1, 2 + 3 * i, 2),
                note="the video file is gone: <b>x</b>.mp4" if video_id == HOSTILE_ID else "",
            )
            for i, video_id in enumerate(ids)
        )
        steps = tuple(range(0, 100, 10))
        row = {"mAP": {"0.3": 0.5, "0.5": 0.25}, "average_mAP": 0.375, "fg_miou": 0.5, "bg_miou": 0.75}
        return ReportData(
            title="run <b>one</b>",
            classes=CLASSES,
            videos=videos,
            scores=lambda video_id: scores[video_id],
            inference=settings,
            facts=(("Annotations", "/data/<i>x</i>/a.json"),),
            results={"cbp_warmup": row, "ours": {**row, "average_mAP": 0.5}},
            protocol="activitynet",
            charts=(
                Chart(
                    "Loss",
                    "loss",
                    (Curve("kd", steps, tuple(1 / (s + 1) for s in steps)),),
                    (("warmup", 0, 90),),
                ),
            ),
            tables=(Table("AP by class", ("Class", "AP"), tuple((name, 12.5) for name in CLASSES)),),
        )

    return make
