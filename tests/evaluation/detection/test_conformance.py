"""Published detections, whose mAP the official ActivityNet evaluator and the authors' tables give."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from wtal.commands.main import main
from wtal.datasets.annotations import Detection, read_activitynet
from wtal.evaluation.detection.protocols import detection_map

from .. import originals
from .make_ties import write

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
    files = [str(folder / f"{name}.json") for name in ("predictions", "ground_truth")]
    tiou = map(str, expected["tiou"])
    code = main(["evaluate", *files, "--protocol", "activitynet", "--json", "--tiou", *tiou])
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


def test_ties_and_doubled_ground_truth_in_every_protocol(case, capsys):
    """The values are those of the ports; the files as they are, and with their keys sorted, give them both."""
    folder, expected = case
    for protocol, values in expected.get("protocols", {}).items():
        for turned in (False, True):
            for name in ("predictions", "ground_truth"):
                content = json.loads((folder / f"{name}.json").read_text())
                (folder / f"new_{name}.json").write_text(json.dumps(content, sort_keys=turned))
            files = [str(folder / f"new_{name}.json") for name in ("predictions", "ground_truth")]
            tiou = map(str, expected["tiou"])
            assert main(["evaluate", *files, "--protocol", protocol, "--json", "--tiou", *tiou]) == 0
            found = json.loads(capsys.readouterr().out)
            assert found["mAP"] == pytest.approx(values["mAP"], abs=1e-9)
            for label, ap in values["AP"].items():
                assert found["AP"][label] == pytest.approx(ap, abs=1e-9)


def test_the_challenge_protocol_on_published_detections(tmp_path, capsys):
    """AutoLoc on THUMOS14 at 0.5: 21.2 by the ActivityNet evaluator, 18.5 by a port of the challenge's Matlab
    code.
    """
    for name in ("ground_truth", "predictions"):
        content = json.loads(gzip.decompress((CASES / "autoloc_thumos14" / f"{name}.json.gz").read_bytes()))
        if name == "predictions":
            for video_id in ("0000270", "0001292", "0001496"):
                del content["results"][video_id]
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = [str(tmp_path / f"{name}.json") for name in ("predictions", "ground_truth")]
    main(["evaluate", *files, "--protocol", "thumos-official", "--json", "--tiou", "0.5"])
    assert round(json.loads(capsys.readouterr().out)["average_mAP"], 3) == 0.185


def test_ceilings_of_thumos14(tmp_path):
    """Ground truth as its own detections: 100; of a video's commonest class: 93.17 (official code)."""
    path = tmp_path / "ground_truth.json"
    path.write_bytes(gzip.decompress((CASES / "thumos14_hard" / "ground_truth.json.gz").read_bytes()))
    truth = read_activitynet(path)
    everything, commonest = {}, {}
    for video in truth.videos.values():
        found = [Detection(i.start, i.end, i.label, 1.0) for i in video.instances]
        label = Counter(sorted(d.label for d in found)).most_common(1)[0][0]
        everything[video.video_id] = found
        commonest[video.video_id] = [d for d in found if d.label == label]
    assert detection_map(truth, everything, "activitynet", (0.1, 1.0)).mAP == [1.0, 1.0]
    assert sum(map(len, everything.values())) - sum(map(len, commonest.values())) == 330
    found = detection_map(truth, commonest, "activitynet", (0.1, 0.95)).mAP
    assert [round(value, 4) for value in found] == [0.9317, 0.9317]


def test_the_case_of_ties_is_what_its_maker_makes(tmp_path):
    write(originals, tmp_path)
    for file in (CASES / "ties_and_doubles").iterdir():
        old, new = (
            gzip.decompress(content) if file.suffix == ".gz" else content
            for content in (file.read_bytes(), (tmp_path / file.name).read_bytes())
        )
        assert old == new


def test_all_cases_are_here():
    assert NAMES == ["autoloc_activitynet12", "autoloc_thumos14", "thumos14_hard", "ties_and_doubles"]
