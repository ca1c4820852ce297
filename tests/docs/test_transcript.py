"""Tests of the comparison of pages with output: which differences are accepted."""

from __future__ import annotations

import pytest

from tests.docs.transcript import Step, differences, perform, rewritten, steps

PAGE = """\
Words.

```console
$ first
net:[4026531840]
$ second |
> third
net:[4026531840]
net:[4026531999]
```

```text
$ no command
```
"""


def test_console_block_is_split_into_commands_and_outputs() -> None:
    """A console block is split into commands and their outputs.

    A command may have several lines. Other blocks are ignored.
    """
    assert steps(PAGE) == [
        Step("first", ("net:[4026531840]",), 4, 5),
        Step("second |\nthird", ("net:[4026531840]", "net:[4026531999]"), 7, 9),
    ]


def test_output_without_a_command_is_an_error() -> None:
    """A console block that begins with output is an error, because it has no command to run."""
    with pytest.raises(ValueError, match="line 2: output without a command: 'lost'"):
        steps("```console\nlost\n```\n")


def test_consistently_renamed_inodes_are_no_difference() -> None:
    """Inode numbers may differ from those on the page.

    Numbers that are equal on the page have to be equal in the output.
    """
    outputs = [("net:[1000000001]",), ("net:[1000000001]", "net:[1000000002]")]
    assert differences(PAGE, outputs) == ""


@pytest.mark.parametrize(
    "second",
    [
        ("net:[1000000002]", "net:[1000000002]"),
        ("net:[1000000001]", "net:[1000000001]"),
        ("net:[1000000001]",),
        (),
    ],
)
def test_different_inode_identity_is_a_difference(second: tuple[str, ...]) -> None:
    """It is a difference if two inode numbers are equal on the page and differ in the output.

    For example, a netns may no longer be shared.
    """
    found = differences(PAGE, [("net:[1000000001]",), second])
    assert found.startswith("line 7: $ second |\nthird\n--- on the page\n+++ in the lab\n")


@pytest.mark.parametrize(
    ("shown", "came"),
    [
        ("ttl 64, 0.05 ms", "ttl 63, 0.05 ms"),
        ("172.17.0.1/16", "172.17.0.2/16"),
        ("02:42:ac:11:00:01", "02:42:ac:11:00:02"),
        ("container01", "container02"),
        ("eth0  UP", "eth0  DOWN"),
    ],
)
def test_stable_values_are_compared_literally(shown: str, came: str) -> None:
    """TTLs, addresses, derived MACs, names and states have to be the same as on the page."""
    assert differences(f"```console\n$ look\n{shown}\n```\n", [(came,)])


@pytest.mark.parametrize(
    ("shown", "came"),
    [
        ("ttl 64, 0.05 ms", "ttl 64, 13.75 ms"),
        ("Up 2 seconds   c", "Up Less than a second   c"),
        ('"Pid": 12,', '"Pid": 4711,'),
        ("vethe7308552448@if2 UP  4e:60:9c:fa:86:a2", "veth70b62df9bf4@if3 UP  8e:dc:a7:6c:af:90"),
    ],
)
def test_volatile_values_are_not_compared(shown: str, came: str) -> None:
    """Times, pids, and values that the kernel or the runtime draws may differ from the page."""
    assert not differences(f"```console\n$ look\n{shown}\n```\n", [(came,)])


def test_rewriting_a_page_changes_only_its_outputs() -> None:
    """Rewriting a page replaces the outputs on the page, and nothing else."""
    page = rewritten(PAGE, [("one", "two"), ()])
    assert page == PAGE.replace("net:[4026531840]\n$", "one\ntwo\n$").replace(
        "net:[4026531840]\nnet:[4026531999]\n", ""
    )


def test_commands_of_a_page_run_in_one_shell() -> None:
    """All commands on a page run in one shell, so a command can use earlier variables.

    Standard error is recorded. No command reads the script from standard input.
    """
    commands = [
        "place=here",
        "echo $place",
        "cat; no-such-command",
        "for i in 1 2\ndo echo $i\ndone",
    ]
    empty, place, complaint, loop = perform(commands)
    assert (empty, place, loop) == ((), ("here",), ("1", "2"))
    assert "no-such-command" in complaint[0]


def test_early_end_of_the_shell_is_an_error() -> None:
    """It is an error if a command ends the shell before the last command on the page."""
    with pytest.raises(RuntimeError, match="the shell ended early, 3: "):
        perform(["exit 3", "echo never"])
