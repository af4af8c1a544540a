"""Exit codes, messages, help: what every command has in common."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from tidal.cli.addresses import Address, parse_address
from tidal.cli.failure import DONE, FAILED, WRONG_USAGE, UsageError
from tidal.cli.main import COMMANDS, build_app, run

LEAVES = [
    ["up"], ["log"], ["log", "inspect"], ["log", "user"], ["log", "mirror"], ["worker"], ["queryd"],
    ["topics", "init"], ["topics", "check"], ["publish"], ["query"],
    ["status"], ["schema", "show"], ["schema", "validate"], ["config", "show"], ["bench"],
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TIDAL_QUERYD_HTTP", "TIDAL_SITE_BROKERS", "TIDAL_SITE_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("command", LEAVES, ids=" ".join)
def test_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == DONE
    shown = capsys.readouterr().out
    assert "Example:" in shown
    assert f"tidal {' '.join(command)}" in " ".join(shown.split())


def test_every_registered_command_can_be_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == DONE
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_one_command_is_loaded_as_itself(name: str) -> None:
    group = typer.main.get_group(build_app(name))
    assert list(group.commands) == [name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quary"], "query"),
        (["query"], "text"),
        (["query", "x", "--frobnicate"], "--frobnicate"),
        (["query", "x", "--signal", "view"], "--signal belongs to --compare"),
        (["query", "x", "--compare", "locale:US", "locale:DE"], "instead of a query"),
        (["query", "--compare", "locale:US"], "--compare"),
        (["query", "--compare", "locale:US", "locale:DE", "--at", "noon"], "noon"),
        (["up", "--workers", "0"], "--workers"),
        (["schema", "validat"], "validate"),
        (["bench", "weather"], "ingest"),
        (["up", "--http", "nonsense"], "nonsense"),
        (["up", "--brokers", ""], "brokers is given and empty"),
        (["topics", "check", "--brokers", ""], "brokers is given and empty"),
        (["queryd", "--name", "../elsewhere"], "'../elsewhere' cannot be a folder's name"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == WRONG_USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert words in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["query", "RETRIEVE items", "--http", "127.0.0.1:1"], ["no answer", "127.0.0.1:1", "tidal up"]),
        (["status", "--data", "nowhere"], ["nothing is running", "where: nowhere", "what to do: tidal up"]),
        (["schema", "validate", "none.yaml"], ["no such schema file", "where: none.yaml", "what to do:"]),
        (["up", "--http", "0.0.0.0:0"], ["0.0.0.0", "--keys"]),
    ],
)
def test_failures_say_what_where_and_what_to_do(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == FAILED
    shown = capsys.readouterr().err
    assert all(word in shown for word in words), shown


def test_a_bad_schema_is_reported_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\nsignals: {view: {decay: {exponential: [-1h]}}, lik e: {}}\n")
    assert run(["schema", "validate", str(bad)]) == FAILED
    shown = capsys.readouterr().err
    assert "signals.view.decay" in shown
    assert "lik e" in shown
    assert run(["schema", "validate", str(bad), "--json"]) == FAILED
    assert '"valid": false' in capsys.readouterr().out
    good = tmp_path / "good.yaml"
    good.write_text("name: my_site\n")
    assert run(["schema", "validate", str(good)]) == DONE


def test_settings_say_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tidal.toml").write_text('[queryd]\nhttp = "127.0.0.1:1111"\nrate_limit_per_s = 5.0\n')
    monkeypatch.setenv("TIDAL_QUERYD_HTTP", "127.0.0.1:2222")
    assert run(["config", "show", "--json"]) == DONE
    shown = capsys.readouterr().out
    assert '"value": "127.0.0.1:2222"' in shown
    assert '"origin": "TIDAL_QUERYD_HTTP"' in shown
    assert '"origin": "tidal.toml"' in shown
    monkeypatch.setenv("TIDAL_QUERYD_HTTP", "nonsense")
    assert run(["config", "show"]) == WRONG_USAGE
    assert "TIDAL_QUERYD_HTTP" in capsys.readouterr().err


def test_the_module_and_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidal", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("tidal ")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        (":0", Address("127.0.0.1", 0)),
        ("[::1]:80", Address("::1", 80)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text, "--http") == address


@pytest.mark.parametrize("text", ["", "80", "host", "host:x", "host:99999", "host:-1"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text, "--http")
