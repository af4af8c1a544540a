"""`tidal topics`: create the topics, or say how existing ones differ from what is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from streams.admin import TopicDifference, check_topics, init_topics
from streams.topics import all_topics
from tidal.cli.connection import BrokersOption, DataOption, brokers_of
from tidal.cli.failure import FAILED
from tidal.cli.output import print_json, print_table, say
from tidal.cli.settings import effective_settings

INIT_EXAMPLE = "Example:  [bold]tidal topics init --brokers 127.0.0.1:9092[/bold]"
CHECK_EXAMPLE = "Example:  [bold]tidal topics check --brokers 127.0.0.1:9092 --json[/bold]"
PartitionsOption = Annotated[
    int | None, typer.Option("--partitions", min=1, help="Partitions of each topic; fixed once they exist.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="The differences as JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(help="Create and check the topics.", no_args_is_help=True)
    group.command("init", epilog=INIT_EXAMPLE)(init)
    group.command("check", epilog=CHECK_EXAMPLE)(check)
    app.add_typer(group, name="topics")


def init(
    brokers: BrokersOption = None,
    data: DataOption = None,
    partitions: PartitionsOption = None,
    json: JsonOption = False,
) -> None:
    """Create the topics that are missing; what exists is compared, never changed."""
    settings = effective_settings({"topics": {"partitions": partitions}})
    differences = init_topics(brokers_of(brokers, data), all_topics(settings.topics))
    _print(differences, json)


def check(
    brokers: BrokersOption = None,
    data: DataOption = None,
    partitions: PartitionsOption = None,
    json: JsonOption = False,
) -> None:
    """Say how the topics differ from what is wanted; fails when one is missing or has other partitions."""
    settings = effective_settings({"topics": {"partitions": partitions}})
    differences = check_topics(brokers_of(brokers, data), all_topics(settings.topics))
    _print(differences, json)
    if any(difference.severity == "error" for difference in differences):
        raise typer.Exit(FAILED)


def _print(differences: Sequence[TopicDifference], json: bool) -> None:
    if json:
        print_json(differences)
    elif not differences:
        say("all topics are as wanted")
    else:
        rows = [[d.severity, d.topic, d.what, d.wanted, d.found, d.advice] for d in differences]
        print_table("", ["severity", "topic", "what", "wanted", "found", "what to do"], rows)
