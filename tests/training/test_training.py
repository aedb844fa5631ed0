"""Whole small runs: same seed same bits, exact resume after a stop at any step, two processes equal to one."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import wtal
from feature_extraction.errors import RunFailure, UserError
from feature_extraction.files import read_json
from wtal.config.load import config_of_run
from wtal.config.strict import dump
from wtal.datasets.features import open_features
from wtal.datasets.splits import split
from wtal.inference.scores import frame_scores, score_videos
from wtal.models.build import build_branches
from wtal.runs.measure import FIGURES
from wtal.runs.predict import predict_run
from wtal.runs.rows import row_sources
from wtal.training.folder import RunFolder, load_checkpoint
from wtal.training.run import train
from wtal.training.trainer import Trainer


def weights(run):
    state = load_checkpoint(run.checkpoints / "last.pt")["students"]
    return {f"{branch}.{key}": value for branch in state for key, value in state[branch]["branch"].items()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


class Killed(BaseException):
    """Stands for a kill: nothing in the code may catch it and tidy up."""


def train_killed_at(monkeypatch, config, calls):
    """Train, dying in the middle of the step whose number (counted over restarts) is in `calls`, and starting again."""
    original, count = Trainer._train_step, [0]

    def dying(self, *arguments):
        count[0] += 1
        terms = original(self, *arguments)
        if count[0] in calls:
            raise Killed
        return terms

    monkeypatch.setattr(Trainer, "_train_step", dying)
    while True:
        try:
            run, _ = train(config)
            break
        except Killed:
            continue
    monkeypatch.undo()
    return run


def test_same_seed_same_bits_other_seed_other_bits(make_config):
    one, _ = train(make_config("one"))
    two, _ = train(make_config("two"))
    other, _ = train(make_config("other", seed=1))
    assert same(weights(one), weights(two))
    assert one.records() == two.records()
    assert not same(weights(one), weights(other))


@pytest.mark.parametrize("calls", [{1}, {5, 6}, {12}, {13, 20}, {18, 19, 25, 33}])
def test_a_killed_and_resumed_run_is_the_unbroken_one(make_config, monkeypatch, calls):
    unbroken, _ = train(make_config("unbroken"))
    killed = train_killed_at(monkeypatch, make_config("killed"), calls)
    assert same(weights(unbroken), weights(killed))
    assert unbroken.records() == killed.records()
    for file in unbroken.checkpoints.iterdir():
        assert file.read_bytes() == (killed.checkpoints / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    "sections",
    [
        {"cbp": {"name": "co2net"}},
        {"cbp": {"name": "delu", "activation": "softmax"}},
        {"cbp": {"name": "um", "um": {"margin": 5.0}}},
        {"cbp": {"name": "convolution", "input_norm": "standard", "pooling": {"name": "generalized_mean"}}},
        {"optimizer": {"sampling": "random_perturb", "snippets": 20}},
        {"pseudo_labels": {"ema": 0.9, "adaptive": True, "agreement": "drop"}},
        {"pseudo_labels": {"agreement": "background"}, "loss": {"kd_balance": "classes"}},
    ],
    ids=["co2net", "delu", "um", "generalized_mean", "random_perturb", "ema", "background"],
)
def test_every_variant_resumes_exactly(make_config, monkeypatch, sections):
    unbroken, _ = train(make_config("unbroken", **sections))
    # resumed inside the warm-up (at step 4), B1 (16), F1 (20) and B2 (28)
    killed = train_killed_at(monkeypatch, make_config("killed", **sections), {7, 20, 28, 38})
    assert same(weights(unbroken), weights(killed))
    assert unbroken.records() == killed.records()
    for file in unbroken.checkpoints.iterdir():
        assert file.read_bytes() == (killed.checkpoints / file.name).read_bytes(), file.name


def test_a_finished_run_is_left_as_it_is(make_config):
    run, _ = train(make_config())
    before = (run.checkpoints / "last.pt").read_bytes(), run.metrics.read_bytes()
    train(make_config())
    assert before == ((run.checkpoints / "last.pt").read_bytes(), run.metrics.read_bytes())


def test_alternation_trains_one_branch_at_a_time(make_config):
    run, _ = train(make_config())
    state = {name: load_checkpoint(run.checkpoints / f"{name}.pt") for name in ("warmup", "B1", "F1", "B2", "F2")}
    assert same(state["warmup"]["cbp"], state["B1"]["cbp"]) and not same(state["warmup"]["vlp"], state["B1"]["vlp"])
    assert same(state["B1"]["vlp"], state["F1"]["vlp"]) and not same(state["B1"]["cbp"], state["F1"]["cbp"])
    assert same(state["F1"]["cbp"], state["B2"]["cbp"]) and same(state["B2"]["vlp"], state["F2"]["vlp"])
    kinds = [(r["phase"], r["kind"]) for r in run.records() if r["kind"] != "train"]
    assert kinds == [
        ("warmup", "phase_end"),
        *((p, k) for p in ("B1", "F1", "B2", "F2") for k in ("pseudo_labels", "phase_end")),
    ]


@pytest.mark.parametrize(
    "strategy,phases",
    [("warmup_only", []), ("only_b", ["B1"]), ("only_f", ["F1"]), ("alternate", ["B1", "F1", "B2", "F2"])],
)
def test_strategies_run_their_phases_and_rows(make_config, world, strategy, phases):
    config = make_config(schedule={"strategy": strategy})
    run, _ = train(config)
    assert sorted(p.stem for p in run.checkpoints.glob("*.pt")) == sorted(["last", "warmup", *phases])
    assert predict_run(run, world / "predictions.json", "ours", (), None) == 0
    rows = read_json(run.summary)["rows"]
    assert set(rows) == {"cbp_warmup", "vlp_raw", "ours"} | ({"vlp"} if any(p[0] == "B" for p in phases) else set())
    if strategy in ("warmup_only", "only_b"):
        assert rows["ours"] == rows["cbp_warmup"]
    for values in rows.values():
        assert set(values) == {"mAP", "frame_threshold", *FIGURES}
        assert all(0 <= v <= 1 for v in [*values["mAP"].values(), values["average_mAP"], values["fg_miou"]])


def test_selection_looks_at_held_out_training_videos_only(make_config, world):
    config = make_config(data={"held_out": 0.25}, training={"select": "held_out"})
    run, _ = train(config)
    ends = {r["phase"]: r["held_out_map"] for r in run.records() if r["kind"] == "phase_end"}
    predict_run(run, world / "p.json", "ours", (), None)
    rows = read_json(run.summary)["rows"]
    best = max(("F1", "F2"), key=lambda name: ends[name])
    assert row_sources(config, run)["ours"].checkpoint == best
    assert row_sources(config, run)["ours_last"].checkpoint == "F2"
    assert {"ours", "ours_last"} <= set(rows)
    with pytest.raises(UserError, match="set data.held_out"):
        train(make_config("none", training={"select": "held_out"}))


@pytest.mark.parametrize("accumulate", [2, 3, 6])
def test_accumulated_parts_are_the_whole_batch_where_the_loss_is_a_mean_over_videos(make_config, accumulate):
    # equation (1) is one, so no step of the warm-up depends on how a batch (and its crops to 20) is cut
    sections = {"cbp": {"dropout_in": 0.0, "dropout_out": 0.0}, "training": {"log_steps": 1}}
    sections["schedule"] = {"strategy": "warmup_only"}
    whole, _ = train(make_config("whole", **sections, optimizer={"snippets": 20}))
    parts, _ = train(make_config("parts", **sections, optimizer={"snippets": 20, "accumulate": accumulate}))
    losses = [[r["loss"] for r in run.records() if r["kind"] == "train"] for run in (whole, parts)]
    assert len(losses[0]) == 12 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_every_part_begins_with_pairs_of_one_class(make_config, monkeypatch):
    seen = []
    original = Trainer._train_step

    def looking(self, phase, batches, pseudo):
        if phase.kind == "warmup":
            seen.extend(batches)
        return original(self, phase, batches, pseudo)

    monkeypatch.setattr(Trainer, "_train_step", looking)
    train(make_config(cbp={"name": "co2net"}, optimizer={"batch": 10, "accumulate": 2}))
    assert len(seen) == 24 and all(len(batch.videos) == 5 for batch in seen)
    for batch in seen:
        for i in (0, 2):
            assert (batch.label_BC[i] * batch.label_BC[i + 1]).sum() > 0 and batch.videos[i] != batch.videos[i + 1]


def test_a_lost_checkpoint_of_a_phase_is_not_made_up(make_config):
    run, _ = train(make_config())
    (run.checkpoints / "B1.pt").unlink()
    log = run.metrics.read_bytes()
    with pytest.raises(UserError, match=r"B1.pt: missing, though this run trained past it \(to step 36\)"):
        train(make_config())
    assert not (run.checkpoints / "B1.pt").exists() and run.metrics.read_bytes() == log


def test_a_kill_between_the_last_state_and_the_last_phases_file(make_config, monkeypatch):
    """The state stands at the end, so that whoever finds the phase's file finds all of it; the next call writes it."""
    whole, _ = train(make_config("whole"))

    def killed(self, phase):
        if phase is self.phases[-1]:
            raise KeyboardInterrupt
        return original(self, phase)

    original = Trainer._save_end
    monkeypatch.setattr(Trainer, "_save_end", killed)
    with pytest.raises(KeyboardInterrupt):
        train(make_config("cut"))
    monkeypatch.undo()
    cut, _ = train(make_config("cut"))
    files = {path.name for path in whole.checkpoints.iterdir()}
    assert {path.name for path in cut.checkpoints.iterdir()} == files
    for name in sorted(files):
        assert (cut.checkpoints / name).read_bytes() == (whole.checkpoints / name).read_bytes(), name
    assert cut.metrics.read_bytes() == whole.metrics.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [b"", b"text\n", {"other": 1}, [1, 2], {"step": 3, "students": {"cbp": {}}}, {"step": 3, "students": [1]}],
    ids=["empty", "text", "foreign", "list", "other networks", "no networks"],
)
def test_a_damaged_checkpoint_is_named(make_config, damage):
    run, _ = train(make_config())
    last = run.checkpoints / "last.pt"
    last.write_bytes(damage) if isinstance(damage, bytes) else torch.save(damage, last)
    with pytest.raises(UserError, match=r"last.pt: not a checkpoint of "):
        train(make_config())


