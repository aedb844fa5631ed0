"""Strong labels and unlabelled clips beside weak ones: which clips a step sees, what the loss is made of, exact resume,
and that each kind teaches what the weak labels cannot."""

import math

import numpy as np
import pytest
import torch

from feature_extraction.errors import UserError
from feature_extraction.store.stream import create_stream
from wtal.config.load import Config
from wtal.config.strict import build
from wtal.config.training import SemiSettings
from wtal.datasets.features import open_features
from wtal.datasets.formats.by_name import load_annotations
from wtal.inference.scores import score_videos
from wtal.models.branch import BranchOutput, squash
from wtal.runs.localizer import Localizer
from wtal.training.data import Batch, TrainingVideos
from wtal.training.folder import load_checkpoint
from wtal.training.run import train
from wtal.training.semi import SemiSupervision, ramp
from wtal.training.student import average_decay

from .test_training import same, train_killed_at, weights

SNIPPET, LENGTH, WIDTH = 0.1, 24, 8


@pytest.fixture
def clips(tmp_path):
    """Weak clips in which two sounds always come together; strong clips have them at different times."""
    rng = np.random.default_rng(0)
    stream = create_stream(tmp_path / "features", "logmel", {"fps": 10.0, "window": 1, "stride": 1, "dim": WIDTH})
    tables = {"weak": ["filename\tevent_labels"], "unlabelled": ["filename\tdataset"]}
    tables |= {name: ["filename\tonset\toffset\tevent_label"] for name in ("strong", "test")}
    for kind, count in (("weak", 12), ("strong", 8), ("unlabelled", 10), ("test", 8)):
        for number in range(count):
            clip, silent = f"{kind}_{number}", kind == "weak" and number % 3 == 2
            feature_TD = 0.1 * rng.standard_normal((LENGTH, WIDTH))
            starts = rng.permutation([1, 13]) + rng.integers(0, 4, 2)
            for c, start in enumerate(starts):
                if not silent or c == 2:
                    feature_TD[start : start + 6, c] += 2
                if kind in ("strong", "test"):
                    tables[kind].append(f"{clip}.wav\t{start * SNIPPET:.2f}\t{(start + 6) * SNIPPET:.2f}\t{'AB'[c]}")
            if silent:
                feature_TD[3:9, 2] += 2
                tables["weak"].append(f"{clip}.wav\tC")
            elif kind == "weak":
                tables["weak"].append(f"{clip}.wav\tA,B")
            elif kind == "unlabelled":
                tables["unlabelled"].append(f"{clip}.wav\tsomewhere")
            stream.write(clip, feature_TD, {"duration": LENGTH * SNIPPET, "source": f"{clip}.wav"})
    for name, rows in tables.items():
        (tmp_path / f"{name}.tsv").write_text("\n".join(rows) + "\n")

    def make(out="run", **sections):
        values = {
            "out": str(tmp_path / out),
            "data": {
                "format": "dcase", "annotations": str(tmp_path / "weak.tsv"), "streams": ["logmel"],
                "annotations_extra": str(tmp_path / "test.tsv"), "features": str(tmp_path / "features"),
                "strong": str(tmp_path / "strong.tsv"), "unlabelled": str(tmp_path / "unlabelled.tsv"),
            },
            "cbp": {
                "name": "convolution", "streams": ["logmel"], "width": 16, "kernel": 1, "dropout_in": 0.1,
                "dropout_out": 0.1, "pooling": {"name": "power"},
            },
            "schedule": {"strategy": "warmup_only", "warmup_steps": 14},
            "optimizer": {"lr": 1e-2, "batch": 6, "snippets": 20},
            "training": {"threads": 1, "checkpoint_steps": 4, "log_steps": 5},
        }  # fmt: skip
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section}
        return build(Config, values)

    return make


ALL = {"strong_clips": 4, "unlabelled_clips": 2, "consistency": 3.0}


@pytest.mark.parametrize("sections", [{}, {"optimizer": {"accumulate": 2, "slice": 3}}, {"cbp": {"name": "um"}}])
def test_a_killed_and_resumed_run_is_the_unbroken_one(clips, monkeypatch, sections):
    if "cbp" in sections:
        sections = {"cbp": {"name": "um", "pooling": {}, "um": {"margin": 5.0}}}
    unbroken, _ = train(clips("unbroken", semi=ALL, **sections))
    killed = train_killed_at(monkeypatch, clips("killed", semi=ALL, **sections), {3, 10})
    assert same(weights(unbroken), weights(killed)) and unbroken.records() == killed.records()
    for file in unbroken.checkpoints.iterdir():
        assert file.read_bytes() == (killed.checkpoints / file.name).read_bytes(), file.name


