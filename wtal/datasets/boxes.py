"""Boxes of what a map should lie on: a CSV table, and the share of each place of a grid that they cover.

    video,start,end,left,top,right,bottom
    clip1,0.0,0.5,0.25,0.1,0.5,0.9

Seconds, and shares of the picture's width and height from its upper left corner, as the features' pictures show it.
Rows at one time are taken together; times without a row are not known.

Legend: R rows, F frames, T snippets, P places of a snippet, G = sqrt(P).
"""

import math
from pathlib import Path

import numpy as np

from feature_extraction.errors import UserError
from feature_extraction.store.grid import TimeGrid
from wtal.datasets.formats.csv_table import read_table

NUMBERS = ("start", "end", "left", "top", "right", "bottom")


def read_boxes(path: Path) -> dict[str, np.ndarray]:
    """Video to its rows `[R, 6]`: start, end (seconds), left, top, right, bottom (0..1).

    Raises `UserError` naming the line for what is no number, no box, or outside of the picture.
    """
    rows: dict[str, list[list[float]]] = {}
    for line, cells in read_table(path, {name: (name,) for name in ("video", *NUMBERS)}):
        numbers = []
        for name in NUMBERS:
            try:
                numbers.append(float(cells[name]))
            except ValueError:
                numbers.append(math.nan)
            if not math.isfinite(numbers[-1]):
                raise UserError(f"{path}, line {line}: {name} is {cells[name]!r}, no number")
        start, end, left, top, right, bottom = numbers
        if not 0 <= start < end:
            raise UserError(f"{path}, line {line}: need 0 <= start < end in seconds, got {start:g} and {end:g}")
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise UserError(
                f"{path}, line {line}: a box is given in shares of the picture, 0 <= left < right <= 1 and 0 <= top < "
                f"bottom <= 1; got left {left:g}, top {top:g}, right {right:g}, bottom {bottom:g}"
            )
        rows.setdefault(cells["video"].strip(), []).append(numbers)
    return {video_id: np.array(own) for video_id, own in rows.items()}


def coverage(box_R6: np.ndarray, grid: TimeGrid, snippets: int, side: int) -> np.ndarray:
    """Share of each place that boxes cover, mean over the frames of a snippet that have a box, `[T, P]` by rows.

    NaN in snippets without one. Boxes that overlap count as one where their sum would be more than the whole place.
    """
    frames = (snippets - 1) * grid.stride + grid.window
    edge_G = np.arange(side) / side
    covered_FP, boxes_F = np.zeros((frames, side * side)), np.zeros(frames)
    middle_F = (np.arange(frames) + 0.5) / grid.fps
    for start, end, left, top, right, bottom in box_R6:
        first, last = np.searchsorted(middle_F, (start, end))
        across_G = np.clip(np.minimum(right, edge_G + 1 / side) - np.maximum(left, edge_G), 0, None) * side
        down_G = np.clip(np.minimum(bottom, edge_G + 1 / side) - np.maximum(top, edge_G), 0, None) * side
        covered_FP[first:last] += np.outer(down_G, across_G).ravel()
        boxes_F[first:last] += 1
    frames_TN = np.arange(snippets)[:, None] * grid.stride + np.arange(grid.window)
    known_T1 = (boxes_F > 0)[frames_TN].sum(axis=1, keepdims=True)
    covered_TP = np.minimum(covered_FP, 1)[frames_TN].sum(axis=1)
    return np.divide(covered_TP, known_T1, out=np.full_like(covered_TP, np.nan), where=known_T1 > 0)