def test_damaged_small_files_of_a_run_are_named(make_config):
    run, _ = train(make_config())
    lines = run.metrics.read_text().split("\n")
    run.metrics.write_text("\n".join([lines[0], lines[1][:10], *lines[2:]]))
    with pytest.raises(UserError, match=r"metrics.jsonl: line 2 is not JSON"):
        run.records()
    (run.path / "config.yaml").write_text("a: [1")
    for reading in (lambda: config_of_run(run.path), lambda: train(make_config())):
        with pytest.raises(UserError, match="config.yaml: not valid YAML"):
            reading()


def test_a_run_of_before_a_setting_goes_on_as_it_was(make_config):
    run, _ = train(make_config(vlp={"input_length": "one"}))
    config = run.path / "config.yaml"
    lines = [line for line in config.read_text().splitlines()[1:] if "algorithm" not in line]
    config.write_text("\n".join(lines))
    assert config_of_run(run.path).vlp.input_length == "one"
    train(make_config(vlp={"input_length": "one"}))
    with pytest.raises(UserError, match="vlp.input_length was 'one', now 'root_width'"):
        train(make_config())


def test_what_fails_before_training_leaves_no_run(make_config, world, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="TensorBoard is not installed"):
        train(make_config("new", training={"tensorboard": True}))
    assert not (world / "new").exists()
    # what a kill leaves while the folder is being opened
    (world / "new").mkdir()
    (world / "new" / ".config.yaml.x1.part").write_text("out:")
    run, _ = train(make_config("new"))
    assert not list(run.path.glob(".*"))


