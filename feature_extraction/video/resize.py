"""NEW."""

import cv2
import numpy as np


def resize_short_side(rgb_HWC: np.ndarray, short_side: int | None) -> np.ndarray:
    """Bilinear resize (OpenCV) so that the shorter side has `short_side` pixels; None or 0 keeps the frame."""
    height, width = resized(*rgb_HWC.shape[:2], short_side)
    if (height, width) == rgb_HWC.shape[:2]:
        return np.ascontiguousarray(rgb_HWC)
    return cv2.resize(np.ascontiguousarray(rgb_HWC), (width, height), interpolation=cv2.INTER_LINEAR)


def resized(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width in pixels after `resize_short_side`."""
    shorter = min(height, width)
    if not short_side or shorter == short_side:
        return height, width
    return tuple(max(1, round(side * short_side / shorter)) for side in (height, width))
