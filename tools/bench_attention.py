"""Attentional pooling over space and time on the sandbox, against average, maximum and full second order; where it
looks.

    wtal demo --out runs/demo
    wtal extract runs/demo/world/videos --out runs/demo/grid --config sandbox --set streams=[rgb,flow] spatial=4
    python tools/bench_attention.py runs/demo/world runs/demo/grid --out runs/attention

Trains each row over the seeds from video-level labels (sigmoids and binary cross-entropy in every row, so that rows
differ in the head alone) and prints mean and standard deviation on the test videos: video mAP; the share of the
bottom-up map, and of the positive evidence of the video's classes, that lies inside the figure's box, beside the
share of the picture that the box covers. The renderer knows the box; of the rows, "taught by boxes" alone does, of the
training videos. A second call does only what is missing.

Legend: T snippets, F frames, R = F rows of a table of boxes, P places, C classes.
"""

import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402
from seeded_rows import Figures, Results, compare, markdown, named_config, parser_of  # noqa: E402

from feature_extraction.files import atomic_write, read_json  # noqa: E402

ATTENTIONAL = ("cbp.pooling.name=attentional", "cbp.pooling.space=prob")
VARIANTS: dict[str, tuple[str, ...]] = {
    "average": ("cbp.pooling.name=mean",),
    "maximum": ("cbp.pooling.name=max",),
    "full second order": (*ATTENTIONAL, "cbp.pooling.rank=0"),
    **{f"rank {rank}": (*ATTENTIONAL, f"cbp.pooling.rank={rank}") for rank in (1, 2, 4)},
    "rank 1, bias from 0": (*ATTENTIONAL, "cbp.pooling.bottom_up_bias=0"),
    "rank 1, bottom-up per class": (*ATTENTIONAL, "cbp.pooling.per_class_bottom_up=true"),
    **{
        f"rank {rank}, taught by boxes": (*ATTENTIONAL, f"cbp.pooling.rank={rank}", "data.boxes={out}/boxes.csv")
        for rank in (1, 2)
    },
}
SETTINGS = (
    *("data.streams=[rgb,flow]", "cbp.name=spatial", "cbp.width=64", "schedule.strategy=warmup_only"),
    *("schedule.warmup_steps=150", "optimizer.snippets=32", "optimizer.lr=3e-3", "inference.class_rows=[]"),
)
FIGURES = {
    "map": "video mAP", "attention": "bottom-up map inside", "action": "map inside during actions",
    "evidence": "evidence inside", "area": "area of the box", "ideal": "the box's own map inside",
}  # fmt: skip


def figures(world: Path, subset: str) -> dict[str, np.ndarray]:
    """Box of the figure in every frame of a subset's videos, as rows of `wtal.datasets.boxes`, `[R, 6]`."""
    from wtal.config.sandbox import SandboxSettings
    from wtal.config.strict import build
    from wtal.datasets.sandbox.render import figure_boxes
    from wtal.datasets.sandbox.script import plan_world

    settings = build(SandboxSettings, read_json(world / "world.json"))
    found = {}
    for script in plan_world(settings):
        if script.subset == subset:
            box_F4 = figure_boxes(script, settings)
            start_F1 = np.arange(len(box_F4))[:, None] / script.fps
            found[script.video_id] = np.concatenate([start_F1, start_F1 + 1 / script.fps, box_F4], axis=1)
    return found


def write_boxes(path: Path, boxes: dict[str, np.ndarray]) -> None:
    """The table that `data.boxes` reads; figures out of the picture are left out."""
    with atomic_write(path, "w") as stream:
        stream.write("video,start,end,left,top,right,bottom\n")
        for video_id, box_R6 in boxes.items():
            for start, end, *box in box_R6:
                left, top, right, bottom = np.round(box, 4)
                if left < right and top < bottom:
                    stream.write(f"{video_id},{start:.4f},{end:.4f},{left:.4f},{top:.4f},{right:.4f},{bottom:.4f}\n")


def inside(weight_TP: np.ndarray, covered_TP: np.ndarray) -> float:
    """Share of a map, each snippet's divided by its sum, that lies inside; NaN where it is zero everywhere."""
    total_T = weight_TP.sum(axis=1)
    shown = total_T > 0
    return float(((weight_TP * covered_TP).sum(axis=1)[shown] / total_T[shown]).mean()) if shown.any() else float("nan")


def run(world: Path, store: Path, out: Path, more: tuple[str, ...], variant: str, seed: int) -> Figures:
    """Train one row with one seed where that is not done, and measure it on the test videos."""
    from wtal.datasets.boxes import coverage
    from wtal.datasets.features import open_features
    from wtal.datasets.formats.by_name import load_annotations
    from wtal.evaluation.classification import video_score_map
    from wtal.inference.scores import score_videos
    from wtal.runs.localizer import Localizer
    from wtal.training.run import train

    inputs = (f"data.annotations={world / 'annotations.json'}", f"data.features={store}")
    own = [setting.format(out=out) for setting in VARIANTS[variant]]
    config = named_config("sandbox", [*inputs, *SETTINGS, *own, *more], seed, out)
    folder, _ = train(config)
    annotations, features = load_annotations(config.data), open_features(config.data)
    truth = annotations.subset(*config.data.test_subset)
    boxes = figures(world, "test")
    branch = Localizer(folder, config, annotations)._branch("cbp_warmup", features)
    ids, scores, shares = sorted(truth.videos), {}, {key: [] for key in FIGURES if key != "map"}
    for video_id, (output, mask_BT) in zip(ids, score_videos(branch, features, ids, "cpu"), strict=True):
        scores[video_id] = branch.video_probability(output, mask_BT)[0].detach().numpy()
        place_TPC = output.extra["place_BTPC"][0].numpy()
        grid = features.grid
        side = round(place_TPC.shape[1] ** 0.5)
        covered_TP = np.nan_to_num(coverage(boxes[video_id], grid, len(place_TPC), side))
        shares["area"].append(float(covered_TP.mean()))
        shares["ideal"].append(inside(covered_TP, covered_TP))
        if "map_BTP" in output.extra:
            map_TP = output.extra["map_BTP"][0].numpy()
            shares["attention"].append(inside(map_TP, covered_TP))
            middle_T = (np.arange(len(map_TP)) * grid.stride + grid.window / 2) / grid.fps
            spans = [(middle_T >= i.start) & (middle_T < i.end) for i in truth.videos[video_id].instances]
            acting_T = np.any(spans, axis=0)
            shares["action"].append(inside(map_TP[acting_T], covered_TP[acting_T]))
        for label in truth.videos[video_id].labels:
            c = annotations.classes.index(label)
            shares["evidence"].append(inside(np.maximum(place_TPC[:, :, c], 0), covered_TP))
    known = {name: float(np.nanmean(own)) for name, own in shares.items() if not np.isnan(own).all()}
    return {"map": video_score_map(truth, scores, annotations.classes).mAP, **known}


def table(results: Results) -> str:
    """Markdown, percent."""
    return "\n".join(markdown(results, FIGURES, digits=1, factor=100))


def main() -> int:
    parser = parser_of(__doc__, list(VARIANTS))
    parser.add_argument("world", type=Path, help="folder of the rendered sandbox")
    parser.add_argument("store", type=Path, help="its features with a grid")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that all rows share")
    options = parser.parse_args()
    more = tuple(options.overrides)
    write_boxes(options.out / "boxes.csv", figures(options.world, "training"))
    compare(parser, options, partial(run, options.world, options.store, options.out, more), table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
