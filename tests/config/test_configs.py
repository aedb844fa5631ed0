"""The data sets' configurations load, know their own commands, and mean what the files are."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from wtal.commands.main import COMMANDS
from wtal.config.evaluation import ACTIVITYNET_TIOU, THUMOS_TIOU
from wtal.config.inference import preset
from wtal.config.load import load_config
from wtal.datasets.formats.by_name import load_annotations
from wtal.datasets.splits import split

from ..places import ROOT, SHARED

NAMES = ("thumos14", "activitynet12", "activitynet13")


@pytest.mark.parametrize("name", NAMES)
def test_configuration_loads(name):
    config = load_config(name)
    assert config.out == f"runs/{name}"
    paper = preset("paper")
    if name == "thumos14":
        # the classes and frames of branches that were never taught, and how published code makes and scores proposals
        own = replace(config.inference, class_rows=(), untaught_cbp="own")
        assert own == replace(paper, thresholds=tuple(n / 10 for n in range(1, 10)), score="oic", gamma=0.2)
    else:
        assert config.inference == paper
    assert config.optimizer.snippets == (1000 if name == "thumos14" else 400)
    assert config.evaluation.tiou == (THUMOS_TIOU if name == "thumos14" else ACTIVITYNET_TIOU)


def commands(name):
    head = (ROOT / "configs" / f"{name}.yaml").read_text().split("\n\n")[0]
    text = "\n".join(line.removeprefix("#").strip() for line in head.splitlines())
    return [shlex.split(part) for part in text.split("wtal ")[1:]]


@pytest.mark.parametrize("name", NAMES)
def test_commands_in_the_head_are_real_and_their_overrides_are_settings(name):
    found = 0
    for command, *words in commands(name):
        assert command in COMMANDS
        found += 1
        if command in ("train", "check") and words[0] == name:
            assignments = [word for word in words[1:] if "=" in word and word[0].islower()]
            load_config(name, assignments)
            found += len(assignments)
    assert found > 6


@pytest.mark.parametrize("page", ["thumos14.md", "activitynet.md"])
def test_trainings_on_the_pages_are_configurations(page):
    lines = [line.strip() for line in (ROOT / "docs" / page).read_text().splitlines()]
    trainings = [shlex.split(line) for line in lines if line.startswith("wtal train ")]
    assert len(trainings) >= 3
    for _, _, name, *assignments in trainings:
        load_config(name, assignments)


@pytest.mark.parametrize(
    "name, folder, train, test, classes",
    [
        ("thumos14", "thumos14_npy", 200, 212, 20),
        ("activitynet12", "activitynet12", 4441, 2198, 100),
        ("activitynet13", "activitynet13", 9649, 4728, 200),
    ],
)
def test_configuration_reads_the_real_files(name, folder, train, test, classes):
    real = SHARED.joinpath("annotations", folder)
    if not real.is_dir():
        pytest.skip(f"no real data: annotations/{folder} (set WTAL_SHARED_DATA)")
    config = load_config(name)
    changes = [f"data.annotations={real / Path(config.data.annotations).name}"]
    if config.data.annotations_extra:
        changes.append(f"data.annotations_extra={real / Path(config.data.annotations_extra).name}")
    data = load_config(name, changes).data
    parts = split(load_annotations(data), data)
    assert (len(parts.train.videos), len(parts.test.videos), len(parts.test.classes)) == (
        train,
        test,
        classes,
    )
