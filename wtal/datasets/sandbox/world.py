"""The sandbox world in tables: venues, props, fixtures, motions, and the action classes made of them.

Every action is run-up + strike + follow-through, and its ground truth spans all three. All classes share the
run-up `ready` and the follow-through `settle`; only the strike, about half a second, tells one from another
by motion, and two classes share even that. Every motion but the strikes is a pastime too, so that it is no
sign of an action by itself. Venues are shared by two or three classes; the prop and the fixture name the
class, but they are in view before and after the action too.

Angles are degrees. Arms and legs: 0 hangs down, 90 points forward, 180 points up. `lean` tips the trunk
forward, `elbow_*` bends forward, `knee_*` bends backward, `hop` lifts the figure off the ground in body
heights. `*_r` is the near side. Colours are RGB.
"""

from dataclasses import dataclass

POSE = ("hop", "lean", "arm_r", "elbow_r", "arm_l", "elbow_l", "leg_r", "knee_r", "leg_l", "knee_l")
"""Order of a pose vector's entries."""


@dataclass(frozen=True)
class Venue:
    """A place: colours of what is above and below the horizon, and what stands there."""

    above: tuple[int, int, int]
    below: tuple[int, int, int]
    decor: str


@dataclass(frozen=True)
class Thing:
    """A prop (goes with the figure) or a fixture (stands where the strike is); `size` in body heights."""

    shape: str
    colour: tuple[int, int, int]
    size: float = 0.1


@dataclass(frozen=True)
class Cycle:
    """A motion that repeats: each joint is mean + amplitude * sin(2 pi frequency t + phase)."""

    hertz: float
    travel: float
    """Speed in body heights a second, in the direction the figure faces."""
    joints: dict[str, tuple[float, float, float]]
    """Joint name to (mean, amplitude, phase in turns)."""


@dataclass(frozen=True)
class Strike:
    """A motion that happens once: poses at fractions of its length, interpolated."""

    seconds: tuple[float, float]
    """Shortest and longest length."""
    travel: float
    """Distance covered, body heights."""
    keys: tuple[tuple[float, dict[str, float]], ...]
    carry: str = "ground"
    """Where the prop is until its release: `right` hand, `both` hands, or on the `ground` ahead."""
    release: float | None = None
    """Fraction at which the prop leaves; None: it stays where it is."""
    velocity: tuple[float, float] = (0.0, 0.0)
    """The prop's velocity at release, body heights a second: forward, up."""


@dataclass(frozen=True)
class Action:
    """An action class."""

    venue: str
    prop: str
    fixture: str
    run_up: str
    strike: str
    follow: str


VENUES: dict[str, Venue] = {
    "stadium": Venue((150, 175, 205), (170, 85, 60), "stands"),
    "court": Venue((120, 105, 95), (195, 150, 95), "windows"),
    "meadow": Venue((165, 205, 240), (85, 145, 65), "trees"),
}

PROPS: dict[str, Thing] = {
    "none": Thing("none", (0, 0, 0)),
    "javelin": Thing("stick", (235, 235, 210), 0.85),
    "barbell": Thing("barbell", (30, 30, 40), 0.45),
    "basketball": Thing("ball", (235, 120, 20), 0.12),
    "volleyball": Thing("ball", (250, 250, 170), 0.11),
    "bowling ball": Thing("ball", (40, 30, 150), 0.12),
    "football": Thing("ball", (255, 255, 255), 0.1),
    "golf club": Thing("club", (225, 225, 235), 0.42),
}

FIXTURES: dict[str, Thing] = {
    "sand pit": Thing("pit", (235, 215, 150), 0.9),
    "distance marks": Thing("marks", (255, 255, 255), 0.9),
    "platform": Thing("platform", (60, 70, 90), 0.9),
    "hoop": Thing("hoop", (230, 40, 30), 0.3),
    "net": Thing("net", (240, 240, 240), 0.5),
    "pins": Thing("pins", (250, 250, 250), 0.22),
    "goal": Thing("goal", (245, 245, 245), 0.7),
    "flag": Thing("flag", (230, 30, 60), 0.6),
}

