"""What stands around the figure: backdrop, fixtures, props. Colours RGB, sizes in pixels."""

import cv2
import numpy as np

from wtal.datasets.sandbox.figure import SUBPIXEL
from wtal.datasets.sandbox.world import Thing, Venue

HORIZON = 0.58
"""Where the ground begins, share of the picture's height."""


def draw_backdrop(venue: Venue, side: int, margin: int, rng: np.random.Generator) -> np.ndarray:
    """The venue, uint8 `[H, W, 3]`, `side + 2 * margin` pixels square: the camera moves within the margin.

    Tints, decor and texture are drawn from `rng`, so no two videos share a background.
    """
    full = side + 2 * margin
    above, below = (np.array(colour) + rng.normal(0, 14, 3) for colour in (venue.above, venue.below))
    horizon = margin + round(side * HORIZON)
    picture = np.empty((full, full, 3), np.float32)
    picture[:horizon] = above
    picture[horizon:] = below
    picture *= np.linspace(0.9, 1.08, full, dtype=np.float32)[:, None, None]
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    DECORS[venue.decor](picture, horizon, side, rng)
    # Texture at two scales: something for optical flow to hold on to.
    for cells, strength in ((full // 2, 7.0), (full // 6, 9.0)):
        grain = rng.normal(0, strength, (cells, cells)).astype(np.float32)
        grain = cv2.resize(grain, (full, full), interpolation=cv2.INTER_CUBIC)
        picture = np.clip(picture.astype(np.float32) + grain[:, :, None], 0, 255).astype(np.uint8)
    return picture


def _stands(picture: np.ndarray, horizon: int, side: int, rng: np.random.Generator) -> None:
    height = int(side * rng.uniform(0.18, 0.3))
    cv2.rectangle(picture, (0, horizon - height), (picture.shape[1], horizon), (105, 110, 125), -1)
    for _ in range(90):
        spot = (int(rng.integers(0, picture.shape[1])), int(rng.integers(horizon - height, horizon - 2)))
        cv2.circle(picture, spot, 1, rng.integers(60, 255, 3).tolist(), -1)
    for lane in (0.25, 0.6):
        y = horizon + int(lane * side * (1 - HORIZON))
        cv2.line(picture, (0, y), (picture.shape[1], y), (225, 205, 195), 1, cv2.LINE_AA)


def _windows(picture: np.ndarray, horizon: int, side: int, rng: np.random.Generator) -> None:
    step, top = int(side * rng.uniform(0.26, 0.36)), horizon - int(side * rng.uniform(0.42, 0.5))
    for x in range(int(rng.integers(0, step)), picture.shape[1], step):
        cv2.rectangle(picture, (x, top), (x + step // 2, top + side // 6), (205, 215, 225), -1)
    for x in range(0, picture.shape[1], max(3, side // 9)):
        cv2.line(picture, (x, horizon), (x - side // 5, picture.shape[0]), (165, 120, 75), 1, cv2.LINE_AA)


def _trees(picture: np.ndarray, horizon: int, side: int, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(3, 7))):
        x, radius = int(rng.integers(0, picture.shape[1])), int(side * rng.uniform(0.07, 0.14))
        cv2.line(picture, (x, horizon), (x, horizon - 2 * radius), (95, 70, 45), max(1, side // 28))
        green = (int(rng.integers(25, 60)), int(rng.integers(80, 130)), int(rng.integers(30, 55)))
        cv2.circle(picture, (x, horizon - 2 * radius), radius, green, -1, cv2.LINE_AA)


DECORS = {"stands": _stands, "windows": _windows, "trees": _trees}


def _fixed(points: list[tuple[float, float]]) -> np.ndarray:
    return np.rint(np.array(points) * (1 << SUBPIXEL)).astype(np.int32)


def draw_fixture(picture: np.ndarray, thing: Thing, x: float, ground: float, height: float, facing: int) -> None:
    """Draw a fixture in place with its foot at (`x`, `ground`); `height` is the body height in pixels."""
    size, width = thing.size * height, max(1, round(0.045 * height))

    def line(*points: tuple[float, float], thick: int = width) -> None:
        chain = _fixed([(x + facing * dx, ground + dy) for dx, dy in points])
        cv2.polylines(picture, [chain], False, thing.colour, thick, cv2.LINE_AA, SUBPIXEL)

    def fill(*points: tuple[float, float]) -> None:
        chain = _fixed([(x + facing * dx, ground + dy) for dx, dy in points])
        cv2.fillPoly(picture, [chain], thing.colour, cv2.LINE_AA, SUBPIXEL)

    low = 0.09 * height
    match thing.shape:
        case "pit":
            fill((-size / 2, -low), (size / 2, -low), (size / 2 + low, 2 * low), (-size / 2 - low, 2 * low))
        case "marks":
            for k in (-0.5, -0.15, 0.2, 0.55):
                line((k * size - low, 2 * low), (k * size + low, -low))
        case "platform":
            fill((-size, 0), (size / 3, 0), (size / 3, 1.6 * low), (-size, 1.6 * low))
        case "hoop":
            line((0.1 * height, 0), (0.1 * height, -1.15 * height), thick=max(1, width // 2))
            line((-size, -1.0 * height), (0.05 * height, -1.0 * height))
            line((0.08 * height, -1.3 * height), (0.08 * height, -0.9 * height), thick=width + 1)
        case "net":
            line((0, 0), (0, -0.85 * height))
            for k in range(4):
                y = -0.85 * height + k * 0.09 * height
                line((-size / 2, y + 0.06 * height), (size / 2, y - 0.06 * height), thick=1)
        case "pins":
            for k in (-0.5, 0.0, 0.5):
                line((k * size, 0), (k * size, -0.26 * height), thick=width + 1)
        case "goal":
            line((-0.5 * size, 0), (-0.5 * size, -0.62 * height), (0.5 * size, -0.62 * height), (0.5 * size, 0))
        case "flag":
            line((0, 0), (0, -1.0 * height), thick=max(1, width // 2))
            fill((0, -1.0 * height), (-0.32 * height, -0.88 * height), (0, -0.74 * height))
        case _:
            raise ValueError(f"no drawing for fixture {thing.shape!r}")


def draw_prop(picture: np.ndarray, thing: Thing, at: tuple[float, float], height: float, turn: float) -> None:
    """Draw a prop in place; `at` and the body `height` in pixels, `turn` in degrees (0 points right)."""
    if thing.shape == "none":
        return
    size, width = thing.size * height, max(1, round(0.05 * height))
    along = np.array([np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))])
    middle = np.array(at)

    def line(start: float, end: float, thick: int) -> None:
        chain = _fixed([tuple(middle + start * along), tuple(middle + end * along)])
        cv2.polylines(picture, [chain], False, thing.colour, thick, cv2.LINE_AA, SUBPIXEL)

    def disc(offset: float, radius: float, colour: tuple) -> None:
        x, y = _fixed([tuple(middle + offset * along)])[0]
        cv2.circle(picture, (int(x), int(y)), round(radius * (1 << SUBPIXEL)), colour, -1, cv2.LINE_AA, SUBPIXEL)

    match thing.shape:
        case "ball":
            disc(0.0, size * 0.62, (20, 20, 20))
            disc(0.0, size * 0.5, thing.colour)
        case "stick":
            line(-size / 2, size / 2, width)
        case "barbell":
            line(-size / 2, size / 2, width)
            disc(-size / 2, 0.11 * height, thing.colour)
            disc(size / 2, 0.11 * height, thing.colour)
        case "club":
            line(0.0, size, width)
            disc(size, 0.05 * height, (30, 30, 30))
        case _:
            raise ValueError(f"no drawing for prop {thing.shape!r}")
