"""A trained run as an object: checkpoint to scores to detections, one video in memory at a time.

    scores/<row>/   scores of all videos and what made them: weights, score rule, feature streams; of others they are
                    made anew (`wtal.inference.score_file`)

Legend: T snippets, C classes.
"""

import copy
import functools
import hashlib
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from feature_extraction.errors import UserError, reason_of
from feature_extraction.networks.towers import pick_device
from feature_extraction.progress import progress
from wtal.config.inference import InferenceSettings, expand_assignments
from wtal.config.load import Config, config_of_run
from wtal.config.strict import assignments, build, override, plain
from wtal.datasets.annotations import AnnotationSet, Detection
from wtal.datasets.detections import Detections
from wtal.datasets.features import FeatureSet, open_features
from wtal.datasets.formats.by_name import load_annotations
from wtal.datasets.formats.tags import Tags, read_tags
from wtal.inference.detect import detect, fuse
from wtal.inference.score_file import ScoreFile
from wtal.inference.scores import VideoScores, frame_scores, score_videos
from wtal.models.build import Branches, build_branches
from wtal.models.streams import StreamedBranch
from wtal.runs.new_videos import extract_streams, extractions_of
from wtal.runs.rows import ROWS, RowSource, row_sources, rows_behind, rule_of
from wtal.training.folder import RunFolder

if TYPE_CHECKING:
    import pandas

    from wtal.runs.packed import PackedModel
    from wtal.training.video_classifier import TrainedVideoClassifier

Videos = str | Path | Sequence[str | Path]


