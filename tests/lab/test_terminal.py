"""Tests of the lab's interactive shell: its keys, jobs and prompts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.lab.labs import LAB, NO_CAST, SHELLS, at_terminal
from tests.support.programs import Watched

OUTER = ["/bin/sh", "-i"]


def first_prompt(lab: Watched) -> None:
    """Wait until the lab's shell prints its first prompt."""
    lab.expect("lab:host ")


@pytest.mark.parametrize("shell", SHELLS)
def test_keys_reach_the_foreground_job_of_the_lab(shell: str, tmp_path: Path) -> None:
    """Ctrl-Z stops the foreground job, `fg` continues it, and Ctrl-C ends it.

    The lab's shell goes on.
    """
    with at_terminal(NO_CAST, shell=shell, home=tmp_path) as lab:
        first_prompt(lab)
        lab.type("sh -c 'echo started; read line; echo got $line; exec cat'\n")
        lab.expect("started\r\n")
        lab.type("\x1a")
        lab.expect("topped")
        lab.expect("lab:host ")
        lab.type("fg\n")
        lab.expect("exec cat")
        lab.type("words\n")
        lab.expect("got words\r\n")
        lab.type("\x03")
        lab.expect("lab:host ")
        lab.type("echo ended by $?\n")
        lab.expect("ended by 130\r\n")
        lab.type("exit 5\n")
        assert lab.end() == 5


@pytest.mark.parametrize("shell", SHELLS)
def test_lab_prompt_shows_the_namespace(shell: str, tmp_path: Path) -> None:
    """After a namespace is entered, the prompt shows its name until it is left."""
    with at_terminal(NO_CAST, shell=shell, home=tmp_path) as lab:
        first_prompt(lab)
        lab.type("inside ns1\n")
        lab.expect("lab:ns1 ")
        lab.type("readlink /proc/self/ns/net /run/netns/ns1 | wc -l\n")
        lab.expect("lab:ns1 ")  # a shell that does not read yet loses the end-of-file
        lab.type("\x04")
        lab.expect("lab:host ")
        lab.type("\x04")
        assert lab.end() == 0


def test_lab_greeting_shows_the_topology(tmp_path: Path) -> None:
    """Before the first prompt, the lab prints a drawing with the real addresses, and hints."""
    with at_terminal(LAB, home=tmp_path) as lab:
        page = lab.expect("lab:host ")
        for text in ("203.0.113.10", "172.17.0.1/16", "container06-none", "To try:"):
            assert text in page
        assert max(map(len, page.splitlines())) <= 80
        lab.type("\x04")
        assert lab.end() == 0


def test_lab_leaves_the_users_shell_history_unchanged(tmp_path: Path) -> None:
    """The lab's shell reads the user's settings, and changes no file of the user."""
    (tmp_path / ".bashrc").write_text("HISTFILE=~/.bash_history\nalias greet='echo hello'\n")
    with at_terminal(NO_CAST, shell="/bin/bash", home=tmp_path) as lab:
        first_prompt(lab)
        lab.type("greet\n")
        lab.expect("\r\nhello\r\n")
        lab.type("exit\n")
        assert lab.end() == 0
    assert [path.name for path in tmp_path.iterdir()] == [".bashrc"]


def test_outer_shell_of_the_lab_gets_the_terminal_back() -> None:
    """After the lab, the outer shell has the terminal in the foreground again.

    Its own jobs can use the terminal too.
    """
    with at_terminal(OUTER) as outer:
        outer.type(f"{' '.join(NO_CAST)}\n")
        first_prompt(outer)
        outer.type("exit 4\n")
        outer.type("echo lab ended by $?\n")
        outer.expect("lab ended by 4\r\n")
        outer.type("sh -c 'echo ready; exec cat'\n")
        outer.expect("ready\r\n")
        outer.type("echoed\n")
        outer.expect("echoed\r\nechoed\r\n")
        outer.type("\x03")
        outer.expect("outer> ")
        outer.type("exit 0\n")
        assert outer.end() == 0


@pytest.mark.parametrize("shell", SHELLS)
def test_killed_lab_restores_the_terminal(shell: str, tmp_path: Path) -> None:
    """After a killed lab the terminal echoes again.

    The lab's shell could not restore this itself.
    """
    source = """stty -g >before; sh -c 'echo $$ >pid; exec "$@"' - "$@"; stty -g >after; cat pid"""
    wrapped = ["sh", "-c", f"cd {tmp_path}; {source}", "-", *NO_CAST]
    with at_terminal(wrapped, shell=shell, home=tmp_path) as lab:
        first_prompt(lab)
        lab.expect("# ")
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, signal.SIGTERM)
        lab.expect(f"{pid}\r\n")
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()


def test_lab_can_be_suspended() -> None:
    """`suspend` in the lab returns to the outer shell, and `fg` continues the lab."""
    with at_terminal(["/bin/bash", "--norc", "-i"], shell="/bin/bash") as outer:
        outer.type(f"{' '.join(NO_CAST)}\n")
        first_prompt(outer)
        outer.type("place=kept; suspend\n")
        outer.expect("Stopped")
        outer.type("echo outside $((6 * 7))\n")
        outer.expect("outside 42\r\n")
        outer.type("fg\n")
        outer.type("echo place is $place\n")
        outer.expect("place is kept\r\n")
        outer.type("exit 6\n")
        outer.type("echo lab ended by $?\n")
        outer.expect("lab ended by 6\r\n")
        outer.type("exit 0\n")
        assert outer.end() == 0


def test_lab_in_the_background_waits_for_the_foreground() -> None:
    """A lab that is in the background does not take the terminal from other jobs."""
    with at_terminal(["/bin/bash", "--norc", "-i"], shell="/bin/bash") as outer:
        outer.type(f"{' '.join(NO_CAST)} &\n")
        outer.type("until jobs | grep -q Stopped; do :; done; echo it $((1 + 1)) waits\n")
        outer.expect("it 2 waits\r\n")
        outer.type("fg\n")
        first_prompt(outer)
        outer.type("exit 0\n")
        outer.type("exit 0\n")
        assert outer.end() == 0
