"""The articulated figure: from a timeline of motions to joint angles, to points, to strokes.

Legend: F frames, P pose entries (world.POSE), J joints, 2 = (x, y) in body heights, y down, origin on the
ground below the pelvis. Vectorised over frames; only `draw_figure` works on one frame.
"""

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from wtal.datasets.sandbox.script import Segment
from wtal.datasets.sandbox.world import CYCLES, POSE, STRIKES

JOINTS = (
    "pelvis", "neck", "head", "elbow_r", "hand_r", "elbow_l", "hand_l",
    "knee_r", "foot_r", "knee_l", "foot_l",
)  # fmt: skip
TRUNK, UPPER_ARM, FOREARM, THIGH, SHIN, HEAD = 0.30, 0.17, 0.16, 0.25, 0.25, 0.12
"""Lengths in body heights; HEAD is from the neck to the middle of the head."""
SUBPIXEL = 4
"""cv2's `shift`: coordinates in sixteenths of a pixel, so that slow motion is smooth at 64 pixels."""


def pose_track(segments: tuple[Segment, ...], frames: int, fps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pose `[F, P]` (degrees; hop in body heights), place `x_F` (share of the width), `facing_F` (+1, -1)."""
    time_F = (np.arange(frames) + 0.5) / fps
    pose_FP = np.zeros((frames, len(POSE)), np.float64)
    x_F = np.zeros(frames)
    facing_F = np.ones(frames)
    for segment in segments:
        chosen_F = (time_F >= segment.start) & (time_F < segment.end)
        local_F = time_F[chosen_F] - segment.start
        part_F = local_F / (segment.end - segment.start)
        motion = _cycle if segment.motion in CYCLES else _strike
        pose_FP[chosen_F] = motion(segment, local_F, part_F)
        x_F[chosen_F] = segment.x0 + (segment.x1 - segment.x0) * part_F
        facing_F[chosen_F] = segment.facing
    late_F = time_F >= segments[-1].end
    if late_F.any():
        last = np.flatnonzero(~late_F)[-1]
        pose_FP[late_F], x_F[late_F], facing_F[late_F] = pose_FP[last], x_F[last], facing_F[last]
    # Motions meet without a jump: about 0.06 s of smoothing, short against a strike.
    return gaussian_filter1d(pose_FP, 0.06 * fps, axis=0), gaussian_filter1d(x_F, 0.1 * fps), facing_F


def _cycle(segment: Segment, local_F: np.ndarray, _part_F: np.ndarray) -> np.ndarray:
    cycle = CYCLES[segment.motion]
    table_P3 = np.array([cycle.joints.get(name, (0.0, 0.0, 0.0)) for name in POSE])
    turn_FP = (cycle.hertz * segment.tempo * local_F + segment.phase)[:, None] + table_P3[:, 2]
    return table_P3[:, 0] + segment.vigour * table_P3[:, 1] * np.sin(2 * np.pi * turn_FP)


def _strike(segment: Segment, _local_F: np.ndarray, part_F: np.ndarray) -> np.ndarray:
    keys = STRIKES[segment.motion].keys
    # A joint that a later key does not name keeps what it had.
    rows: list[dict[str, float]] = []
    for _, joints in keys:
        rows.append({**(rows[-1] if rows else {}), **joints})
    value_KP = np.array([[row.get(name, 0.0) for name in POSE] for row in rows])
    return PchipInterpolator([at for at, _ in keys], value_KP * segment.vigour, axis=0)(part_F)


def joints(pose_FP: np.ndarray) -> np.ndarray:
    """Joint positions `[F, J, 2]` in body heights, facing +x; the lowest one is `hop` above the ground."""
    angle = {name: np.deg2rad(pose_FP[:, i]) for i, name in enumerate(POSE) if name != "hop"}
    point: dict[str, np.ndarray] = {"pelvis": np.zeros((len(pose_FP), 2))}

    def reach(origin: str, length: float, radians_F: np.ndarray, up: bool = False) -> np.ndarray:
        down_F = -np.cos(radians_F) if up else np.cos(radians_F)
        return point[origin] + length * np.stack([np.sin(radians_F), down_F], axis=1)

    point["neck"] = reach("pelvis", TRUNK, angle["lean"], up=True)
    point["head"] = reach("neck", HEAD, 0.6 * angle["lean"], up=True)
    for side in ("r", "l"):
        point[f"elbow_{side}"] = reach("neck", UPPER_ARM, angle[f"arm_{side}"])
        point[f"hand_{side}"] = reach(f"elbow_{side}", FOREARM, angle[f"arm_{side}"] + angle[f"elbow_{side}"])
        point[f"knee_{side}"] = reach("pelvis", THIGH, angle[f"leg_{side}"])
        point[f"foot_{side}"] = reach(f"knee_{side}", SHIN, angle[f"leg_{side}"] - angle[f"knee_{side}"])
    joint_FJ2 = np.stack([point[name] for name in JOINTS], axis=1)
    lowest_F = joint_FJ2[:, :, 1].max(axis=1)
    joint_FJ2[:, :, 1] -= (lowest_F + np.maximum(pose_FP[:, POSE.index("hop")], 0.0))[:, None]
    return joint_FJ2


FAR = (("neck", "elbow_l", "hand_l"), ("pelvis", "knee_l", "foot_l"))
NEAR = (("pelvis", "knee_r", "foot_r"), ("pelvis", "neck"), ("neck", "elbow_r", "hand_r"))


def draw_figure(picture_HW3: np.ndarray, joint_J2: np.ndarray, height: float, skin: tuple, shirt: tuple,
                trousers: tuple) -> None:  # fmt: skip
    """Draw one figure in place. `joint_J2` is in pixels, `height` the body height in pixels, colours RGB."""
    fixed_J2 = np.rint(joint_J2 * (1 << SUBPIXEL)).astype(np.int32)
    width = max(1, round(0.055 * height))
    for limbs, shade in ((FAR, 0.7), (NEAR, 1.0)):
        for limb in limbs:
            base = trousers if limb[-1].startswith("foot") else shirt if limb[-1] == "neck" else skin
            colour = tuple(shade * channel for channel in base)
            thick = round(width * 1.8) if limb[-1] == "neck" else width
            chain = fixed_J2[[JOINTS.index(name) for name in limb]]
            cv2.polylines(picture_HW3, [chain], False, colour, thick, cv2.LINE_AA, SUBPIXEL)
    head = fixed_J2[JOINTS.index("head")]
    radius = round(0.075 * height * (1 << SUBPIXEL))
    cv2.circle(picture_HW3, (int(head[0]), int(head[1])), radius, skin, -1, cv2.LINE_AA, SUBPIXEL)