class Localizer:
    """A trained run. Networks are loaded at the first use and kept."""

    def __init__(
        self,
        run: "RunFolder | PackedModel",
        config: Config,
        annotations: AnnotationSet,
        networks: Mapping[str, Any] | None = None,
    ) -> None:
        """`networks`: identities (`wtal.runs.pack.identity_of`) that new videos' features must have, where known."""
        self.run, self.config, self.annotations, self.networks = run, config, annotations, networks or {}
        self._branches: Branches | None = None
        self._files: dict[str, ScoreFile] = {}
        self._networks: dict[tuple[str, str | None], StreamedBranch] = {}  # by branch and checkpoint

    def __repr__(self) -> str:
        return f"Localizer({self.run.path}, {len(self.classes)} classes, cbp {self.config.cbp.name})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the scores' columns."""
        return self.annotations.classes

    def detect(self, videos: Videos, store: str | Path | None = None) -> Detections:
        """Detections of video files (or of all videos in a folder) by video id, surest first; times in seconds.

        Features are extracted as for training and kept in `store` (default: `features-new` in the run folder), so
        that a second call is quick. Raises `UserError` naming a video that cannot be read, once the others' features
        are there.
        """
        return self.detections(self.scores(videos, store))

    def scores(self, videos: Videos, store: str | Path | None = None) -> Iterator[tuple[str, VideoScores]]:
        """Frame and video probabilities behind the detections: (video id, scores), one video at a time."""
        features, ids, failed = self.extract(videos, store)
        if failed:
            named = "; ".join(f"{video_id} ({why})" for video_id, why in sorted(failed.items()))
            raise UserError(f"{len(failed)} videos cannot be read: {named}")
        yield from self.score("ours", features, ids)

    def metrics(self) -> "pandas.DataFrame":
        """What training logged (`metrics.jsonl`), a row a record."""
        import pandas

        return pandas.DataFrame(self.run.records())

    def extract(
        self, videos: Videos, store: str | Path | None = None, row: str = "ours"
    ) -> tuple[FeatureSet, list[str], dict[str, str]]:
        """Features of new videos, the ids that have them, and the others with the reasons.

        What can be told without them (a missing checkpoint, a stream that nobody can make) is refused before anything
        is extracted.
        """
        extractions = extractions_of(self.config)
        for checkpoint in (self.sources[name].checkpoint for name in rows_behind(self.config, row).names):
            if checkpoint is not None and not self.run.place(checkpoint).is_file():
                raise UserError(f"{self.run.place(checkpoint)}: no such checkpoint; has `wtal train` got that far?")
        _ = self._device, self._classifier, self._tags
        places = [Path(videos)] if isinstance(videos, (str, Path)) else [Path(video) for video in videos]
        made = extract_streams(places, Path(store or self.run.path / "features-new"), extractions)
        self.check_networks(made[0])
        return made

    def check_networks(self, features: FeatureSet) -> None:
        """Raise `UserError` where other networks made the features than those that the model was trained with."""
        for name, wanted in self.networks.items():
            found = features.streams[name].identity if name in features.streams else {}
            differing = [key for key in wanted if found.get(key) != wanted[key]]
            if differing:
                raise UserError(
                    f"stream {name!r} is made by another network here than in training (differing: "
                    f"{', '.join(differing)}); get the weights that the model card names"
                )

    def detections(self, scored: Iterable[tuple[str, VideoScores]]) -> Detections:
        """Detections of scored videos (`scores`, `score`, `stored`) by video id, surest first; times in seconds."""
        return Detections((video_id, self.detect_one(own)) for video_id, own in scored)

    def detect_one(self, scores: VideoScores, labels: Collection[str] | None = None) -> list[Detection]:
        """Detections of one video; with `labels` of these classes, whatever the video scores say."""
        return detect(scores, self.classes, self._unfused, labels=labels)

    @functools.cached_property
    def _unfused(self) -> InferenceSettings:
        """The settings for scores that are fused already."""
        return replace(self.config.inference, fusion="none")

    def score(self, row: str, features: FeatureSet, ids: Sequence[str]) -> Iterator[tuple[str, VideoScores]]:
        """Scores of a row as detection sees them: with the video classifier's classes, fused, as the settings say."""
        names = rows_behind(self.config, row).names
        for scored in zip(*(self._score(name, features, ids) for name in names), strict=True):
            video_id = scored[0][0]
            by_row = {name: own for name, (_, own) in zip(names, scored, strict=True)}
            yield video_id, self._seen(row, features, video_id, by_row)

    @functools.cached_property
    def stores(self) -> bool:
        """Whether these settings score as the run's own: only then are its score files written."""
        own, asked = config_of_run(self.run.path).inference, self.config.inference
        return all(
            getattr(own, name) == getattr(asked, name) for name in ("rule", "untaught_cbp", "untaught_vlp", "longest")
        )

    def stored(self, row: str, ids: Sequence[str]) -> Iterator[tuple[str, VideoScores]]:
        """What `score` gives, from the run's score files where they are by this rule and of this length.

        Raises `UserError` for files that do not fit the classes.
        """
        names, settings = rows_behind(self.config, row).names, self.config.inference
        made = {name: (self._file(name).made, rule_of(self.config, name)) for name in names}
        if any((m.get("rule", rule), m.get("longest", 0)) != (rule, settings.longest) for m, rule in made.values()):
            yield from self.score(row, self._features, ids)
            return
        features = self._features if self._classifier else None
        for video_id in ids:
            yield video_id, self._seen(row, features, video_id, {name: self._load(name, video_id) for name in names})

    def stored_rows(self, video_id: str) -> dict[str, VideoScores]:
        """What `stored` gives of one video, by every row that was scored."""
        return {row: own for row in self.rows_with(video_id) for _, own in self.stored(row, [video_id])}

    def rows_with(self, video_id: str) -> list[str]:
        """The rows that this video was scored by."""
        return [row for row in ROWS if video_id in self._file(row)]

    def write(self, features: FeatureSet, ids: Sequence[str]) -> None:
        """Score all rows into the run's `scores/` folder; videos that are there already are skipped.

        Scores that other weights, another rule or other feature streams made, or that do not say, are made anew.
        """
        for row in self.sources:
            branch = self._branch(row, features)
            settings = self.config.inference
            made = made_from(branch, rule_of(self.config, row), features, settings.longest)
            try:
                file = self._file(row)
            except UserError:
                why = "scores that cannot be read (damaged, or of an earlier version) are made anew"
                tqdm.write(f"{self.run.scores(row)}: {why}", sys.stderr)
                file = self._files[row] = ScoreFile(self.run.scores(row), read=False)
            missing = [video_id for video_id in ids if video_id not in file] if file.fits(made) else ids
            if missing:
                file.extend(made, self._score(row, features, missing))

    def fingerprint(self, row: str, ids: Sequence[str]) -> str:
        """What was written of a row's scores of these videos, in a hash (`ScoreFile.fingerprint`).

        Raises `UserError` for scores that are damaged or missing.
        """
        return self._file(row).fingerprint(ids)

    @functools.cached_property
    def sources(self) -> dict[str, RowSource]:
        """Where the scores of each row of this run come from."""
        return row_sources(self.config, self.run)

    @functools.cached_property
    def _device(self) -> torch.device:
        return pick_device(self.config.training.device, kinds=())

    @functools.cached_property
    def _features(self) -> FeatureSet:
        return open_features(self.config.data)

    @functools.cached_property
    def _classifier(self) -> "TrainedVideoClassifier | None":
        if not self.config.inference.video_classifier:
            return None
        from wtal.training.video_classifier import load_video_classifier

        return load_video_classifier(Path(self.config.inference.video_classifier))

    @functools.cached_property
    def _tags(self) -> Tags | None:
        path = self.config.inference.class_tags
        if not path:
            return None
        tags = read_tags(Path(path))
        if differing := sorted(set(tags.classes) ^ set(self.classes)):
            whose = "the tags" if differing[0] in tags.classes else "this run"
            raise UserError(f"inference.class_tags={path}: class {differing[0]!r} is one of {whose} alone")
        return tags

    def _tagged(self, video_id: str) -> np.ndarray:
        """Scores of the video's classes in the file of tags, float32 `[C]`, in the order of this run's classes."""
        try:
            scores = self._tags.videos[video_id].scores
        except KeyError:
            path = self.config.inference.class_tags
            raise UserError(f"inference.class_tags={path}: no tags of video {video_id!r}; tag it too") from None
        return np.array([scores.get(name, 0.0) for name in self.classes], np.float32)

    def _score(self, row: str, features: FeatureSet, ids: Sequence[str]) -> Iterator[tuple[str, VideoScores]]:
        branch, rule = self._branch(row, features), rule_of(self.config, row)
        longest = self.config.inference.longest
        scored = score_videos(branch, features, ids, self._device, longest) if ids else ()
        bar = progress(scored, desc=ROWS[row].name, total=len(ids), unit="video", shown=bool(ids))
        for video_id, (output, mask_BT) in zip(ids, bar, strict=True):
            attention_BT, raw_BTC, map_BTP = output.attention_BT, output.raw_BTC, output.extra.get("map_BTP")
            thin = features.length(video_id) / mask_BT.shape[1] if longest else 1.0  # snippets that a row stands for
            yield (
                video_id,
                VideoScores(
                    frame_TC=frame_scores(output, mask_BT, rule)[0].float().cpu().numpy(),
                    video_C=branch.video_probability(output, mask_BT)[0].float().detach().cpu().numpy(),
                    grid=replace(features.grid, fps=features.grid.fps / thin),
                    duration=features.duration(video_id),
                    attention_T=None if attention_BT is None else attention_BT[0].float().cpu().numpy(),
                    raw_TC=None if raw_BTC is None else raw_BTC[0].float().cpu().numpy(),
                    map_TP=None if map_BTP is None else map_BTP[0].float().detach().cpu().numpy(),
                    classes=self.classes,
                ),
            )

    def _branch(self, row: str, features: FeatureSet) -> StreamedBranch:
        """The branch of a row with its checkpoint's weights, in evaluation mode.

        Raises `UserError` for a checkpoint that is missing, damaged or of another network.
        """
        source = self.sources[row]
        key = source.branch, source.checkpoint
        if key in self._networks:
            return self._networks[key]
        if self._branches is None:
            self._branches = build_branches(self.config, features, self.classes)
        branch = getattr(self._branches, source.branch)
        if any(source.branch == held for held, _ in self._networks):
            # two checkpoints of one branch are asked in turn where one chooses the classes of the other
            branch = copy.deepcopy(branch)
        branch = branch.to(self._device)
        if source.checkpoint is not None:
            try:
                branch.load_state_dict(self.run.weights(source.checkpoint, source.branch))
            except (KeyError, TypeError, AttributeError, RuntimeError) as error:
                raise UserError(
                    f"{self.run.place(source.checkpoint)}: not the weights of this run's {source.branch} branch "
                    f"({type(error).__name__}: {reason_of(error)}); put the run's own checkpoint "
                    "back, or train again in another folder with out=FOLDER"
                ) from None
        self._networks[key] = branch.eval()
        return branch

    def _file(self, row: str) -> ScoreFile:
        if row not in self._files:
            self._files[row] = ScoreFile(self.run.scores(row))
        return self._files[row]

    def _load(self, row: str, video_id: str) -> VideoScores:
        own = self._file(row)[video_id]
        if len(own.video_C) != len(self.classes):
            raise UserError(
                f"{self.run.scores(row)}: scores of {len(own.video_C)} classes, but the annotations have "
                f"{len(self.classes)}; run `wtal predict` again, or restore the annotations of the training"
            )
        return replace(own, classes=self.classes)

    def _seen(
        self, row: str, features: FeatureSet | None, video_id: str, scored: dict[str, VideoScores]
    ) -> VideoScores:
        """A row's scores of one video as detection sees them, from those of all rows behind it."""
        settings, behind = self.config.inference, rows_behind(self.config, row)
        if self._tags is not None:
            video_C = self._tagged(video_id)
            scored = {name: replace(own, video_C=video_C) for name, own in scored.items()}
        if self._classifier is not None:
            from wtal.training.video_classifier import replace_video_scores

            weight = settings.video_classifier_weight
            scored = {
                name: replace_video_scores({video_id: own}, self._classifier, features, self.classes, weight)[video_id]
                for name, own in scored.items()
            }
        seen = fuse(scored[row], scored[behind.fused] if behind.fused else None, settings)
        if not behind.classes:
            return seen
        return replace(seen, video_C=np.mean([scored[name].video_C for name in behind.classes], axis=0))


def open_run(run: RunFolder, overrides: Sequence[str] | Mapping[str, Any] = (), **settings: Any) -> Localizer:
    """The run with changes that prediction may make: `inference.*`, `evaluation.*`, `training.device`.

    Raises `UserError` where the folder is no run, and for another or unknown setting.
    """
    changes = assignments(overrides, settings)
    for assignment in changes:
        if not assignment.startswith(("inference.", "evaluation.", "training.device=")):
            raise UserError(f"{assignment!r}: prediction takes inference.*, evaluation.* and training.device only")
    config = build(Config, override(plain(config_of_run(run.path)), expand_assignments(changes)))
    return Localizer(run, config, load_annotations(config.data))


def made_from(branch: StreamedBranch, rule: str, features: FeatureSet, longest: int) -> dict[str, Any]:
    """What a row's scores follow from, as JSON data: hash of the weights, score rule, streams, length."""
    streams = {name: features.streams[name].folder.name for name in branch.streams}
    return {"weights": f"sha256:{weights_hash(branch)}", "rule": rule, "streams": streams, "longest": longest}


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all weights."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
