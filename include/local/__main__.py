"""What `./perennial` and the Makefile start: a verb, and its errors in one line."""

import sys

import typer
from rich.console import Console

from include.domain.errors import PerennialError
from include.local.commands import app

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run a verb; return its exit code: 2 for words that it does not take, 1 for what went wrong, 130 for Ctrl-C."""
    errors = Console(stderr=True)
    try:
        return int(app(arguments, prog_name="perennial", standalone_mode=False) or 0)
    except typer.TyperException as misuse:
        context = getattr(misuse, "ctx", None)
        place = context.command_path if context else "perennial"
        errors.print(f"[red]{misuse.format_message()}[/] ({place} --help)", highlight=False, soft_wrap=True)
        return MISUSED
    except (PerennialError, ValueError) as error:
        errors.print(f"[red]{error}", highlight=False, soft_wrap=True)
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
