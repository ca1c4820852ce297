"""The command line's grammar. What a command does is in `runtime.cli.main`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.cli import image, network, volume
from runtime.cli.base import TABLE, Parser, add_command, add_format, pairs, say, size
from runtime.errors import InvalidError
from runtime.records import DEFAULT_NETWORK

if TYPE_CHECKING:
    from runtime.container.options import (
        ContainerOptions,  # brings what only `run` and `create` need
    )


_USER_HELP = "who executes it, as the image knows them; else whom the image says"
_FREEZER = "Needs a cgroup with the freezer that may be written to."
_NETWORK_HELP = "bridge (the default), none, host, container:<name or id>, or a network's name"


def _seconds(text: str) -> float:
    """A time that can be waited for; neither negative nor for ever."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, such as 10 or 0.5")
    return seconds


class _Version(argparse.Action):
    """Tell the version, which is looked for only when somebody asks."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        try:
            version = metadata.version("netmodes")
        except metadata.PackageNotFoundError:
            version = "unknown: it is not installed"
        say(f"mydocker {version}")
        parser.exit()


def parser(command: str = "") -> argparse.ArgumentParser:
    """The parser of `mydocker`; `action` names the command that was given.

    If it is known to be this `command`, the grammar of the others may be left out: to
    make all of it takes as long as to start a container.
    """
    top: argparse.ArgumentParser = Parser(
        prog="mydocker",
        description="A minimal container runtime. Its state is in $MYDOCKER_ROOT, else "
        "/run/mydocker. Needs root, at least in a user namespace.",
    )
    top.add_argument("--version", action=_Version)
    commands = top.add_subparsers(dest="action", required=True, metavar="COMMAND")
    match command:
        case "run":
            _run(commands)
            return top
        case "exec":
            _executing(commands)
            return top
    _run(commands)
    _options(add_command(commands, "create", "create a container without starting it"))
    _containers(commands)
    _executing(commands)
    _looking(commands)
    volume.volumes(commands)
    image.files(commands)
    image.images(commands)
    network.networks(commands)
    system = commands.add_parser(
        "system", help="the whole of it", description="Everything that mydocker has made."
    ).add_subparsers(dest="action", required=True, metavar="COMMAND")
    add_command(system, "reset", "remove every container, network, bridge and rule", "system_reset")
    add_command(
        system, "repair", "bring bridges, rules and forwarding back as they were", "system_repair"
    )
    completion = add_command(
        commands,
        "completion",
        "print what makes a shell complete these commands",
        more='In bash: eval "$(mydocker completion bash)".',
    )
    completion.add_argument("shell", choices=("bash", "zsh"), help="which one")
    return top


def _run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = add_command(commands, "run", "create and start a container")
    run.add_argument("-d", "--detach", action="store_true", help="print its id and leave it")
    run.add_argument("-i", "--interactive", action="store_true", help="pass standard input on")
    _options(run)


def _containers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for name, text in (("start", "start containers"), ("wait", "print exit codes of containers")):
        _references(add_command(commands, name, text))
    stop = add_command(commands, "stop", "end containers by SIGTERM, then SIGKILL")
    restart = add_command(commands, "restart", "stop containers and start them again")
    for command in (stop, restart):
        command.add_argument(
            "-t", "--time", type=_seconds, default=10, help="seconds before SIGKILL"
        )
    pause = add_command(commands, "pause", "let nothing in containers go on", more=_FREEZER)
    unpause = add_command(commands, "unpause", "let paused containers go on")
    kill = add_command(commands, "kill", "send a signal to containers")
    kill.add_argument("-s", "--signal", default="KILL", help="its name or number")
    remove = add_command(commands, "rm", "remove containers")
    remove.add_argument("-f", "--force", action="store_true", help="also running ones")
    remove.add_argument(
        "-v", "--volumes", action="store_true", help="named ones stay, and there are no others"
    )
    for command in (stop, restart, pause, unpause, kill, remove):
        _references(command)


def _executing(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    execute = add_command(commands, "exec", "execute a command in a running container")
    execute.add_argument("-i", "--interactive", action="store_true", help="pass standard input on")
    execute.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    execute.add_argument(
        "-e", "--env", action="append", default=[], metavar="KEY=VALUE", help="KEY alone: as here"
    )
    execute.add_argument(
        "--env-file", action="append", default=[], metavar="FILE", help="of such lines"
    )
    execute.add_argument("-w", "--workdir", default="", help="where to execute it")
    execute.add_argument("-u", "--user", default="", metavar="USER[:GROUP]", help=_USER_HELP)
    execute.add_argument("container", help="name, id or prefix")
    execute.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND …", help="and its arguments"
    )


def _options(command: argparse.ArgumentParser) -> None:
    command.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    command.add_argument("--name", default="", help="else one is made from its id")
    command.add_argument("--rm", action="store_true", help="remove it once it has ended")
    command.add_argument(
        "-e", "--env", action="append", default=[], metavar="KEY=VALUE", help="KEY alone: as here"
    )
    command.add_argument(
        "--env-file", action="append", default=[], metavar="FILE", help="of such lines"
    )
    command.add_argument("-w", "--workdir", default="", help="where the command starts")
    command.add_argument("-u", "--user", default="", metavar="USER[:GROUP]", help=_USER_HELP)
    command.add_argument(
        "--entrypoint", metavar="PROGRAM", help="in place of the image's and of its command"
    )
    command.add_argument("--hostname", default="", help="else the beginning of its id")
    command.add_argument(
        "--net",
        "--network",
        dest="networks",
        action="append",
        metavar="MODE",
        help=f"{_NETWORK_HELP}; for one more `network connect`",
    )
    command.add_argument("--ip", default="", help="an IPv4 address of the network")
    command.add_argument("--ip6", default="", help="an IPv6 address of the network")
    command.add_argument("--mac-address", dest="mac", default="", help="else one from its address")
    command.add_argument(
        "--network-alias",
        dest="aliases",
        action="append",
        default=[],
        metavar="NAME",
        help="one name more on a network of your own",
    )
    network.ports(command)
    command.add_argument(
        "--sysctl",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of its own namespaces; net.* not with the host's network",
    )
    command.add_argument(
        "--dns", action="append", default=[], metavar="ADDRESS", help="of a name server"
    )
    command.add_argument(
        "--add-host",
        action="append",
        default=[],
        metavar="NAME:ADDRESS",
        help="one line more in /etc/hosts",
    )
    _files_and_rights(command)
    _limits(command)
    command.add_argument("image", help="its name or id")
    command.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND …", help="else the image's own"
    )


def _files_and_rights(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-v",
        "--volume",
        action="append",
        default=[],
        metavar="SOURCE:TARGET[:ro]",
        help="a directory or file of the host, or a volume by its name",
    )
    command.add_argument("--read-only", action="store_true", help="its own files cannot be changed")
    for name, text in (("add", "give it a capability"), ("drop", "take one away")):
        command.add_argument(
            f"--cap-{name}", action="append", default=[], metavar="NAME", help=f"{text}, or ALL"
        )
    command.add_argument(
        "--init", action="store_true", help="an init reaps and passes signals on, also without it"
    )


def _limits(command: argparse.ArgumentParser) -> None:
    command.add_argument("-m", "--memory", default="", metavar="SIZE", help="at most, as in 64m")
    command.add_argument("--cpus", type=float, default=0.0, metavar="N", help="at most, as in 0.5")
    command.add_argument(
        "--pids-limit", type=int, default=0, metavar="N", help="processes and threads at most"
    )


def _references(command: argparse.ArgumentParser) -> None:
    command.add_argument("containers", nargs="+", metavar="CONTAINER", help="name, id or prefix")


def _looking(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ps = add_command(commands, "ps", "list containers")
    ps.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    ps.add_argument("-q", "--quiet", action="store_true", help="ids only")
    ps.add_argument("--no-trunc", action="store_true", help="nothing is cut off")
    ps.add_argument(
        "-f",
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="by id, name, status, exited, network, volume, ancestor or label",
    )
    ps.add_argument("--format", default="", metavar="TEMPLATE", help=TABLE)
    inspect = add_command(commands, "inspect", "everything about containers or images, as JSON")
    add_format(inspect)
    _references(inspect)
    top = add_command(commands, "top", "the processes of a container, as the host sees them")
    top.add_argument("container", help="name, id or prefix")
    logs = add_command(commands, "logs", "what a container wrote")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    logs.add_argument("-t", "--timestamps", action="store_true", help="with the time of each line")
    logs.add_argument("-n", "--tail", default="all", metavar="N", help="the last N only")
    logs.add_argument(
        "--since", default="", metavar="TIME", help="10m, 1h30m, or 2026-01-31T12:00:00Z"
    )
    logs.add_argument("container", help="name, id or prefix")


def options(arguments: argparse.Namespace) -> ContainerOptions:
    """The options of `run` and `create`; `InvalidError` for what contradicts itself."""
    from runtime.container.options import ContainerOptions

    first, *more = arguments.networks or [DEFAULT_NETWORK]
    if more:
        raise InvalidError(
            f"be on {first} and {', '.join(more)}",
            "a container begins on one network",
            remedy=f"`mydocker network connect {more[0]} NAME` afterwards",
        )
    found = ContainerOptions(
        name=arguments.name,
        network=first,
        env={**environment_files(arguments.env_file), **environment(arguments.env)},
        workdir=arguments.workdir,
        user=arguments.user,
        hostname=arguments.hostname,
        ip=arguments.ip,
        ip6=arguments.ip6,
        mac=arguments.mac,
        aliases=arguments.aliases,
        sysctls=pairs("--sysctl", arguments.sysctl),
        publish=arguments.publish,
        publish_all=arguments.publish_all,
        expose=arguments.expose,
        dns=arguments.dns,
        add_hosts=arguments.add_host,
        tty=arguments.tty,
        binds=[_from_here(text) for text in arguments.volume],
        read_only=arguments.read_only,
        cap_add=arguments.cap_add,
        cap_drop=arguments.cap_drop,
        memory=size("--memory", arguments.memory),
        cpus=arguments.cpus,
        pids_limit=max(arguments.pids_limit, 0),  # -1 is no limit, as with Docker
        auto_remove=arguments.rm,
    )
    if arguments.entrypoint is not None:
        found["entrypoint"] = [arguments.entrypoint] if arguments.entrypoint else []
    return found


def environment(entries: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE`, or `KEY` for the caller's own value, where it has one."""
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not key:
            raise InvalidError(f"use -e {entry}", "it is not KEY=VALUE")
        if equals or key in os.environ:
            found[key] = value if equals else os.environ[key]
    return found


def environment_files(paths: Sequence[str]) -> dict[str, str]:
    """What is in files of such entries, one a line; empty lines and `# …` are left out."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.lstrip() for line in file.read().split("\n")]
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else ""
            raise InvalidError(f"use --env-file {path}", why or str(error)) from error
        entries = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#")]
        for entry in entries:
            name = entry.partition("=")[0]
            if not name or " " in name:
                raise InvalidError(f"use --env-file {path}", f"{entry!r} is not KEY=VALUE")
        found |= environment(entries)
    return found


def _from_here(bind: str) -> str:
    """A bind whose source may be written `./…`: below where the caller is."""
    source, colon, rest = bind.partition(":")
    if source.partition("/")[0] in (".", ".."):
        source = os.path.abspath(source)
    return f"{source}{colon}{rest}"
