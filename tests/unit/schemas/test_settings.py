"""Settings: which source wins, where each value came from, and one report of what cannot be used."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from schemas.errors import SettingsError
from schemas.settings import Settings, load_settings


def toml(folder: Path, text: str) -> Path:
    file = folder / "tidal.toml"
    file.write_text(text)
    return file


def test_without_any_source_everything_is_the_default() -> None:
    settings, origins = load_settings(env={}, toml_path=None)
    assert settings == Settings()
    assert set(origins.values()) == {"default"}
    names = {
        f"{section}.{name}"
        for section in Settings.__struct_fields__
        for name in getattr(settings, section).__struct_fields__
    }
    assert set(origins) == names


def test_flag_then_environment_then_file_then_default(tmp_path: Path) -> None:
    file = toml(tmp_path, "[topics]\npartitions = 4\nreplication = 3\napp = 'films'\n")
    env = {"TIDAL_TOPICS_PARTITIONS": "5", "TIDAL_TOPICS_REPLICATION": "2", "TIDAL_LOG_LEVEL": "debug"}
    flags = {"topics": {"partitions": 6, "replication": None}}
    settings, origins = load_settings(flags, env, file)
    assert (settings.topics.partitions, settings.topics.replication, settings.topics.app) == (6, 2, "films")
    assert origins["topics.partitions"] == "flag"
    assert origins["topics.replication"] == "TIDAL_TOPICS_REPLICATION"
    assert origins["topics.app"] == str(file)
    assert origins["topics.signals_retention_ms"] == "default"


def test_text_becomes_the_type_of_its_setting() -> None:
    env = {
        "TIDAL_WORKER_STATIC_MEMBERSHIP": "true",
        "TIDAL_WORKER_SESSION_TIMEOUT_S": "6",
        "TIDAL_QUERYD_QDRANT_URL": "http://qdrant:6333",
    }
    settings, _ = load_settings(env=env, toml_path=None)
    assert settings.worker.static_membership is True
    assert settings.worker.session_timeout_s == 6.0
    assert settings.queryd.qdrant_url == "http://qdrant:6333"


def test_every_problem_names_its_source_its_value_and_the_type(tmp_path: Path) -> None:
    file = toml(tmp_path, "[topics]\npartitions = '4'\npartition = 4\n[worke]\n")
    env = {"TIDAL_WORKER_FLUSH_INTERVAL_MS": "soon", "TIDAL_QUERYD_HTTP": "8080"}
    with pytest.raises(SettingsError) as caught:
        load_settings({"producer": {"group_events_max": 0}}, env, file)
    report = str(caught.value)
    assert f"{file} (topics.partitions): '4' – expected `int`, got `str`" in report
    assert f"{file}: topics.partition is no setting; did you mean 'partitions'?" in report
    assert f"{file}: [worke] is no section; did you mean 'worker'?" in report
    assert "TIDAL_WORKER_FLUSH_INTERVAL_MS (worker.flush_interval_ms): 'soon' – expected `int`" in report
    assert "TIDAL_QUERYD_HTTP (queryd.http): '8080'" in report
    assert "producer.group_events_max: 0 – expected `int` >= 1" in report
    assert len(caught.value.problems) == 6


def test_a_file_need_not_exist_but_must_be_toml(tmp_path: Path) -> None:
    assert load_settings(env={}, toml_path=tmp_path / "none.toml")[0] == Settings()
    with pytest.raises(SettingsError, match="line 1"):
        load_settings(env={}, toml_path=toml(tmp_path, "[topics\n"))


def test_every_default_passes_its_own_checks() -> None:
    defaults = msgspec.to_builtins(Settings())
    assert msgspec.convert(defaults, Settings) == Settings()
