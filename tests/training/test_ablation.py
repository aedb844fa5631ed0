"""Ablation tables: which runs they share, that a second call trains nothing, mean and spread from the seeds' values."""

import statistics

import pytest

from feature_extraction.errors import UserError
from wtal import ablation_runs
from wtal.ablation import TABLES, comma_separated, configurations, jobs_of, markdown, run_table, variant_config
from wtal.config import load_config
from wtal.strict import dump


@pytest.fixture
def config_file(make_config, world):
    path = world / "small.yaml"
    path.write_text(dump(make_config("unused", cbp={"dropout_out": 0.1})), encoding="utf-8")
    return str(path)


def jobs(table, base, seeds, world):
    return jobs_of(TABLES[table], configurations(TABLES[table], base, seeds, world / "ablate"))


def test_variants_that_differ_in_row_or_inference_share_a_run(config_file, world):
    base = load_config(config_file)
    assert len(jobs("table3", base, [0, 1], world)) == 2
    # alternate, only_f and only_b, whatever the fusion
    assert len(jobs("table4", base, [0], world)) == 3
    ours = variant_config(base, TABLES["table3"][-1], 0, world / "ablate")
    assert ours.out == variant_config(base, TABLES["table5"][-1], 0, world / "ablate").out
    assert ours.out != variant_config(base, TABLES["table3"][-1], 1, world / "ablate").out


@pytest.mark.parametrize("table", TABLES)
def test_every_variant_is_a_valid_configuration(table, config_file, world):
    base = load_config(config_file)
    names = [variant.name for variant in TABLES[table]]
    assert len(set(names)) == len(names)
    for variant in TABLES[table]:
        assert variant_config(base, variant, 0, world).seed == 0


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
    assert (out / "table4.csv").read_text() == comma_separated(table)

    monkeypatch.setattr(ablation_runs, "execute", lambda job: pytest.fail("a finished run was run again"))
    assert run_table("table4", config_file, [], [0, 1], out, jobs=1) == table


def test_bad_requests_are_named(config_file, world):
    with pytest.raises(UserError, match="unknown table 'table9'"):
        run_table("table9", config_file, [], [0], world, 1)
    with pytest.raises(UserError, match="no seed"):
        run_table("table4", config_file, [], [], world, 1)
