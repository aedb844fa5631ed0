"""Every choice of feature extraction, with its default; what changes the numbers goes into the store's identity."""

import math
from dataclasses import dataclass, field
from typing import Literal

from feature_extraction.errors import UserError
from feature_extraction.flow.settings import TVL1Settings
from feature_extraction.store.grid import TimeGrid

LONGEST_WAIT = 2e6  # seconds, 23 days: about what an operating system's wait can be told
FLOW_ALGORITHMS = ("tvl1", "tvl1_torch", "tvl1_triton", "tvl1_opencv")
"""Keys of `feature_extraction.flow.compute.FLOWS`, which holds their functions."""
STREAMS = ("rgb", "flow", "clip")


@dataclass(frozen=True, kw_only=True)
class ExtractionSettings:
    """How videos become features. The defaults are the field's convention (25 fps, 16-frame snippets, TV-L1)."""

    fps: float = 25.0
    """Frames per second of the time grid; videos are resampled to it by timestamp."""
    window: int = 16
    """Frames in a snippet."""
    stride: int = 16
    """Frames from one snippet's start to the next one's."""
    streams: tuple[str, ...] = STREAMS
    """Which features to make: any of rgb, flow, clip."""
    short_side: int | None = 256
    """Frames are resized (bilinear) until their shorter side has this many pixels; null or 0 keeps their size."""
    crop: int | None = 224
    """Side in pixels of the square that the I3D networks see; null or 0 shows them the whole frame."""
    crops: Literal["center", "ten"] = "center"
    """One centre crop, or the mean over ten (four corners and centre, each also mirrored)."""
    flow: TVL1Settings = field(default_factory=TVL1Settings)
    """TV-L1 parameters."""
    flow_algorithm: str = "tvl1"
    """tvl1 (this project's; on CUDA by Triton where it runs, else by PyTorch), tvl1_torch or tvl1_triton (that one
    in any case), or tvl1_opencv (slow; for comparison)."""
    flow_bound: float = 20.0
    """Flow is cut to plus and minus this many pixels before it is rounded to 8 bits."""
    rgb_model: str = "i3d"
    """The RGB network: i3d, or a video model of torchvision by name (`r3d_18`, `mvit_v2_s`, `swin3d_b`, `s3d`), which
    brings its own preprocessing (`crop` and `crops` are I3D's)."""
    rgb_weights: str | None = "DEFAULT"
    """Weights of a torchvision model: its name for them (`DEFAULT`, `KINETICS400_V1`), or a file. Not for i3d."""
    i3d_rgb: str = "i3d-rgb"
    """I3D weights for RGB: a path, `shipped:<file>` for a file of the package, or a name of `wtal weights list`."""
    i3d_flow: str = "i3d-flow"
    """I3D weights for flow, written as `i3d_rgb` is."""
    clip_model: str = "ViT-B-16-quickgelu"
    """An open_clip model, or a JSON model config (a path or `shipped:<file>`)."""
    clip_pretrained: str | None = "openai"
    """An open_clip tag, or a weights file (a path or `shipped:<file>`)."""
    clip_frames: int = 1
    """Frames per snippet whose image embeddings are averaged, spread evenly; 1 is the snippet's centre frame."""
    clip_fps: float | None = None
    """Embed frames at this rate instead and average those of a snippet; a snippet without one takes the last one."""
    spatial: int = 0
    """G: the I3D networks keep a grid of G x G places a snippet, `[T, G * G, D]`, of their deepest map that has so many
    (Mixed_5c 7 x 7 at 224 pixels, Mixed_4f 14 x 14, Mixed_3c 28 x 28); 0: one feature a snippet."""
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """auto: decord for 8-bit video, PyAV for deeper video and wherever decord fails."""
    accept_truncated: bool = False
    """Keep what is whole of a video that breaks off midway, instead of counting the video as failed."""
    max_frames: int = 10_000_000
    """A video with more frames than this on the time grid fails: its timestamps are broken (111 hours at 25 fps)."""
    max_pixels: int = 64_000_000
    """A video whose pictures have more pixels than this fails, before they are decoded."""
    stall_seconds: float = 120.0
    """A decoder that yields nothing for this long is killed, and the video counts as failed."""
    video_seconds: float = 86_400.0
    """Longest time that decoding one video may take."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Arithmetic of the networks; auto is fp16 on a GPU and fp32 on a CPU."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, cuda:1, ..."""
    workers: int = 0
    """Decoding processes; 0 chooses by the machine's cores."""
    batch_snippets: int = 0
    """Snippets per I3D batch; 0 is 32 on a GPU, and on a CPU, where a batch runs on each core, 4 to 32 by their size:
    what 4 windows of 16 x 224 x 224 pixels take."""
    batch_images: int = 0
    """Frames per CLIP batch; 0 is 16 on a CPU and 256 on a GPU."""

    def __post_init__(self) -> None:
        TimeGrid(self.fps, self.window, self.stride)
        if not self.streams:
            raise UserError(f"streams is empty; name at least one of {', '.join(STREAMS)}")
        for name in self.streams:
            if name not in STREAMS:
                raise UserError(f"streams: {name!r} is not one of {', '.join(STREAMS)}")
        if len(set(self.streams)) != len(self.streams):
            raise UserError(f"streams names one twice: {', '.join(self.streams)}")
        for name in ("short_side", "crop"):
            value = getattr(self, name)
            if value is not None and value != 0 and value < 32:
                raise UserError(f"{name} must be at least 32 pixels (or 0 for none), got {value}")
        if self.crop and self.short_side and self.crop > self.short_side:
            raise UserError(f"crop {self.crop} is larger than short_side {self.short_side}; lower crop")
        if self.crops == "ten" and not self.crop:
            raise UserError("crops: ten needs a crop size; set crop (for example 224)")
        if self.flow_algorithm not in FLOW_ALGORITHMS:
            raise UserError(f"flow_algorithm {self.flow_algorithm!r} is not one of {', '.join(FLOW_ALGORITHMS)}")
        if not 1 <= self.clip_frames <= self.window:
            raise UserError(f"clip_frames must be 1 to window ({self.window}), got {self.clip_frames}")
        if not 0 < self.flow_bound < math.inf:
            raise UserError(f"flow_bound must be a positive number of pixels, got {self.flow_bound}")
        for name in ("stall_seconds", "video_seconds"):
            if not 0 < getattr(self, name) <= LONGEST_WAIT:
                raise UserError(f"{name} must be above 0 and at most {LONGEST_WAIT:.0f}, got {getattr(self, name)}")
        if self.clip_fps is not None and not 0 < self.clip_fps <= self.fps:
            raise UserError(f"clip_fps must be above 0 and at most fps ({self.fps}), got {self.clip_fps}")
        if self.spatial < 0:
            raise UserError(f"spatial must be 0 (no grid) or the places along a side, got {self.spatial}")
        if self.spatial and ("clip" in self.streams or self.rgb_model != "i3d"):
            other = "clip" if "clip" in self.streams else f"rgb_model {self.rgb_model!r}"
            raise UserError(
                f"spatial is for streams of I3D, and {other} has no grid; set extraction.streams=[rgb, flow]"
            )
        if self.spatial and self.crops == "ten":
            raise UserError("spatial: ten crops have no common grid; set extraction.crops=center")
        for name in ("workers", "batch_snippets", "batch_images"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be 0 (chosen for you) or more, got {getattr(self, name)}")
        for name in ("max_frames", "max_pixels"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def grid(self) -> TimeGrid:
        """The time grid of every stream."""
        return TimeGrid(self.fps, self.window, self.stride)
