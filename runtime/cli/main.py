"""Main function of the `mydocker` command, which has Docker's command names and exit codes."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from runtime.cli.base import (
    Command,
    Group,
    Parser,
    Subparsers,
    command,
    print_error,
    print_line,
    unwritable,
)
from runtime.errors import (
    MydockerError,
    UnsupportedError,
    exhausted,
    is_exhausted,
    is_full,
    no_room,
)

if TYPE_CHECKING:
    from runtime.engine import Engine


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Without `argv`, run the command in `sys.argv` and end the process with the exit code.
    """
    if argv is None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a character may be missing in its encoding
                stream.reconfigure(errors="replace")
        _exit(_run(sys.argv[1:]))
    return _run(argv)


def _exit(code: int) -> NoReturn:
    """End the process at once.

    Finalizing the interpreter takes longer than starting a container.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        if not code and not isinstance(error, BrokenPipeError):  # else it has been reported
            print_error(unwritable(error))
        code = code or 1
    os._exit(code)


def _run(words: Sequence[str]) -> int:
    arguments = parser(words[0] if words else "").parse_args(words)
    try:
        code: int = arguments.function(arguments)
    except MydockerError as error:
        print_error(error)
        return _exit_code(words[0], error.exit_code)
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python reports it again at exit
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print_error(_explained(f"run `mydocker {' '.join(words)}`", error))
        return _exit_code(words[0], MydockerError.exit_code)
    return code


def _explained(asked: str, error: OSError) -> Exception:
    if is_exhausted(error):
        return exhausted(asked, error)
    return no_room(asked, error) if is_full(error) else error


def _exit_code(name: str, code: int) -> int:
    """Return the exit code as Docker does: 125 becomes 1 for every command except `run`.

    After `run`, the exit code 1 may be that of the container's command.
    """
    return 1 if code == MydockerError.exit_code and name != "run" else code


def parser(name: str = "") -> argparse.ArgumentParser:
    """Return the parser of `mydocker`.

    The parsed namespace has the attribute `function`, which runs the command. If `name` is a
    command, the other commands are left out: making the parsers of all commands takes as long as
    starting a container.
    """
    top: argparse.ArgumentParser = Parser(
        prog="mydocker",
        description="A minimal container runtime. It keeps its state in $MYDOCKER_ROOT (default: "
        "/run/mydocker) and needs root, at least in a user namespace.",
    )
    top.add_argument("--version", action=_Version)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    known = _commands(name)
    for item in [item for item in known if item.name == name] or known:
        item.add_to(commands)
    _add_completion(top, commands)
    return top


def _commands(name: str) -> tuple[Command | Group, ...]:
    """Return commands that include `name`; import only the modules that are needed to find it."""
    from runtime.cli import run

    if name in {item.name for item in run.COMMANDS}:
        return run.COMMANDS
    from runtime.cli import container, image, network, volume

    return (
        *(*run.COMMANDS, *container.COMMANDS, *image.COMMANDS),
        *(network.NETWORK, volume.VOLUME, SYSTEM),
    )


class _Version(argparse.Action):
    """Option `--version`, which alone imports importlib.metadata."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        try:
            version = metadata.version("netmodes")
        except metadata.PackageNotFoundError:
            version = "(unknown version: package netmodes is not installed)"
        print_line(f"mydocker {version}")
        parser.exit()


# --- commands about mydocker itself ----------------------------------------------


@command("reset")
def _reset(engine: Engine, _: argparse.Namespace) -> int:
    """Remove all containers, networks, bridges and firewall rules of mydocker."""
    engine.teardown()
    return 0


@command("repair")
def _repair(engine: Engine, _: argparse.Namespace) -> int:
    """Restore missing bridges, firewall rules and forwarding."""
    engine.repair()
    return 0


SYSTEM: Final = Group(
    "system",
    "manage mydocker itself",
    "Reset or repair everything that mydocker has created.",
    (_reset, _repair),
)


def _add_completion(
    top: argparse.ArgumentParser, commands: Subparsers[argparse.ArgumentParser]
) -> None:
    """Add the command `completion`.

    The command needs the parser of `mydocker`, but neither root privilege nor an engine.
    """
    made = commands.add_parser(
        "completion",
        help="print a completion script for a shell",
        description='Print a completion script for a shell. In bash: eval "$(mydocker completion'
        ' bash)".',
    )
    made.add_argument("shell", choices=("bash", "zsh"), help="shell to complete commands in")
    made.set_defaults(function=partial(_print_completion, top))


def _print_completion(top: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    try:
        import shtab  # an extra that only this command needs
    except ImportError as error:
        raise UnsupportedError(
            f"print completion for {arguments.shell}",
            "the package shtab is not installed",
            remedy="pip install 'netmodes[completion]'",
        ) from error
    print_line(shtab.complete(top, shell=arguments.shell))
    return 0
