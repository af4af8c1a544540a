"""The `tidal` command: registers the commands and turns errors into messages and exit codes."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence

import typer

from schemas.errors import TidalError
from tidal.cli.failure import DONE, FAILED, INTERRUPTED, CommandError, report_failure

COMMANDS = {
    "up": "tidal.cli.up",
    "log": "tidal.cli.log",
    "worker": "tidal.cli.worker",
    "queryd": "tidal.cli.queryd",
    "topics": "tidal.cli.topics",
    "demo": "tidal.cli.demo",
    "import": "tidal.cli.import_data",
    "publish": "tidal.cli.publish",
    "query": "tidal.cli.query",
    "status": "tidal.cli.status",
    "dlq": "tidal.cli.dlq",
    "verify": "tidal.cli.verify",
    "rebuild": "tidal.cli.rebuild",
    "schema": "tidal.cli.schema",
    "config": "tidal.cli.config",
    "bench": "tidal.cli.bench",
}
"""Each command, and the module whose `register(app)` adds it."""


def build_app(wanted: str | None = None) -> typer.Typer:
    """The application; with the name of a command only that one.

    Loading what all commands need takes most of a second, and `tidal up` starts a command for each process.
    """
    app = typer.Typer(
        name="tidal",
        help="One log, materialized views over it, and one query: what should this user see, in what order?",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_version_option)
    for module in [COMMANDS[wanted]] if wanted in COMMANDS else COMMANDS.values():
        importlib.import_module(module).register(app)
    return app


def _version_option(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        from queryd.version import VERSION

        typer.echo(f"tidal {VERSION}")
        raise typer.Exit(DONE)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(DONE)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""
    try:
        code = build_app(next(iter(arguments), None))(
            args=list(arguments), prog_name="tidal", standalone_mode=False
        )
        return code if isinstance(code, int) else DONE
    except CommandError as error:
        report_failure(error.what, error.where, error.do)
        return error.exit_code
    except typer.TyperException as error:
        report_failure(error.format_message(), _where(error), _what_to_do(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except TidalError as error:
        report_failure(str(error))
        return FAILED
    except BrokenPipeError:
        # Whoever read our output (head, less) has left; what it wanted, it has.
        sys.stderr.close()
        return DONE
    except OSError as error:
        report_failure(error.strerror or str(error), str(error.filename or ""))
        return FAILED
    except Exception as error:
        logging.getLogger("tidal").exception("unexpected")
        report_failure(
            f"{type(error).__name__}: {error}", do="this is a defect; please report it with the trace above"
        )
        return FAILED


def _where(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else ""


def _what_to_do(error: typer.TyperException) -> str:
    where = _where(error)
    return f"see `{where} --help`" if where else ""


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