def test_slices_change_nothing_but_rounding(clips):
    whole, _ = train(clips("whole", semi=ALL, cbp={"dropout_in": 0.0, "dropout_out": 0.0}))
    sliced, _ = train(clips("sliced", semi=ALL, cbp={"dropout_in": 0.0, "dropout_out": 0.0}, optimizer={"slice": 3}))
    losses = [[r["loss"] for r in run.records() if r["kind"] == "train"] for run in (whole, sliced)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_exponents_and_deviations_are_logged_at_every_log_step(clips):
    run, _ = train(clips(semi=ALL))
    records = run.records()
    assert [r["step"] for r in records if r["kind"] == "train"] == [5, 10, 14]
    assert all(len(r["exponent_n"]) == len(r["deviation"]) == 3 for r in records)
    end = records[-1]
    features, config = open_features(clips().data), clips(semi=ALL)
    localizer = Localizer(run, config, load_annotations(config.data))
    branch = localizer._branch("cbp_warmup", features)
    names = [f"weak_{n}" for n in range(12) if n % 3 != 2]
    spread = [
        output.p_BTC[0, :, 0].std(correction=0).item() for output, _ in score_videos(branch, features, names, "cpu")
    ]
    assert end["kind"] == "phase_end" and end["deviation"][0] == pytest.approx(np.mean(spread), rel=1e-4)


def test_steps_see_all_clips_of_each_kind_in_equal_shares(clips):
    features = open_features(clips().data)
    videos = TrainingVideos(features, features.ids()[:9], np.zeros((9, 2)))
    semi = SemiSupervision(SemiSettings(strong_clips=2, unlabelled_clips=4, consistency=1.0), videos, 3, [None] * 2)
    weak, seen = np.array([2, 0, 1, 0]), []
    for step in range(6):
        whole = semi.joined(weak, 7, step, 1)
        assert whole[:4].tolist() == weak.tolist() and set(whole[4:6]) == {3, 4} and set(whole[6:]) <= {5, 6, 7, 8}
        parts = semi.joined(weak, 7, step, 2)
        assert sorted(parts) == sorted(whole) and parts[:2].tolist() == [2, 0] and parts[5:7].tolist() == [1, 0]
        seen += whole[6:].tolist()
    assert all(sorted(seen[i : i + 4]) == [5, 6, 7, 8] for i in range(0, 24, 4))
    assert len({tuple(seen[i : i + 4]) for i in range(0, 24, 4)}) > 1


def test_loss_is_the_sum_of_its_three_terms(clips):
    """Against plain loops: the bag loss of the weak row, the strong row's frames, both differences of all rows."""
    rng = np.random.default_rng(1)
    logit, said = (torch.from_numpy(rng.normal(size=(3, 4, 2))).float() for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    label = torch.tensor([[1.0, 0.0], [0, 0], [0, 0]])
    frames = np.array([[0, 1], [1, 0], [0, 0], [1, 1], [0, 1]])

    class Branch:
        def own_loss(self, output, label_BC, mask_BT, progress):
            assert output.logit_BTC.shape == (1, 4, 2) and label_BC.tolist() == [[1, 0]] and mask_BT.sum() == 3
            return torch.tensor(0.25), {"bag": torch.tensor(0.25)}

        def video_probability(self, output, mask_BT):
            return output.p_BTC[:, 0]

    settings = SemiSettings(strong_clips=1, unlabelled_clips=1, consistency=2.0, frame_weight=0.5, ramp_up=0.4)
    semi = SemiSupervision(settings, [None] * 3, 1, [frames])
    snippets = [np.arange(3), np.array([1, 2, 3, 4]), np.arange(2)]
    batch = Batch({}, mask, mask, label, np.array([0, 1, 2]), snippets)
    output = BranchOutput(logit, *squash(logit, "sigmoid"), logit)
    taught = said.sigmoid(), said.sigmoid()[:, 1]
    loss, terms = semi.loss(Branch(), output, taught, batch, 0.2)
    p, q = logit.sigmoid().numpy(), said.sigmoid().numpy()
    entries = [-math.log(p[1, t, c] if frames[t + 1][c] else 1 - p[1, t, c]) for t in range(4) for c in range(2)]
    assert float(terms["frames"]) == pytest.approx(np.mean(entries), rel=1e-5)
    squares = [(p[b, t, c] - q[b, t, c]) ** 2 for b in range(3) for t in range(4) if mask[b, t] for c in range(2)]
    assert float(terms["frame_consistency"]) == pytest.approx(np.mean(squares), rel=1e-5)
    assert float(terms["video_consistency"]) == pytest.approx(((p[:, 0] - q[:, 1]) ** 2).mean(), rel=1e-5)
    both = np.mean(squares) + ((p[:, 0] - q[:, 1]) ** 2).mean()
    assert float(loss) == pytest.approx(0.25 + 0.5 * np.mean(entries) + 2 * math.exp(-1.25) * both, rel=1e-5)
    assert ramp(0.4, 0.4) == ramp(1.0, 0.4) == 1 and ramp(0.0, 0.4) == math.exp(-5)


def test_strong_labels_part_sounds_that_always_come_together(clips):
    longer = {"schedule": {"strategy": "warmup_only", "warmup_steps": 60}}
    right = {}
    for name, semi in (("weak", {}), ("both", {"strong_clips": 4})):
        config = clips(name, semi=semi, **longer)
        run, _ = train(config)
        annotations, features = load_annotations(config.data), open_features(config.data)
        localizer = Localizer(run, config, annotations)
        shares = []
        for key, scores in localizer.score("cbp_warmup", features, sorted(annotations.subset("validation").videos)):
            for event in annotations.videos[key].instances:
                inside_TC = scores.frame_TC[round(event.start / SNIPPET) : round(event.end / SNIPPET)]
                shares.append((inside_TC[:, "AB".index(event.label)] > inside_TC[:, "BA".index(event.label)]).mean())
        right[name] = np.mean(shares)
    assert right["both"] > 0.95 and right["weak"] < 0.8


def test_the_warm_up_leaves_the_teacher_that_averages_the_student(clips):
    semi = {"unlabelled_clips": 2, "consistency": 1.0, "ema": 0.5}
    one = {"strategy": "warmup_only", "warmup_steps": 1}
    teacher, _ = train(clips("teacher", semi=semi, schedule=one))
    student, _ = train(clips("student", semi={**semi, "result": "student"}, schedule=one))
    untrained, _ = train(clips("none", semi=semi, schedule={**one, "warmup_steps": 0}))
    end, moved, start = (load_checkpoint(run.place("warmup"))["cbp"] for run in (teacher, student, untrained))
    decay = average_decay(0.5, 0)
    key = "branch.classifier.weight"
    torch.testing.assert_close(end[key], decay * start[key] + (1 - decay) * moved[key])
    assert not torch.equal(end[key], moved[key])


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"semi": {"unlabelled_clips": 2}}, "set semi.consistency above 0"),
        ({"semi": {"strong_clips": 2}, "data": {"strong": None}}, "set data.strong=FILE"),
        ({"semi": {**ALL, "strong_clips": 3}, "optimizer": {"accumulate": 2}}, "strong_clips 3 is not a multiple"),
        ({"semi": {**ALL, "ramp_up": 0}}, "semi.ramp_up must be in"),
        ({"data": {"format": "csv"}}, "data.strong is for data.format dcase"),
    ],
)
def test_what_does_not_fit_is_refused(clips, sections, message):
    with pytest.raises(UserError, match=message):
        train(clips(**sections))


def test_wrong_tables_are_named(clips, tmp_path):
    data = {"strong": str(tmp_path / "weak.tsv")}
    with pytest.raises(UserError, match="weak.tsv: no column onset"):
        load_annotations(clips(data=data).data)
    with pytest.raises(UserError, match="clip 'weak_0' is in two label files"):
        load_annotations(clips(data={"unlabelled": str(tmp_path / "weak.tsv")}).data)
    found = load_annotations(clips().data)
    assert {name: len(found.subset(name).videos) for name in ("training", "strong", "unlabelled", "validation")} == {
        "training": 12, "strong": 8, "unlabelled": 10, "validation": 8,
    }  # fmt: skip
    assert not any(video.labels for video in found.subset("unlabelled").videos.values())
