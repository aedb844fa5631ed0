"""Frame and video scores of one video: what a trained branch says before anything is thresholded.

Legend: T snippets, C classes.
"""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write
from feature_extraction.store.grid import TimeGrid
from wtal.datasets.features import FeatureSet
from wtal.models.branch import BranchOutput, masked_min_max
from wtal.models.streams import StreamedBranch


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video by one branch. Kept in a run folder as `scores/<row>/<video id>.npz`."""

    frame_TC: np.ndarray
    """float32 `[T, C]`, probability of each class in each snippet, 0..1."""
    video_C: np.ndarray
    """float32 `[C]`, probability of each class in the video, 0..1."""
    grid: TimeGrid
    duration: float
    """Seconds."""
    attention_T: np.ndarray | None = None
    """float32 `[T]`, class-agnostic actionness 0..1, where the branch has one."""

    def __post_init__(self) -> None:
        if self.frame_TC.ndim != 2 or self.video_C.shape != self.frame_TC.shape[1:]:
            raise ValueError(
                f"frame_TC {self.frame_TC.shape} and video_C {self.video_C.shape} do not fit [T, C] and [C]"
            )
        if self.attention_T is not None and self.attention_T.shape != self.frame_TC.shape[:1]:
            raise ValueError(f"attention_T {self.attention_T.shape} does not fit frame_TC {self.frame_TC.shape}")

    def save(self, path: Path) -> None:
        """Write to an npz file, whole or not at all."""
        arrays = {"frame_TC": self.frame_TC.astype(np.float32), "video_C": self.video_C.astype(np.float32)}
        if self.attention_T is not None:
            arrays["attention_T"] = self.attention_T.astype(np.float32)
        time = np.array([self.grid.fps, self.grid.window, self.grid.stride, self.duration], dtype=np.float64)
        with atomic_write(path) as stream:
            np.savez(stream, time=time, **arrays)

    @classmethod
    def load(cls, path: Path) -> "VideoScores":
        """Read what `save` wrote. Raises `UserError` for a missing, damaged or foreign file and for values that are
        not finite."""
        try:
            # opened here, because numpy leaves a damaged archive open
            with open(path, "rb") as stream:
                if not zipfile.is_zipfile(stream):
                    raise ValueError("no npz archive, or a part of one")
                stream.seek(0)
                file = np.load(stream, allow_pickle=False)
                fps, window, stride, duration = file["time"].tolist()
                attention_T = file["attention_T"] if "attention_T" in file.files else None
                grid = TimeGrid(fps, int(window), int(stride))
                scores = cls(file["frame_TC"], file["video_C"], grid, duration, attention_T)
            if not len(scores.frame_TC):
                raise ValueError("it has no snippet")
            for name in ("frame_TC", "video_C", "attention_T", "duration"):
                values = getattr(scores, name)
                if values is not None and not np.isfinite(values).all():
                    raise ValueError(f"{name} has values that are infinite or not numbers")
            return scores
        except FileNotFoundError:
            raise UserError(f"{path}: no such score file; run `wtal predict` first") from None
        except Exception as error:
            # a damaged archive comes as anything from EOFError over BadZipFile and zlib.error to TokenError
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{path}: not a score file of wtal ({reason})") from None


@torch.no_grad()
def score_videos(
    branch: StreamedBranch, features: FeatureSet, ids: Sequence[str], device: torch.device
) -> Iterator[tuple[BranchOutput, Tensor]]:
    """Output of `branch` (in evaluation mode) on each whole video, one after the other, with its mask `[1, T]`."""
    training = branch.training
    branch.eval()
    try:
        texts_CD = branch.class_texts()
        for video_id in ids:
            streams = features.read(video_id)
            feature = {
                name: torch.from_numpy(streams[name].astype(np.float32))[None].to(device) for name in branch.streams
            }
            mask_BT = torch.ones(next(iter(feature.values())).shape[:2], dtype=torch.bool, device=device)
            yield branch(feature, mask_BT, texts_CD), mask_BT
    finally:
        branch.train(training)


def frame_scores(output: BranchOutput, mask_BT: Tensor, rule: str) -> Tensor:
    """Frame scores 0..1 `[B, T, C]`: P itself (`probability`) or logits min-max scaled per video and class."""
    if rule == "probability":
        return output.p_BTC
    if rule == "minmax":
        return masked_min_max(output.logit_BTC, mask_BT)
    raise ValueError(f"score rule {rule!r} is not one of 'probability', 'minmax'")
