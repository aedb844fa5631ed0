"""A folder of clips and a CSV to tags in three commands; what does not fit, in a line each."""

import csv

import av
import numpy as np
import pytest

from wtal.commands.main import main

LABELS = ("left", "right")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Twenty clips in which a texture moves to the left or to the right, without sound, and their table."""
    root = tmp_path_factory.mktemp("clips")
    (root / "clips").mkdir()
    rows = [("video", "label")]
    for number in range(20):
        label = number % 2
        texture = np.random.default_rng(number).integers(0, 255, (64, 128, 3), dtype=np.uint8)
        texture[..., label] //= 4  # the two also differ in colour
        with av.open(str(root / "clips" / f"{number:02d}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            for k in range(24):
                at = 2 * (k if label else 24 - k)
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(texture[:, at : at + 64]), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        rows.append((f"{number:02d}.mp4", LABELS[label]))
    with open(root / "labels.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return root


def test_three_commands_end_in_tags(clips, monkeypatch, capsys):
    monkeypatch.chdir(clips)
    assert main(["init", "clips/", "--labels", "labels.csv", "--towers", "shipped"]) == 0
    assert main(["train-video-classifier", "clips.yaml"]) == 0
    tag = ["tag", "runs/clips-video-classifier", "--features", "features/clips"]
    assert main([*tag, "--out", "tags.csv"]) == 0
    with open("tags.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    scores = {(row["video"], row["label"]): float(row["score"]) for row in rows}
    assert len(rows) == len(scores) == 40 and {label for _, label in scores} == set(LABELS)
    right = [scores[f"{n:02d}", LABELS[n % 2]] > scores[f"{n:02d}", LABELS[1 - n % 2]] for n in range(20)]
    assert sum(right) >= 17, right
    capsys.readouterr()
    assert main(["extract-audio", "clips", "--out", "features/clips"]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "20 files failed, first 00: clips/00.mp4: no audio track" in said