def test_a_vlp_that_had_no_steps_does_not_teach(make_config):
    without, _ = train(make_config("without", schedule={"b_steps": 0, "rounds": 1}))
    only_f, _ = train(make_config("only_f", schedule={"strategy": "only_f", "rounds": 1}))
    labels = [
        {**next(r for r in run.records() if r["phase"] == "F1" and r["kind"] == "pseudo_labels")}
        for run in (without, only_f)
    ]
    assert labels[0] == labels[1]


@pytest.mark.parametrize("later_vlp", ["", "minmax"])
def test_agreed_labels_are_the_same_for_whoever_learns(make_config, later_vlp):
    """Foreground from the VLP, background from the CBP branch too, each by its own rule, in B and in F phases."""
    pseudo = {"agreement": "background", "later_vlp": later_vlp, "high": 0.5, "low": 0.4}
    config = make_config(pseudo_labels=pseudo)
    run, _ = train(config)
    localizer = wtal.load(run.path)
    features = open_features(localizer.config.data)
    said = {r["phase"]: r for r in run.records() if r["kind"] == "pseudo_labels"}
    annotations = split(localizer.annotations, config.data).train
    branches = build_branches(config, features, localizer.classes)
    # phase -> checkpoint and rule of the VLP (None: frozen CLIP), of the CBP branch; the warm-up's background stays
    makers = {
        "B1": (None, "minmax", "warmup", "minmax"), "F1": ("B1", later_vlp or "probability", "warmup", "minmax"),
        "B2": ("B1", later_vlp or "probability", "F1", "probability"),
        "F2": ("B2", later_vlp or "probability", "F1", "probability"),
    }  # fmt: skip
    for phase, (vlp_name, vlp_rule, cbp_name, cbp_rule) in makers.items():
        vlp = branches.raw_vlp
        if vlp_name:
            vlp = branches.vlp
            vlp.load_state_dict(load_checkpoint(run.checkpoints / f"{vlp_name}.pt")["vlp"])
        warmed_up, cbp = branches.cbp, copy.deepcopy(branches.cbp)
        warmed_up.load_state_dict(load_checkpoint(run.checkpoints / "warmup.pt")["cbp"])
        cbp.load_state_dict(load_checkpoint(run.checkpoints / f"{cbp_name}.pt")["cbp"])
        shares = []
        for video_id in sorted(annotations.videos):
            own_C = np.isin(localizer.classes, annotations.videos[video_id].labels)
            v_TC, c_TC, w_TC = (
                frame_scores(*next(score_videos(b, features, [video_id], torch.device("cpu"))), rule)[0][:, own_C]
                for b, rule in ((vlp, vlp_rule), (cbp, cbp_rule), (warmed_up, "minmax"))
            )
            low_TC = (v_TC < 0.4) | (c_TC < 0.4) | (w_TC < 0.4)
            shares.append([float(low_TC.float().mean()), float(((v_TC > 0.5) & ~low_TC).float().mean())])
        background, foreground = np.mean(shares, axis=0)
        assert said[phase]["background"] == pytest.approx(background), phase
        assert said[phase]["foreground"] == pytest.approx(foreground), phase
    assert 0 < said["F2"]["foreground"] < 1 and 0 < said["F2"]["background"] < 1


