"""Ablation tables: which runs they share, that a second call trains nothing, mean and spread from the seeds' values,
and what becomes of changed inputs, missing features and runs of an older version."""

import csv
import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas
import pytest

from feature_extraction.errors import UserError
from feature_extraction.store.stream import open_streams
from wtal.commands.main import main
from wtal.config.load import load_config
from wtal.config.strict import dump
from wtal.runs.ablation import jobs as ablation_runs
from wtal.runs.ablation.tables import (
    TABLES,
    jobs_of,
    markdown,
    run_table,
    variant_config,
)
from wtal.runs.measure import FIGURES


@pytest.fixture
def config_file(make_config, world):
    path = world / "small.yaml"
    path.write_text(dump(make_config("unused", cbp={"dropout_out": 0.1})), encoding="utf-8")
    return str(path)


def jobs(table, base, seeds, world):
    configs = {(v.name, seed): variant_config(base, v, seed, world / "ablate") for v in TABLES[table] for seed in seeds}
    return jobs_of(TABLES[table], configs, ["probability", "minmax"])


def test_variants_that_differ_in_row_or_inference_share_a_run(config_file, world):
    base = load_config(config_file)
    # the alternation, and the warm-up that is as long as all of it
    assert len(jobs("table3", base, [0, 1], world)) == 4
    # besides only_f and only_b, whatever the fusion, and the branch that teaches itself
    assert len(jobs("table4", base, [0], world)) == 5
    long = variant_config(base, TABLES["table3"][1], 0, world).schedule
    assert (long.strategy, long.warmup_steps) == (
        "warmup_only",
        base.schedule.warmup_steps + base.schedule.rounds * base.schedule.f_steps,
    )
    ours = variant_config(base, TABLES["table3"][-1], 0, world / "ablate")
    assert ours.out == variant_config(base, TABLES["table5"][-1], 0, world / "ablate").out
    assert ours.out != variant_config(base, TABLES["table3"][-1], 1, world / "ablate").out


@pytest.mark.parametrize("table", ["table6", "fairness"])
def test_a_share_of_the_published_steps_has_a_higher_rate(table, config_file, world):
    base, published = load_config(config_file), {"co2net": (5000, 5e-5), "um": (10000, 1e-4), "delu": (5000, 5e-5)}
    for variant in TABLES[table]:
        whole, part = (variant_config(base, variant, 0, world, share) for share in (1, 100))
        if (name := whole.cbp.name) in published:
            assert (whole.schedule.warmup_steps, whole.optimizer.lr) == published[name]
            assert part.schedule.warmup_steps * 100 == published[name][0]
            assert part.optimizer.lr == pytest.approx(10 * published[name][1]) and part.out != whole.out
        else:
            assert part == whole


@pytest.mark.parametrize("title", ["CO2-Net", "UM", "DELU"])
def test_plug_ins_train_as_their_shipped_configurations(title, world):
    shipped = load_config(f"thumos14_{title.lower().replace('-', '')}_framework")
    (variant,) = (variant for variant in TABLES["table6"] if variant.name == f"{title} in the framework")
    other = load_config("thumos14")
    mine = variant_config(replace(other, schedule=shipped.schedule), variant, 0, world)
    assert (mine.cbp.name, mine.cbp.activation, mine.cbp.method) == (
        shipped.cbp.name,
        shipped.cbp.activation,
        shipped.cbp.method,
    )
    assert replace(mine.optimizer, vlp_lr=0.0) == replace(shipped.optimizer, vlp_lr=0.0)
    assert mine.schedule == shipped.schedule and mine.pseudo_labels.first == shipped.pseudo_labels.first


@pytest.mark.parametrize("table", TABLES)
def test_every_variant_is_a_valid_configuration(table, config_file, world):
    base = load_config(config_file)
    names = [variant.name for variant in TABLES[table]]
    assert len(set(names)) == len(names)
    for variant in TABLES[table]:
        assert variant_config(base, variant, 0, world).seed == 0


def test_parts_of_a_killed_table_go_with_the_next_call(config_file, world):
    out = world / "tables"
    out.mkdir()
    code = "import os, sys; from pathlib import Path; from feature_extraction.files import atomic_write\n"
    code += "half = atomic_write(Path(sys.argv[1])); half.__enter__(); os.kill(os.getpid(), 9)"
    for name in ("table3.json", "table3.csv"):
        subprocess.run([sys.executable, "-c", code, str(out / name)])
    assert len(list(out.glob(".*.part"))) == 2
    run_table("table3", config_file, [f"schedule.{n}=1" for n in ("warmup_steps", "b_steps", "f_steps")], [0], out, 1)
    assert list(out.rglob(".*.part")) == [] and (out / "table3.json").is_file()


