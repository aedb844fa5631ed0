"""The bottom-up map taught by boxes (Girdhar and Ramanan, NeurIPS 2017, with poses for boxes).

Legend: B videos, T snippets, P places of a snippet.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feature_extraction.errors import UserError
from wtal.config.groups import RunSettings
from wtal.datasets.boxes import coverage, read_boxes
from wtal.datasets.features import FeatureSet
from wtal.models.branch import BranchOutput
from wtal.training.data import Batch


class MapSupervision:
    """The squared difference between the bottom-up map's size and what boxes cover of each place."""

    def __init__(self, weight: float, covered: Sequence[np.ndarray | None]) -> None:
        """`covered`: `[T, P]` of each training video, NaN where nothing is known; None for one without a box."""
        self.weight, self.covered = weight, covered

    def loss(self, output: BranchOutput, batch: Batch) -> Tensor:
        """Mean over the places of all snippets of the batch that have a box; 0 where none has."""
        map_BTP = output.extra["map_BTP"]
        wanted_BTP = torch.full(map_BTP.shape, torch.nan)
        for row, video in enumerate(batch.videos):
            own_TP = self.covered[video] if video < len(self.covered) else None
            if own_TP is not None:
                index = batch.snippets[row]
                wanted_BTP[row, : len(index)] = torch.from_numpy(own_TP[index].astype(np.float32))
        wanted_BTP = wanted_BTP.to(map_BTP.device)
        known_BTP = ~wanted_BTP.isnan()
        difference_BTP = torch.where(known_BTP, map_BTP - wanted_BTP.nan_to_num(), 0.0)
        return difference_BTP.square().sum() / known_BTP.sum().clamp(min=1)


def map_supervision(config: RunSettings, features: FeatureSet, ids: Sequence[str]) -> MapSupervision | None:
    """What `config.data.boxes` asks for (None: nothing). `ids`: the training videos.

    Raises `UserError` where the branch has no such map, or the table none of the videos.
    """
    path, settings = config.data.boxes, config.cbp
    if not path:
        return None
    if settings.name != "spatial" or settings.pooling.name != "attentional" or not settings.pooling.rank:
        raise UserError(
            "data.boxes teaches the bottom-up map of cbp.name=spatial with cbp.pooling.name=attentional of rank 1 or "
            f"more; this is {settings.name} with {settings.pooling.name}: set those, or leave data.boxes out"
        )
    boxes = read_boxes(Path(path))
    if not set(ids) & set(boxes):
        first = f"its first video is {min(boxes)!r}" if boxes else "it is empty"
        raise UserError(f"{path}: none of the {len(ids)} training videos is in it ({first}, theirs {min(ids)!r})")
    side = round(features.cells[settings.streams[0]] ** 0.5)
    covered = [
        coverage(boxes[video_id], features.grid, features.length(video_id), side) if video_id in boxes else None
        for video_id in ids
    ]
    return MapSupervision(settings.map_weight, covered)
