"""Shipped configurations load; the command line's exit codes and one-line errors."""

from pathlib import Path

import pytest

from feature_extraction.errors import PartialFailure, RunFailure, UserError
from wtal.commands import main as cli
from wtal.config.load import Config, load_config
from wtal.config.shipped import config_file, shipped_file, shipped_folder
from wtal.config.strict import build, plain

SHIPPED = sorted(path.stem for path in shipped_folder("configs").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_configuration_loads_and_begins_with_its_command(name):
    config = load_config(name)
    assert config.out == f"runs/{name}"
    assert build(Config, plain(config)) == config
    assert config_file(name).read_text(encoding="utf-8").startswith("# ")
    assert "wtal " in config_file(name).read_text(encoding="utf-8").split("\n\n")[0]


def test_unknown_names_list_what_there_is():
    with pytest.raises(UserError, match="neither a YAML file nor a shipped configuration .*sandbox"):
        load_config("sandbx")
    with pytest.raises(UserError, match="no shipped file 'x.bin'; there are: .*clip.json"):
        shipped_file("x.bin")
    with pytest.raises(UserError, match="no such file"):
        load_config("missing.yaml")


def test_a_broken_yaml_is_one_line(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: [1,\nb: 2")
    with pytest.raises(UserError) as error:
        load_config(str(path))
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    path.write_text("- 1")
    with pytest.raises(UserError, match="expected settings"):
        load_config(str(path))


@pytest.mark.parametrize(
    "error,code",
    [(UserError("bad"), 2), (PartialFailure("some"), 3), (RunFailure("broke"), 1), (KeyboardInterrupt(), 130)],
)
def test_exit_codes(monkeypatch, capsys, error, code):
    from wtal.commands import train

    def fail(options):
        raise error

    monkeypatch.setattr(train, "run", fail)
    assert cli.main(["train", "sandbox"]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("wtal train: ")


def test_misspelt_key_names_the_nearest(capsys):
    assert cli.main(["train", "sandbox", "optimiser.lr=1"]) == 2
    assert "did you mean 'optimizer'?" in capsys.readouterr().err


def test_print_config_is_a_configuration(capsys, tmp_path):
    assert cli.main(["train", "sandbox", "seed=7", "--print-config"]) == 0
    path = tmp_path / "again.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_config(str(path)) == load_config("sandbox", ["seed=7"])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: wtal {name}") and len(text.splitlines()) > 4


def test_settings_stand_before_or_after_options(capsys):
    assert cli.main(["train", "sandbox", "--print-config", "seed=3"]) == 0
    after = capsys.readouterr().out
    assert cli.main(["train", "sandbox", "seed=3", "--print-config"]) == 0
    assert capsys.readouterr().out == after and "seed: 3" in after


def test_unknown_command_exits_2(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["trane"])
    assert stop.value.code == 2
    assert "trane" in capsys.readouterr().err
    assert Path(cli.__file__).is_file()