def test_table4_runs_resumes_and_reports(config_file, world, monkeypatch):
    out = world / "ablate"
    table = run_table("table4", config_file, [], [0, 1], out, jobs=1)
    assert [row["name"] for row in table["rows"]] == [variant.name for variant in TABLES["table4"]]
    for row in table["rows"]:
        values = [seed["average_mAP"] for seed in row["seeds"].values()]
        assert row["figures"]["average_mAP"]["mean"] == pytest.approx(statistics.mean(values))
        assert row["figures"]["average_mAP"]["spread"] == pytest.approx(statistics.stdev(values))
    by_name = {row["name"]: row for row in table["rows"]}
    assert by_name["only B, CBP"]["seeds"] == by_name["warm-up only"]["seeds"]
    assert by_name["only F, CBP"]["seeds"] != by_name["only F, average fusion"]["seeds"]
    assert (out / "table4.md").read_text() == markdown(table)
    frame = pandas.read_csv(out / "table4.csv", index_col="variant")
    pandas.testing.assert_frame_equal(frame, table.to_frame())

    monkeypatch.setattr(ablation_runs, "execute", lambda job: pytest.fail("a finished run was run again"))
    assert run_table("table4", config_file, [], [0, 1], out, jobs=1) == table


def test_bad_requests_are_named(config_file, world):
    with pytest.raises(UserError, match="unknown table 'table9'"):
        run_table("table9", config_file, [], [0], world, 1)
    with pytest.raises(UserError, match="no seed"):
        run_table("table4", config_file, [], [], world, 1)
    with pytest.raises(UserError, match="seed is given twice"):
        run_table("table4", config_file, [], [0, 1, 0], world, 1)
    for share in (0, 3):
        with pytest.raises(UserError, match=f"share of 1/{share} of the published steps is no whole number"):
            run_table("table6", config_file, [], [0], world, 1, plug_in_share=share)


QUICK = ["schedule.warmup_steps=2", "schedule.rounds=1", "schedule.b_steps=2", "schedule.f_steps=2"]


@pytest.fixture
def no_training(monkeypatch):
    """`no_training()`: from now on a test that trains fails."""

    def forbid():
        monkeypatch.setattr("wtal.training.run.train", lambda config: pytest.fail("trained"))

    return forbid


def test_other_inputs_are_refused_and_never_given_old_numbers(config_file, world, no_training):
    out = world / "ablate"
    first = run_table("table3", config_file, QUICK, [0], out, 1)
    path = world / "annotations.json"
    before = path.read_text()
    content = json.loads(before)
    for video in content["database"].values():
        for annotation in video["annotations"]:
            annotation["segment"] = [0.0, 0.64]
    path.write_text(json.dumps(content))
    no_training()
    with pytest.raises(UserError, match=r"trained from other inputs \(inputs.annotations was .*--out"):
        run_table("table3", config_file, QUICK, [0], out, 1)
    path.write_text(before)
    assert run_table("table3", config_file, QUICK, [0], out, 1) == first


@pytest.mark.parametrize("lacks", ["inputs", "video_map"])
def test_results_that_lack_something_are_measured_again_without_training(lacks, config_file, world, no_training):
    out = world / "ablate"
    first = run_table("table3", config_file, QUICK, [0], out, 1)
    for path in out.glob("runs/*/results/*.json"):
        result = json.loads(path.read_text())
        del result[lacks]
        path.write_text(json.dumps({**result, "average_mAP": 99.0}))
    no_training()
    assert run_table("table3", config_file, QUICK, [0], out, 1) == first


def test_other_inference_settings_are_measured_on_the_runs_that_are_there(config_file, world, no_training):
    out = world / "ablate"
    first = run_table("table3", config_file, QUICK, [0], out, 1)
    no_training()
    other = run_table("table3", config_file, [*QUICK, "inference.thresholds=[0.9]"], [0], out, 1)
    assert other["rows"][0]["seeds"] != first["rows"][0]["seeds"]


def test_test_videos_without_features_are_left_out_and_counted(config_file, world, capsys):
    (stream,) = open_streams(world / "features", ["rgb"]).values()
    stream.array_path("validation_12").unlink()
    out = world / "ablate"
    command = ["ablate", "table3", config_file, *QUICK, "--seeds", "0", "--jobs", "1", "--out", str(out)]
    command += ["--rules", "probability"]
    assert main([*command, "data.missing=error"]) == 2
    assert "validation_12" in capsys.readouterr().err
    assert main([*command, "data.missing=skip"]) == 3
    shown = capsys.readouterr()
    assert "without features, and left out: 1 test videos" in shown.out
    assert shown.err.count("left out: 1 test videos") == 1 and "Traceback" not in shown.err
    table = json.loads((out / "table3.json").read_text())
    assert table["left_out"] == {"test": 1, "training": 0}

    # the same as an annotation without that video
    path = world / "annotations.json"
    content = json.loads(path.read_text())
    del content["database"]["validation_12"]
    path.write_text(json.dumps(content))
    assert run_table("table3", config_file, QUICK, [0], world / "other", 1)["rows"] == table["rows"]