# fmt: off
CYCLES: dict[str, Cycle] = {
    "idle": Cycle(0.5, 0.0, {
        "lean": (1, 2, 0), "arm_r": (6, 6, 0.1), "arm_l": (-4, 6, 0.6), "elbow_r": (10, 4, 0),
        "elbow_l": (10, 4, 0.5), "leg_r": (3, 1, 0), "leg_l": (-3, 1, 0.5), "knee_r": (3, 2, 0),
        "knee_l": (3, 2, 0.5),
    }),
    "walk": Cycle(1.0, 0.2, {
        "lean": (3, 2, 0), "arm_r": (0, 22, 0.5), "arm_l": (0, 22, 0), "elbow_r": (15, 5, 0),
        "elbow_l": (15, 5, 0), "leg_r": (2, 23, 0), "leg_l": (2, 23, 0.5), "knee_r": (14, 14, 0.3),
        "knee_l": (14, 14, 0.8),
    }),
    "wave": Cycle(1.5, 0.0, {
        "lean": (-2, 2, 0), "arm_r": (150, 22, 0), "arm_l": (-4, 6, 0.6), "elbow_r": (15, 15, 0.1),
        "elbow_l": (10, 4, 0.5), "leg_r": (4, 1, 0), "leg_l": (-4, 1, 0.5), "knee_r": (3, 2, 0),
        "knee_l": (3, 2, 0.5),
    }),
    "stoop": Cycle(0.7, 0.0, {
        "lean": (45, 20, 0), "arm_r": (35, 12, 0), "arm_l": (30, 12, 0.1), "elbow_r": (10, 5, 0),
        "elbow_l": (10, 5, 0), "leg_r": (25, 8, 0), "leg_l": (10, 8, 0), "knee_r": (35, 12, 0),
        "knee_l": (30, 12, 0),
    }),
    "run": Cycle(2.2, 0.2, {
        "hop": (0.03, 0.03, 0.25), "lean": (16, 3, 0), "arm_r": (5, 48, 0.5), "arm_l": (5, 48, 0),
        "elbow_r": (80, 12, 0), "elbow_l": (80, 12, 0.5), "leg_r": (12, 46, 0), "leg_l": (12, 46, 0.5),
        "knee_r": (48, 42, 0.3), "knee_l": (48, 42, 0.8),
    }),
    "ready": Cycle(1.9, 0.03, {
        "lean": (24, 6, 0), "arm_r": (45, 18, 0.2), "arm_l": (38, 18, 0.25), "elbow_r": (45, 14, 0),
        "elbow_l": (45, 14, 0.1), "leg_r": (42, 14, 0), "leg_l": (18, 14, 0), "knee_r": (62, 22, 0),
        "knee_l": (56, 22, 0),
    }),
    "stagger": Cycle(1.5, 0.1, {
        "lean": (28, 10, 0), "arm_r": (50, 30, 0.5), "arm_l": (70, 30, 0), "elbow_r": (25, 10, 0),
        "elbow_l": (25, 10, 0.5), "leg_r": (18, 30, 0), "leg_l": (6, 30, 0.5), "knee_r": (40, 20, 0.3),
        "knee_l": (40, 20, 0.8),
    }),
    "settle": Cycle(1.3, 0.02, {
        "lean": (6, 8, 0), "arm_r": (95, 32, 0), "arm_l": (88, 32, 0.05), "elbow_r": (25, 12, 0.2),
        "elbow_l": (25, 12, 0.2), "leg_r": (26, 10, 0.1), "leg_l": (8, 10, 0.1), "knee_r": (38, 16, 0.1),
        "knee_l": (32, 16, 0.1),
    }),
}

