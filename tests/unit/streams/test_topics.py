"""The topics' settings, as data."""

from __future__ import annotations

from schemas.settings import TopicSettings
from streams.admin import config_differences
from streams.topics import all_topics

SPECS = {spec.name: spec for spec in all_topics(TopicSettings(partitions=8, app="site"))}


def test_every_topic_of_the_log_is_there() -> None:
    """The names are the contract."""
    assert set(SPECS) == {
        "tidal.signals",
        "tidal.signals.by-item",
        "tidal.items",
        "tidal.users",
        "tidal.creators",
        "tidal.relationships",
        "tidal.schema",
        "tidal.dead-letter",
        "site-user-changelog",
        "site-item-changelog",
        "site-entity-changelog",
    }


def test_what_is_state_is_compacted_and_what_is_history_is_not() -> None:
    """A compacted tidal.signals would lose events."""
    compacted = {name for name, spec in SPECS.items() if spec.config["cleanup.policy"] == "compact"}
    history = {"tidal.signals", "tidal.signals.by-item", "tidal.dead-letter"}
    assert compacted == set(SPECS) - history
    assert all("retention.ms" in SPECS[name].config for name in history)


def test_the_re_keyed_copy_is_kept_for_a_shorter_time() -> None:
    """It can be made again."""
    by_item, signals = SPECS["tidal.signals.by-item"], SPECS["tidal.signals"]
    assert int(by_item.config["retention.ms"]) < int(signals.config["retention.ms"])


def test_only_the_schema_has_one_partition() -> None:
    """Its versions have one order."""
    assert {name for name, spec in SPECS.items() if spec.partitions != 8} == {"tidal.schema"}


def test_settings_are_compared_as_sets_of_words() -> None:
    """Logs print lists in their own order, and a missing one differs."""
    spec = SPECS["tidal.items"]
    assert config_differences(spec, {**spec.config, "other": "x"}) == []
    found = config_differences(spec, {"cleanup.policy": "delete,compact"})
    assert [(d.what, d.found) for d in found] == [
        ("cleanup.policy", "delete,compact"),
        ("segment.bytes", None),
        ("max.compaction.lag.ms", None),
        ("delete.retention.ms", None),
    ]
    assert "tidal.items: segment.bytes missing, wanted" in str(found[1])