@pytest.mark.parametrize(
    "section,name,value",
    [
        ("loss", "kd", -1.0), ("loss", "temperature", 0.0), ("loss", "fb_max_frames", 0), ("optimizer", "lr", -1.0),
        ("optimizer", "vlp_lr", float("nan")), ("optimizer", "weight_decay", -1.0), ("optimizer", "clip_norm", -1.0),
        ("optimizer", "snippets", 0), ("training", "checkpoint_steps", 0), ("training", "log_steps", 0),
        ("training", "threads", -1),
    ],
)  # fmt: skip
def test_impossible_numbers_are_refused_by_name(make_config, section, name, value):
    with pytest.raises(UserError, match=rf"{section}\.{name} must be"):
        make_config(**{section: {name: value}})


def test_a_seed_too_large_and_losses_all_zero_are_refused(make_config):
    with pytest.raises(UserError, match="seed must be from 0"):
        make_config(seed=2**64)
    with pytest.raises(UserError, match="loss.kd and loss.fb are both 0"):
        make_config(loss={"kd": 0.0, "fb": 0.0})


def test_weight_decay_through_the_gradient_is_another_optimiser(make_config):
    def trained(out, decay, algorithm):
        optimizer = {"weight_decay": decay, "algorithm": algorithm}
        return weights(train(make_config(out, schedule={"strategy": "warmup_only"}, optimizer=optimizer))[0])

    assert same(trained("a", 0.0, "adam"), trained("b", 0.0, "adamw"))
    assert not same(trained("c", 0.1, "adam"), trained("d", 0.1, "adamw"))


