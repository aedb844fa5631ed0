"""`wtal sound-events --events FILE --truth FILE`: tables of events against tables of labels, without a run."""

import json

import pytest

from wtal.commands.main import main

TRUTH = [("a.wav", 1.0, 2.0, "Dog"), ("a.wav", 3.0, 5.0, "Speech"), ("b.wav", 0.5, 9.5, "Speech")]
FOUND = [("a.wav", 1.1, 2.1, "Dog"), ("a.wav", 7.0, 8.0, "Dog"), ("b.wav", 0.6, 8.0, "Speech")]

FORMS = {
    "dcase 2019": lambda rows: (
        "filename\tonset\toffset\tevent_label\n" + "".join(f"{f}\t{s}\t{e}\t{c}\n" for f, s, e, c in rows)
    ),
    "with scores, commas": lambda rows: (
        "filename,onset,offset,event_label,score\n" + "".join(f"{f},{s},{e},{c},0.5\n" for f, s, e, c in rows)
    ),
    "dcase 2017 task 4": lambda rows: "".join(f"{f}\t{s:.3f}\t{e:.3f}\t{c}\n" for f, s, e, c in rows),
    "dcase 2017 task 3": lambda rows: "".join(
        f"audio/street/{f}\tstreet\t{s}\t{e}\t{c}\tm\t{f}\n" for f, s, e, c in rows
    ),
    "commas": lambda rows: "".join(f"{f}, {s}, {e}, {c}\n" for f, s, e, c in rows),
    "blanks": lambda rows: "\ufeff\n" + "".join(f"{f}   {s}   {e}   {c}\r\n" for f, s, e, c in rows),
}


def call(capsys, *words):
    code = main(["sound-events", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def measure(folder, truth, found, capsys, *more):
    (folder / "truth").write_text(truth, encoding="utf-8")
    (folder / "found").write_text(found, encoding="utf-8")
    return call(capsys, "--events", folder / "found", "--truth", folder / "truth", *more)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_table(form, tmp_path, capsys):
    code, out, err = measure(tmp_path, FORMS[form](TRUTH), FORMS[form](FOUND), capsys, "--json")
    values = json.loads(out)
    assert (code, err) == (0, "") and values["clips"] == 2
    # event: Dog 1 of 2 found; both Speech missed, the second because its end is 1.5 s (under a fifth) early: a hit
    assert values["event"]["by_class"] == {
        "Dog": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3)},
        "Speech": {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)},
    }
    assert values["event"]["macro"] == values["event"]["micro"] == pytest.approx(2 / 3)
    assert values["event"]["macro_precision"] == 0.75 and values["event"]["micro_recall"] == pytest.approx(2 / 3)
    assert values["clip"]["classes"] == {"Dog": 1.0, "Speech": pytest.approx(2 / 3)}


def test_precision_and_recall_stand_beside_f1_by_class(tmp_path, capsys):
    form = FORMS["dcase 2017 task 4"]
    _, out, _ = measure(tmp_path, form(TRUTH), form(FOUND), capsys)
    lines = [line.split() for line in out.splitlines()]
    assert ["event", "%", "precision", "recall", "F1"] in lines
    assert ["Dog", "50.00", "100.00", "66.67"] in lines and ["macro", "75.00", "75.00", "66.67"] in lines
    _, out, _ = measure(tmp_path, form(TRUTH), form(FOUND), capsys, "--table", "md")
    assert "| Dog | 50.00 | 100.00 | 66.67 |" in out
    saved = tmp_path / "saved.json"
    measure(tmp_path, form(TRUTH), form(FOUND), capsys, "--save", saved)
    assert set(json.loads(saved.read_text())["files"]) == {"events", "truth"}


def test_a_list_a_recording(tmp_path, capsys):
    """DCASE 2017 task 3 keeps a list a recording, without the file's name in it."""
    for name, rows in (("truth", TRUTH), ("found", FOUND)):
        (tmp_path / name).mkdir()
        text = "".join(f"{s}\t{e}\t{c}\n" for f, s, e, c in rows if f == "a.wav")
        (tmp_path / name / "a.ann").write_text(text)
    words = ["--events", tmp_path / "found" / "a.ann", "--truth", tmp_path / "truth" / "a.ann", "--json"]
    values = json.loads(call(capsys, *words)[1])
    assert values["event"]["classes"] == {"Dog": pytest.approx(2 / 3), "Speech": 0.0}
    assert values["event"]["by_class"]["Speech"]["precision"] is None


def test_clips_on_one_side_only_are_said(tmp_path, capsys):
    form = FORMS["dcase 2017 task 4"]
    found = [*FOUND[:2], ("c.wav", 0, 1, "Dog")]
    code, out, err = measure(tmp_path, form(TRUTH) + "d.wav\n", form(found), capsys, "--json")
    assert code == 0 and "1 clip(s) are not in" in err and "'c'" in err and "2 of 3 clips have no event" in err
    assert json.loads(out)["clips"] == 3


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        (TRUTH, "a.wav\tx\t1\tDog\n", "line 1: not an event"),
        (TRUTH, "a.wav\t3\t1\tDog\n", "line 1: not an event"),
        (TRUTH, "a.wav\t0\t1\tDog\na.wav\t0\t1\n", "line 2: not an event"),
        (TRUTH, "", "no event and no clip"),
        (TRUTH, "name\tstart\tend\tlabel\n", "expected a header such as filename, onset"),
        (TRUTH, [("z.wav", 0, 1, "Dog")], "none of its 1 clips ('z')"),
        (TRUTH, "filename\tonset\toffset\tevent_label\na.wav\t0\tlater\tDog\n", "line 2"),
    ],
)
def test_wrong_and_half_right_tables(truth, found, message, tmp_path, capsys):
    form = FORMS["dcase 2017 task 4"]
    code, out, err = measure(tmp_path, form(truth), found if isinstance(found, str) else form(found), capsys)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err


@pytest.mark.parametrize("words", [[], ["--events", "x"], ["run", "--events", "x", "--truth", "y"]])
def test_words_that_do_not_go_together(words, capsys):
    code, _, err = call(capsys, *words)
    assert code == 2 and err.count("\n") == 1 and "--events" in err