def test_a_row_that_the_strategy_lacks_is_refused_before_training(config_file, world, no_training):
    no_training()
    with pytest.raises(UserError, match="'VLP after the last B step' with schedule.strategy=warmup_only: row 'vlp'"):
        run_table("table3", config_file, ["schedule.strategy=warmup_only"], [0], world / "ablate", 1)


def test_tables_have_every_threshold_and_no_spread_of_one_seed(config_file, world):
    out = world / "ablate"
    table = run_table("table3", config_file, QUICK, [0], out, 1)
    with open(out / "table3.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    wanted = [f"mAP@0.{n}" for n in range(1, 8)]
    lines = (out / "table3.md").read_text().splitlines()
    header = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert header == ["rule `probability`", *wanted, *FIGURES.values()]
    assert len({len(line) for line in lines[2:-2]}) == 1, "columns are aligned"
    for row, line, kept in zip(rows, lines[4:-2], table["rows"], strict=True):
        figures = kept["seeds"]["0"]
        values = [figures["mAP"][name.removeprefix("mAP@")] for name in wanted] + [figures["average_mAP"]]
        assert [float(row[f"{name} mean"]) for name in [*wanted, "average_mAP"]] == values
        assert {row[f"{name} spread"] for name in [*wanted, "average_mAP"]} == {""}
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:9] == [f"{100 * value:.1f} ± –" for value in values]


def test_an_unfinished_run_goes_on_under_other_inference_settings(config_file, world):
    out = world / "ablate"
    first = run_table("table3", config_file, QUICK, [0], out, 1)
    for path in out.glob("runs/*/checkpoints/*.pt"):
        path.unlink()
    again = run_table("table3", config_file, [*QUICK, "inference.gamma=0.0", "inference.max_detections=1"], [0], out, 1)
    assert len(list((out / "runs").iterdir())) == 2
    assert again["rows"][-1]["seeds"]["0"]["fg_miou"] == first["rows"][-1]["seeds"]["0"]["fg_miou"]


def test_two_processes_measure_what_one_does(config_file, world):
    one = run_table("table3", config_file, QUICK, [0, 1], world / "one", 1)
    assert run_table("table3", config_file, QUICK, [0, 1], world / "two", 2) == one


def test_a_video_classifier_speaks_in_the_table_as_in_the_summary(config_file, world):
    classifier = world / "classifier"
    command = ["train-video-classifier", config_file, "--out", str(classifier), "--set", "epochs=1"]
    assert main([*command, "--set", "model.clusters=2"]) == 0
    plain = run_table("table3", config_file, QUICK, [0], world / "plain", 1)
    chosen = [f"inference.video_classifier={classifier}"]
    table = run_table("table3", config_file, [*QUICK, *chosen], [0], world / "chosen", 1)
    name = Path(variant_config(load_config(config_file, QUICK), TABLES["table3"][-1], 0, world).out).name
    summary = world / "chosen" / "runs" / name / "summary.json"
    ours = table["rows"][-1]["seeds"]["0"]["average_mAP"]
    assert ours == json.loads(summary.read_text())["rows"]["ours"]["average_mAP"]
    assert ours != plain["rows"][-1]["seeds"]["0"]["average_mAP"]


def test_the_printed_reading_is_the_printed_configuration():
    shipped = load_config("thumos14_as_printed")
    printed = variant_config(shipped, TABLES["readings"][0], 0, Path("out"))
    assert replace(printed, out=shipped.out, training=shipped.training) == shipped
    ours = variant_config(load_config("thumos14"), TABLES["readings"][0], 0, Path("out"))
    assert (ours.cbp.activation, ours.loss.fb_reduction, ours.cbp.window) == ("softmax", "sum", 0)
    # each departure alone: what is printed but for one group, which is the configuration's
    groups = [set(variant.train) for variant in TABLES["readings"]]
    assert groups[0] == set().union(*groups) and not groups[-1]
    for group in groups[1:-1]:
        assert group < groups[0]
    left_out = [groups[0] - group for group in groups[1:-1]]
    assert set().union(*left_out) == groups[0] and sum(map(len, left_out)) == len(groups[0])