STRIKES: dict[str, Strike] = {
    "leap": Strike((0.55, 0.75), 0.35, (
        (0.0, {"lean": 5, "arm_r": -40, "arm_l": -40, "leg_r": -20, "leg_l": 30, "knee_r": 10, "knee_l": 60}),
        (0.35, {"hop": 0.38, "lean": -8, "arm_r": 175, "arm_l": 165, "leg_r": 50, "leg_l": -10, "knee_r": 70,
                "knee_l": 40}),
        (0.7, {"hop": 0.30, "lean": 30, "arm_r": 90, "arm_l": 85, "leg_r": 90, "leg_l": 80, "knee_r": 20,
               "knee_l": 20}),
        (1.0, {"hop": 0.0, "lean": 45, "arm_r": 30, "arm_l": 20, "leg_r": 80, "leg_l": 70, "knee_r": 110,
               "knee_l": 105}),
    )),
    "throw": Strike((0.45, 0.6), 0.12, (
        (0.0, {"lean": -14, "arm_r": 250, "elbow_r": 30, "arm_l": 95, "elbow_l": 5, "leg_r": -20, "leg_l": 35,
               "knee_r": 25, "knee_l": 5}),
        (0.45, {"hop": 0.03, "lean": -6, "arm_r": 215, "elbow_r": 60, "arm_l": 70, "leg_r": -10, "leg_l": 30,
                "knee_r": 15, "knee_l": 5}),
        (0.7, {"lean": 20, "arm_r": 130, "elbow_r": 0, "arm_l": 10, "leg_r": 5, "leg_l": 15, "knee_r": 30,
               "knee_l": 8}),
        (1.0, {"lean": 42, "arm_r": 20, "elbow_r": 10, "arm_l": -50, "leg_r": -30, "leg_l": 25, "knee_r": 10,
               "knee_l": 25}),
    ), "right", 0.62, (2.6, 1.2)),
    "kick": Strike((0.45, 0.6), 0.1, (
        (0.0, {"lean": -4, "arm_r": -30, "arm_l": 70, "leg_r": -62, "leg_l": 18, "knee_r": 85, "knee_l": 20}),
        (0.45, {"lean": -6, "arm_r": 20, "arm_l": 40, "leg_r": 10, "leg_l": 0, "knee_r": 45, "knee_l": 12}),
        (0.7, {"lean": -16, "arm_r": 70, "arm_l": -30, "leg_r": 88, "leg_l": -8, "knee_r": 0, "knee_l": 5}),
        (1.0, {"lean": -4, "arm_r": 60, "arm_l": -40, "leg_r": 70, "leg_l": -5, "knee_r": 25, "knee_l": 8}),
    ), "ground", 0.5, (2.6, 0.9)),
    "roll": Strike((0.5, 0.65), 0.15, (
        (0.0, {"lean": 30, "arm_r": -95, "elbow_r": 0, "arm_l": 60, "leg_r": 10, "leg_l": 35, "knee_r": 35,
               "knee_l": 50}),
        (0.4, {"lean": 55, "arm_r": -50, "elbow_r": 0, "arm_l": 30, "leg_r": -20, "leg_l": 65, "knee_r": 40,
               "knee_l": 95}),
        (0.7, {"lean": 58, "arm_r": 45, "elbow_r": 0, "arm_l": -30, "leg_r": -40, "leg_l": 70, "knee_r": 30,
               "knee_l": 100}),
        (1.0, {"lean": 40, "arm_r": 130, "elbow_r": 10, "arm_l": -45, "leg_r": -40, "leg_l": 60, "knee_r": 20,
               "knee_l": 85}),
    ), "right", 0.62, (2.2, 0.1)),
    "shoot": Strike((0.5, 0.7), 0.05, (
        (0.0, {"lean": 22, "arm_r": 60, "elbow_r": 90, "arm_l": 55, "elbow_l": 90, "leg_r": 55, "leg_l": 40,
               "knee_r": 95, "knee_l": 85}),
        (0.45, {"hop": 0.12, "lean": 0, "arm_r": 140, "elbow_r": 60, "arm_l": 135, "elbow_l": 60, "leg_r": 5,
                "leg_l": -5, "knee_r": 5, "knee_l": 5}),
        (0.7, {"hop": 0.2, "lean": -4, "arm_r": 165, "elbow_r": 5, "arm_l": 160, "elbow_l": 5, "leg_r": -5,
               "leg_l": -8, "knee_r": 10, "knee_l": 15}),
        (1.0, {"hop": 0.0, "lean": 4, "arm_r": 140, "elbow_r": -10, "arm_l": 120, "leg_r": 20, "leg_l": 10,
               "knee_r": 30, "knee_l": 25}),
    ), "both", 0.62, (1.2, 1.6)),
    "lift": Strike((0.6, 0.8), 0.0, (
        (0.0, {"lean": 62, "arm_r": 20, "arm_l": 15, "leg_r": 70, "leg_l": 60, "knee_r": 105, "knee_l": 100}),
        (0.4, {"lean": 10, "arm_r": 30, "elbow_r": 120, "arm_l": 25, "elbow_l": 120, "leg_r": 25, "leg_l": 10,
               "knee_r": 35, "knee_l": 30}),
        (0.75, {"lean": -2, "arm_r": 178, "elbow_r": 0, "arm_l": 174, "elbow_l": 0, "leg_r": 40, "leg_l": -30,
                "knee_r": 45, "knee_l": 30}),
        (1.0, {"lean": 0, "arm_r": 180, "elbow_r": 0, "arm_l": 176, "elbow_l": 0, "leg_r": 5, "leg_l": -5,
               "knee_r": 5, "knee_l": 5}),
    ), "both"),
    "swing": Strike((0.45, 0.6), 0.0, (
        (0.0, {"lean": 24, "arm_r": -105, "elbow_r": -20, "arm_l": -95, "leg_r": 12, "leg_l": -12,
               "knee_r": 18, "knee_l": 18}),
        (0.5, {"lean": 28, "arm_r": 0, "elbow_r": 0, "arm_l": 5, "leg_r": 14, "leg_l": -10, "knee_r": 15,
               "knee_l": 18}),
        (0.75, {"lean": 14, "arm_r": 110, "elbow_r": 10, "arm_l": 112, "leg_r": 10, "leg_l": -20, "knee_r": 8,
                "knee_l": 30}),
        (1.0, {"lean": 2, "arm_r": 185, "elbow_r": 35, "arm_l": 180, "leg_r": 6, "leg_l": -24, "knee_r": 5,
               "knee_l": 40}),
    ), "both"),
}

# fmt: on

ACTIONS: dict[str, Action] = {
    "long jump": Action("stadium", "none", "sand pit", "ready", "leap", "settle"),
    "javelin throw": Action("stadium", "javelin", "distance marks", "ready", "throw", "settle"),
    "weight lifting": Action("stadium", "barbell", "platform", "ready", "lift", "settle"),
    "basketball shot": Action("court", "basketball", "hoop", "ready", "shoot", "settle"),
    "volleyball spike": Action("court", "volleyball", "net", "ready", "throw", "settle"),
    "bowling": Action("court", "bowling ball", "pins", "ready", "roll", "settle"),
    "penalty kick": Action("meadow", "football", "goal", "ready", "kick", "settle"),
    "golf swing": Action("meadow", "golf club", "flag", "ready", "swing", "settle"),
}
"""The classes, in index order."""

PASTIMES = ("idle", "walk", "wave", "stoop", "run", "ready", "stagger", "settle")
"""What the figure does when it does no action."""