def test_bf16_trains(make_config):
    run, _ = train(make_config(optimizer={"precision": "bf16"}))
    assert all(torch.isfinite(w).all() for w in weights(run).values())


def train_on_two_processes(world, config, port):
    """The run folder of `config` trained by two processes over gloo, one thread each."""
    path = world / "torchrun.yaml"
    path.write_text(dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    done = subprocess.run(
        [*command, "-m", "wtal", "train", str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [config.out]
    return RunFolder(Path(config.out))


@pytest.mark.parametrize(
    "port,sections,slices",
    [
        (29517, {}, (3, 0)),
        # four slices shared out two and two, pooling parameters that the loss itself uses, a loss over pairs of videos
        (29518, {"cbp": {"name": "convolution", "pooling": {"name": "attention"}}, "loss": {"cls": 0.5},
                 "optimizer": {"batch": 8, "clip_norm": 1.0}}, (2, 2)),
        (29519, {"cbp": {"name": "co2net"}, "pseudo_labels": {"ema": 0.9, "adaptive": True, "agreement": "drop"},
                 "optimizer": {"batch": 8, "accumulate": 2}}, (2, 0)),
    ],
    ids=["one slice a process", "two slices a process", "parts of a batch"],
)  # fmt: skip
def test_two_processes_equal_one_with_the_same_slices_bit_for_bit(make_config, world, port, sections, slices):
    def config(out, size):
        return make_config(out, **{**sections, "optimizer": {**sections.get("optimizer", {}), "slice": size}})

    one, _ = train(config("one", slices[0]))
    two = train_on_two_processes(world, config("two", slices[1]), port)
    phases = {record["phase"] for record in one.records()}
    assert phases == {"warmup", "B1", "F1", "B2", "F2"}
    assert one.records() == two.records()
    assert same(weights(one), weights(two))


@pytest.mark.parametrize("name", ["transformer", "convolution", "multiscale", "co2net", "delu", "um"])
def test_slices_change_nothing_but_rounding(make_config, monkeypatch, name):
    # a few steps only: rounding grows where scores cross the thresholds of the pseudo-labels
    schedule = {"warmup_steps": 3, "rounds": 1, "b_steps": 3, "f_steps": 3}
    section = {"cbp": {"name": name, "um": {"margin": 5.0}}, "schedule": schedule, "training": {"log_steps": 1}}
    section["optimizer"] = {"lr": 1e-4, "vlp_lr": 1e-4, "precision": "fp32"}
    whole, _ = train(make_config("whole", **section))
    cut, _ = train(make_config("cut", **{**section, "optimizer": {**section["optimizer"], "slice": 1}}))
    for one, other in zip(whole.records(), cut.records(), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            is_float = isinstance(value, float)
            assert value == (pytest.approx(other[name], rel=1e-4, abs=1e-6) if is_float else other[name])


def test_inputs_that_cannot_be(make_config, world):
    train(make_config())
    with pytest.raises(UserError, match="holds another run .*optimizer.lr was 0.003, now 0.001"):
        train(make_config(optimizer={"lr": 1e-3}))
    (world / "full").mkdir()
    (world / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and no run"):
        train(make_config("full"))
    with pytest.raises(UserError, match="'clap' is not in the feature store|no stream 'clap'"):
        train(make_config("a", vlp={"stream": "clap"}))
    with pytest.raises(UserError, match="multiple of"):
        train(make_config("b", optimizer={"accumulate": 4}))
    with pytest.raises(UserError, match="optimizer.slice 4 must be 0 or divide .* = 6"):
        make_config("b", optimizer={"slice": 4})
    with pytest.raises(UserError, match="in no annotation"):
        train(make_config("c", data={"train_subset": ["mine"]}))
    assert not (world / "a").exists() and not (world / "c").exists()


def test_a_diverging_run_says_at_which_step(make_config):
    with pytest.raises(RunFailure, match="phase .* at step .*optimizer.lr"):
        train(make_config(optimizer={"lr": 1e20}))
