"""A run's checkpoints to frame and video scores, one file a video and row; what is there already is not made again.

    scores/<row>/<video id>.npz   scores of one video
    scores/<row>.json             what made them: weights, score rule, feature streams; others are made anew

Rows: the CBP branch after warm-up, frozen CLIP, the VLP branch after its last B phase, and the CBP branch at the end.

Legend: T snippets, C classes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from feature_extraction.errors import UserError
from feature_extraction.files import read_json, write_json
from wtal.config.groups import has_vlp
from wtal.config.load import Config
from wtal.datasets.features import FeatureSet
from wtal.inference.scores import VideoScores, frame_scores, score_videos
from wtal.models.build import Branches
from wtal.models.streams import StreamedBranch
from wtal.training.folder import ROWS, RunFolder, load_checkpoint
from wtal.training.schedule import Phase, plan


@dataclass(frozen=True)
class RowSource:
    """Where a row's scores come from: a phase's checkpoint (none: frozen CLIP), a branch, and the score rule."""

    checkpoint: str | None
    branch: str
    rule: str


def row_sources(config: Config, run: RunFolder | None = None) -> dict[str, RowSource]:
    """The rows that this run's strategy has, with their sources.

    Scores of a branch that no pseudo-label ever taught have no calibrated zero: they are min-max scaled, as
    `pseudo_labels.first` says. The others are probabilities, as `pseudo_labels.later` says. With
    `training.select: held_out` the phase behind `ours` is read from `run`'s metrics.
    """
    phases = plan(config.schedule)
    first, later = config.pseudo_labels.first, config.pseudo_labels.later
    sources = {"cbp_warmup": RowSource("warmup", "cbp", first)}
    if has_vlp(config):
        sources["vlp_raw"] = RowSource(None, "raw_vlp", first)
    if last_b := _last(phases, "B"):
        sources["vlp"] = RowSource(last_b.name, "vlp", later)
    if last_f := _last(phases, "F"):
        sources["ours"] = RowSource(last_f.name, "cbp", later)
        if config.training.select == "held_out":
            sources["ours_last"] = sources["ours"]
            if run is not None:
                sources["ours"] = RowSource(best_phase(run, [p.name for p in phases if p.kind == "F"]), "cbp", later)
    else:
        # without an F phase the CBP branch of the end is the warmed-up one
        sources["ours"] = sources["cbp_warmup"]
    return {row: sources[row] for row in ROWS if row in sources}


def best_phase(run: RunFolder, names: Sequence[str]) -> str:
    """Of the phases `names` the one with the best held-out video mAP; the earliest of equals."""
    ends = {record["phase"]: record for record in run.records() if record["kind"] == "phase_end"}
    measured = [name for name in names if "held_out_map" in ends.get(name, {})]
    if not measured:
        raise UserError(f"{run.path}: no held-out measure in metrics.jsonl yet; let `wtal train` finish")
    return max(measured, key=lambda name: ends[name]["held_out_map"])


def _last(phases: Sequence[Phase], kind: str) -> Phase | None:
    return next((phase for phase in reversed(phases) if phase.kind == kind), None)


def load_row(run: RunFolder, source: RowSource, branches: Branches) -> StreamedBranch:
    """The branch of a row with its checkpoint's weights, in evaluation mode.

    Raises `UserError` for a checkpoint that is missing, damaged or of another network.
    """
    branch = getattr(branches, source.branch)
    if source.checkpoint is not None:
        path = run.checkpoints / f"{source.checkpoint}.pt"
        state = load_checkpoint(path)
        try:
            branch.load_state_dict(state[source.branch])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path}: not the weights of this run's {source.branch} branch ({type(error).__name__}: {reason}); put "
                "the run's own checkpoint back, or train again in another folder with out=FOLDER"
            ) from None
    return branch.eval()


def score_row(
    branch: StreamedBranch, rule: str, features: FeatureSet, ids: Sequence[str], device: torch.device, name: str = ""
) -> Iterator[tuple[str, VideoScores]]:
    """Scores of each video of `ids` by one branch, one video in memory at a time."""
    scored = score_videos(branch, features, ids, device)
    for video_id, (output, mask_BT) in zip(ids, tqdm(scored, name, len(ids), unit="video", disable=None), strict=True):
        attention_BT = output.attention_BT
        yield (
            video_id,
            VideoScores(
                frame_TC=frame_scores(output, mask_BT, rule)[0].float().cpu().numpy(),
                video_C=branch.video_probability(output, mask_BT)[0].float().detach().cpu().numpy(),
                grid=features.grid,
                duration=features.duration(video_id),
                attention_T=None if attention_BT is None else attention_BT[0].float().cpu().numpy(),
            ),
        )


def score_rows(
    config: Config,
    run: RunFolder,
    branches: Branches,
    features: FeatureSet,
    ids: Sequence[str],
    device: torch.device,
    rows: Sequence[str],
) -> dict[str, dict[str, VideoScores]]:
    """Scores of each row of `rows` by video id, in memory alone."""
    sources = row_sources(config, run)
    scores = {}
    for row in rows:
        branch = load_row(run, sources[row], branches).to(device)
        scores[row] = dict(score_row(branch, sources[row].rule, features, ids, device, ROWS[row]))
    return scores


def write_scores(
    config: Config, run: RunFolder, branches: Branches, features: FeatureSet, ids: Sequence[str], device: torch.device
) -> None:
    """Score all rows of a run into its `scores/` folder; videos that are there already are skipped.

    Scores that other weights, another rule or other feature streams made, or that do not say, are made anew.
    """
    for row, source in row_sources(config, run).items():
        branch = load_row(run, source, branches)
        _drop_foreign(run, row, made_from(branch, source.rule, features))
        missing = [video_id for video_id in ids if not run.scores(row, video_id).is_file()]
        if not missing:
            continue
        branch = branch.to(device)
        for video_id, scores in score_row(branch, source.rule, features, missing, device, ROWS[row]):
            scores.save(run.scores(row, video_id))


def made_from(branch: StreamedBranch, rule: str, features: FeatureSet) -> dict[str, Any]:
    """What a row's scores follow from, as JSON data: hash of the weights, score rule, folders of the streams."""
    streams = {name: features.streams[name].folder.name for name in branch.streams}
    return {"weights": f"sha256:{weights_hash(branch)}", "rule": rule, "streams": streams}


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all weights."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _drop_foreign(run: RunFolder, row: str, current: dict[str, Any]) -> None:
    folder = run.path / "scores"
    identity = folder / f"{row}.json"
    try:
        known = read_json(identity) if identity.is_file() else None
    except UserError:
        known = None  # damaged: as good as none
    if known == current:
        return
    # the scores go first: a kill in between leaves the old identity, and the next call drops the rest
    for path in (folder / row).glob("*.npz"):
        path.unlink()
    write_json(identity, current)
