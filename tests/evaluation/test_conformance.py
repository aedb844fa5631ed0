"""Published detections, whose mAP the official ActivityNet evaluator and the authors' tables give."""

import gzip
import json
from pathlib import Path

import pytest

from wtal.cli import main

CASES = Path(__file__).parent / "conformance"
NAMES = sorted(folder.name for folder in CASES.iterdir() if folder.is_dir())


@pytest.fixture(params=NAMES)
def case(request, tmp_path):
    for name in ("ground_truth", "predictions"):
        content = gzip.decompress((CASES / request.param / f"{name}.json.gz").read_bytes())
        (tmp_path / f"{name}.json").write_bytes(content)
    return tmp_path, json.loads((CASES / request.param / "expected.json").read_text())


def test_equals_the_official_evaluator(case, capsys):
    folder, expected = case
    code = main(
        ["evaluate", str(folder / "predictions.json"), str(folder / "ground_truth.json"), "--protocol", "activitynet"]
        + ["--json", "--tiou", *map(str, expected["tiou"])]
    )
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert found["protocol"] == "activitynet"
    assert found["tiou"] == expected["tiou"]
    assert found["mAP"] == pytest.approx(expected["mAP"], abs=1e-9)
    assert found["average_mAP"] == pytest.approx(sum(expected["mAP"]) / len(expected["mAP"]), abs=1e-9)
    for label, ap in expected.get("AP", {}).items():
        assert found["AP"][label] == pytest.approx(ap, abs=1e-9)
    for value, published in zip(found["mAP"], expected.get("mAP_published", []), strict=False):
        assert round(value, 3) == published


def test_all_cases_are_here():
    assert NAMES == ["autoloc_activitynet12", "autoloc_thumos14", "thumos14_hard"]
