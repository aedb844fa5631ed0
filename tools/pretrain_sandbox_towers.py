"""Pre-train the sandbox's towers on rendered data that the sandbox itself never shows.

    python tools/pretrain_sandbox_towers.py --out data/sandbox

I3D-RGB and I3D-flow learn to tell motions apart in trimmed clips. Venue, prop, fixture, run-up and
follow-through of these clips are drawn independently of the strike, so that only the motion tells the
class: the towers stand for action recognition pre-training. CLIP learns to match single frames with
captions that name the activity of the whole video; venue and object tell that, before and after the action
too: it stands for image-text pre-training. All videos have other seeds than the sandbox's and go through
the same H.264 encoder and the same TV-L1 flow. Prints held-out figures.

Legend: N clips or frames, T frames, H = W picture side, C channels, K classes or captions, D embedding.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from feature_extraction.files import atomic_write, sha256_file, write_json  # noqa: E402
from feature_extraction.flow.settings import TVL1Settings  # noqa: E402
from feature_extraction.flow.tvl1_cpu import solve  # noqa: E402
from feature_extraction.networks.clip import FrozenClip, load_clip, save_clip  # noqa: E402
from feature_extraction.networks.i3d import I3D, save_i3d  # noqa: E402
from feature_extraction.networks.tensor_files import to_bytes  # noqa: E402
from feature_extraction.seal import SUMS  # noqa: E402
from wtal.config.sandbox import SandboxSettings  # noqa: E402
from wtal.datasets.sandbox.render import draw_frames, encode_video  # noqa: E402
from wtal.datasets.sandbox.script import Timeline, VideoScript, perform, plan_video  # noqa: E402
from wtal.datasets.sandbox.world import ACTIONS, CYCLES, FIXTURES, PROPS, STRIKES, VENUES, Action  # noqa: E402

FPS, WINDOW = 12.5, 8
"""The grid of configs/sandbox.yaml: frames a second, frames a clip."""
FLOW = {"scales": 3, "warps": 2, "inner_iterations": 10, "outer_iterations": 2}
FLOW_BOUND = 4.0
"""Pixels: as `flow` and `flow_bound` of configs/sandbox.yaml."""
MOTIONS = (*STRIKES, *CYCLES)
"""Classes of the I3D towers."""
MOTION_SEED, CAPTION_SEED = 1001, 2002
"""Seeds of the two pre-training worlds; the sandbox's own is 2026 and up."""
MOTION_VIDEOS, CAPTION_VIDEOS, HELD_OUT = 90, 96, 16
ACTIONS_PER_VIDEO = 8
FRAME_STEP = 4
"""Every fourth frame is a training image of the CLIP tower."""
CAPTIONS = ("a video of {}", "a video of a person doing {}", "a photo of {}", "{}", "someone at {}")
CLIP_CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}


def mixed_video(index: int, settings: SandboxSettings) -> VideoScript:
    """Actions put together at random: any strike with any run-up, follow-through, venue, prop and fixture."""
    look = (settings.seed, 0, index)
    rng = np.random.default_rng(look)

    def pick(table) -> str:
        return str(rng.choice(list(table)))

    line = Timeline(rng, float(rng.uniform(0.88, 1.12)))
    stagings = []
    for number in range(ACTIONS_PER_VIDEO):
        strike = list(STRIKES)[(index + number) % len(STRIKES)]
        action = Action("", pick(PROPS), pick(FIXTURES), pick(("run", "ready")), strike, pick(("stagger", "settle")))
        facing = int(rng.choice((-1, 1)))
        line.pass_time(float(rng.uniform(0.9, 1.8)), 0.5 - 0.2 * facing)
        staging, _ = perform(line, "", action, facing, pace=1.6)
        stagings.append(
            replace(staging, start=staging.start - rng.uniform(0, 0.8), end=staging.end + rng.uniform(0, 0.8))
        )
    frames = int(line.now * settings.fps)
    return VideoScript(
        f"mixed_{index}", "", pick(VENUES), frames, settings.fps, line.zoom,
        tuple(line.segments), tuple(stagings), (), look,
    )  # fmt: skip


def through_codec(script: VideoScript, settings: SandboxSettings) -> np.ndarray:
    """The frames as a decoder gives them back, uint8 RGB `[T, H, W, 3]`."""
    file = io.BytesIO()
    encode_video(file, draw_frames(script, settings), settings.fps, settings.crf)
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def gray_flow(rgb_THW3: np.ndarray) -> np.ndarray:
    """Flow rounded to 8 bits, `[T, 2, H, W]`; the last frame, without successor, repeats the one before."""
    gray_THW = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in rgb_THW3]).astype(np.float32)
    flow_T2HW, _ = solve(gray_THW[:-1], gray_THW[1:], TVL1Settings(**FLOW), 1)
    flow_T2HW = np.concatenate([flow_T2HW, flow_T2HW[-1:]])
    return np.rint((np.clip(flow_T2HW, -FLOW_BOUND, FLOW_BOUND) + FLOW_BOUND) * (255 / (2 * FLOW_BOUND))).astype(
        np.uint8
    )


def motion_clips(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trimmed clips of one mixed video: RGB `[N, T, H, W, 3]`, flow `[N, T, 2, H, W]`, motion index `[N]`."""
    cv2.setNumThreads(1)
    settings = SandboxSettings(seed=MOTION_SEED, fps=FPS)
    script = mixed_video(index, settings)
    rgb_THW3 = through_codec(script, settings)
    flow_T2HW = gray_flow(rgb_THW3)
    rng = np.random.default_rng((MOTION_SEED, 9, index))
    starts, labels = [], []
    for segment in script.segments:
        half = WINDOW / 2 / FPS
        centre, length = (segment.start + segment.end) / 2, segment.end - segment.start
        copies, play = (3, 0.25) if segment.motion in STRIKES else (1, max(0.0, length / 2 - half))
        for _ in range(copies):
            start = round((centre + rng.uniform(-play, play) - half) * FPS)
            if 0 <= start <= len(rgb_THW3) - WINDOW:
                starts.append(start)
                labels.append(MOTIONS.index(segment.motion))
    take_NT = np.array(starts)[:, None] + np.arange(WINDOW)
    return rgb_THW3[take_NT], flow_T2HW[take_NT], np.array(labels)


def caption_frames(index: int) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Frames of one untrimmed video `[N, H, W, 3]`, its classes, and whether an object is in view `[N]`."""
    cv2.setNumThreads(1)
    settings = SandboxSettings(seed=CAPTION_SEED, fps=FPS)
    script = plan_video(settings, "training", index)
    rgb_NHW3 = through_codec(script, settings)[::FRAME_STEP]
    time_N = (np.arange(len(rgb_NHW3)) * FRAME_STEP + 0.5) / FPS
    seen_N = np.zeros(len(time_N), bool)
    for staging in script.stagings:
        seen_N |= (time_N >= staging.start) & (time_N < staging.end)
    return rgb_NHW3, script.annotation().labels, seen_N


def render_all(job: Callable, count: int, workers: int) -> list:
    """`job(index)` for every index, in order."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(job, range(count)))


def moved(clip: Tensor, generator: torch.Generator, flow: bool) -> Tensor:
    """Augment a batch `[N, C, ..., H, W]` of [-1, 1]: mirror, shift by 4 pixels; for RGB light, tint."""
    pad = 4
    shape = clip.shape
    if torch.rand((), generator=generator) < 0.5:
        clip = clip.flip(-1)
        if flow:
            clip = clip * torch.tensor([-1.0, 1.0]).view(1, 2, *([1] * (clip.ndim - 2)))
    flat = F.pad(clip.reshape(shape[0], -1, *shape[-2:]), (pad,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * pad + 1, (2,), generator=generator).tolist()
    clip = flat[..., top : top + shape[-2], left : left + shape[-1]].reshape(shape)
    if not flow:
        rest = [1] * (clip.ndim - 2)
        gain = 1 + 0.25 * torch.randn(shape[0], 1, *rest, generator=generator)
        tint = 0.2 * torch.randn(shape[0], 3, *rest, generator=generator)
        clip = (clip * gain + tint).clamp(-1, 1)
    return clip


def train_i3d(
    name: str, clip_N: np.ndarray, label_N: np.ndarray, held_N: np.ndarray, options, start: I3D | None
) -> I3D:
    """Classify trimmed clips; `clip_N` uint8 `[N, T, C, H, W]`. Prints held-out accuracy.

    `start`: the flow tower, where the RGB tower's weights begin (cross-modality start).
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = I3D(clip_N.shape[2], len(MOTIONS), width=options.width).to(memory_format=torch.channels_last_3d)
    if start is not None:
        # From random weights the RGB tower was still at chance on the strikes after 12 epochs.
        state = start.state_dict()
        name_of_stem = "trunk.Conv3d_1a_7x7.conv.weight"
        stem = model.state_dict()[name_of_stem]
        # Filters that sum to zero over time see change and not the backdrop.
        state[name_of_stem] = stem - stem.mean(dim=2, keepdim=True)
        model.load_state_dict(state)
    label = torch.from_numpy(label_N)

    def batch(rows: np.ndarray) -> Tensor:
        clip = torch.from_numpy(clip_N[rows]).float().div_(127.5).sub_(1).movedim(1, 2)
        return clip.contiguous(memory_format=torch.channels_last_3d)

    train, held = np.flatnonzero(~held_N), np.flatnonzero(held_N)
    steps = options.epochs * (len(train) // 32)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm3d):
            norm.momentum = 0.05  # a few hundred steps, not Kinetics' hundred thousand
    begun, step = time.time(), 0
    for epoch in range(options.epochs):
        order = train[torch.randperm(len(train), generator=generator).numpy()]
        model.train()
        total = 0.0
        for rows in np.split(order[: len(order) // 32 * 32], len(order) // 32):
            logits = model(moved(batch(rows), generator, name == "flow"))
            loss = F.cross_entropy(logits, label[rows], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step, total = step + 1, total + loss.item()
        if epoch % 2 == 1 or epoch == options.epochs - 1:
            model.eval()
            with torch.inference_mode():
                found = torch.cat([model(batch(rows)).argmax(1) for rows in np.array_split(held, len(held) // 32)])
            right = (found == label[held]).float()
            strike = label[held] < len(STRIKES)
            print(
                f"i3d {name} epoch {epoch + 1}: loss {total / (len(train) // 32):.3f}, held-out accuracy "
                f"{right.mean():.3f} (strikes {right[strike].mean():.3f}), {time.time() - begun:.0f} s",
                flush=True,
            )
    return model.eval()


def caption_of(labels: tuple[str, ...], generator: np.random.Generator) -> str:
    """A sentence with the activity of the whole video: of two classes both, or either."""
    text = labels[0] if len(labels) == 1 else str(generator.choice([" and ".join(labels), *labels]))
    return str(generator.choice(CAPTIONS)).format(text)


def train_clip(videos: list, options) -> FrozenClip:
    """Frame-caption contrast; `videos` from `caption_frames`, the last `HELD_OUT` of them held out."""
    torch.manual_seed(0)
    generator, choice = torch.Generator().manual_seed(0), np.random.default_rng(0)
    config = options.out / "clip.json"
    write_json(config, CLIP_CONFIG)
    clip = load_clip(str(config), None)
    model = clip.model.requires_grad_(True)
    train, held = videos[:-HELD_OUT], videos[-HELD_OUT:]
    frame_NHW3 = np.concatenate([frames for frames, _, _ in train])
    owner_N = np.repeat(np.arange(len(train)), [len(frames) for frames, _, _ in train])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (clip.preprocessing.mean, clip.preprocessing.std))
    decay = [value for value in model.parameters() if value.ndim > 1]
    plain = [value for value in model.parameters() if value.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, 1e-3, betas=(0.9, 0.98))
    batch, begun = 96, time.time()
    steps = options.clip_epochs * (len(frame_NHW3) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.5e-3, total_steps=steps, pct_start=0.15)
    for epoch in range(options.clip_epochs):
        order = torch.randperm(len(frame_NHW3), generator=generator).numpy()
        model.train()
        total = 0.0
        for rows in np.split(order[: len(order) // batch * batch], len(order) // batch):
            image = torch.from_numpy(frame_NHW3[rows]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
            image = (moved(image, generator, False) + 1) / 2
            captions = [caption_of(train[owner][1], choice) for owner in owner_N[rows]]
            texts = list(dict.fromkeys(captions))
            wanted = torch.tensor([texts.index(caption) for caption in captions])
            image_ND = F.normalize(model.encode_image((image - mean) / std), dim=1)
            text_KD = F.normalize(model.encode_text(clip.tokenize(texts)), dim=1)
            logit_NK = model.logit_scale.exp().clamp(max=100) * image_ND @ text_KD.T
            # Both directions; a caption that several frames of the batch share is matched by each of them.
            match_KN = F.one_hot(wanted, len(texts)).T.float()
            match_KN = match_KN / match_KN.sum(1, keepdim=True)
            loss = (F.cross_entropy(logit_NK, wanted) + F.cross_entropy(logit_NK.T, match_KN)) / 2
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        if epoch % 5 == 4 or epoch == options.clip_epochs - 1:
            model.eval()
            text_KD = F.normalize(clip.encode_texts([f"a video of {name}" for name in ACTIONS]), dim=1)
            right, seen = [], []
            for frames, labels, seen_N in held:
                best_N = (F.normalize(clip.encode_images(frames), dim=1) @ text_KD.T).argmax(1)
                right += [list(ACTIONS)[best] in labels for best in best_N.tolist()]
                seen += seen_N.tolist()
            right, seen = np.array(right), np.array(seen)
            print(
                f"clip epoch {epoch + 1}: loss {total / (len(frame_NHW3) // batch):.3f}, held-out frames "
                f"that name the video: {right[seen].mean():.3f} with the object in view, "
                f"{right[~seen].mean():.3f} without; scale {clip.logit_scale:.1f}, "
                f"{time.time() - begun:.0f} s",
                flush=True,
            )
    return clip


def halve(path: Path) -> None:
    """Rewrite a safetensors file's floating point tensors in half precision, metadata kept."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in load_file(path).items()}
    with atomic_write(path) as stream:
        stream.write(to_bytes(tensors, metadata or {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("data/sandbox"))
    parser.add_argument("--only", choices=("i3d", "clip"), help="train only these towers")
    parser.add_argument("--width", type=float, default=0.125, help="width multiplier of the I3D towers")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--clip-epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1, help="of torch; more only helps on idle cores")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    options = parser.parse_args()
    if min(options.width, options.epochs, options.clip_epochs, options.threads, options.workers) <= 0:
        parser.error("--width, --epochs, --clip-epochs, --threads and --workers must be above 0")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    if options.only != "clip":
        begun = time.time()
        parts = render_all(motion_clips, MOTION_VIDEOS, options.workers)
        held_N = np.concatenate([np.full(len(p[2]), i >= MOTION_VIDEOS - HELD_OUT) for i, p in enumerate(parts)])
        rgb, flow, label_N = (np.concatenate([part[k] for part in parts]) for k in range(3))
        counts = dict(zip(MOTIONS, np.bincount(label_N, minlength=len(MOTIONS)).tolist(), strict=True))
        print(
            f"{len(label_N)} trimmed clips, {held_N.sum()} held out, {time.time() - begun:.0f} s: {counts}",
            flush=True,
        )
        start = None
        for name, clips in (("flow", flow), ("rgb", rgb.transpose(0, 1, 4, 2, 3))):
            path = options.out / f"i3d_{name}.safetensors"
            start = train_i3d(name, clips, label_N, held_N, options, start)
            save_i3d(start, path)
            halve(path)
    if options.only != "i3d":
        begun = time.time()
        videos = render_all(caption_frames, CAPTION_VIDEOS, options.workers)
        print(f"{sum(len(v[0]) for v in videos)} captioned frames, {time.time() - begun:.0f} s", flush=True)
        path = options.out / "clip.safetensors"
        save_clip(train_clip(videos, options), path)
        halve(path)
    for path in sorted(options.out.glob("*.safetensors")):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
    listed = sorted(path for path in options.out.iterdir() if path.suffix in (".safetensors", ".json"))
    with atomic_write(options.out / SUMS, "w") as stream:
        stream.writelines(f"{sha256_file(path)}  {path.name}\n" for path in listed)


if __name__ == "__main__":
    main()
