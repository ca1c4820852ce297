"""Tests of dialects.toml, the table of the choices that runtimes document."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from harness.adapters import dialects
from harness.adapters.support.toml_table import TableError
from harness.model.dialect import Dialect

TABLE = tomllib.loads(Path(dialects.__file__).with_name("dialects.toml").read_text())
DOCKER_26, DOCKER_28 = "26.1.5", "28.0.0"


@pytest.mark.parametrize("runtime", sorted(TABLE))
@pytest.mark.parametrize("version", ["0", "26.1.5+dfsg1", "999"])
def test_every_choice_has_a_source(runtime: str, version: str) -> None:
    """Every choice belongs to a field of the dialect, and has a source with a sentence.

    The source is a page or a line of code.
    """
    for entry in dialects.entries((runtime, version)):
        assert entry.source.startswith("https://")
        assert entry.about.endswith(".")
        assert entry.choices


def test_choices_depend_on_the_version() -> None:
    """Choices depend on the version of the runtime.

    For example, Docker did not draw MACs before 28, and let the LAN route to containers.
    """
    old, new = dialects.composed(("docker", DOCKER_26)), dialects.composed(("docker", DOCKER_28))
    assert (old.mac, new.mac) == ("from-address", "random")
    assert (old.direct(4), new.direct(4)) == ("accept", "drop")
    assert old.bridge_address == IPv4Interface("172.17.0.1/16")


def test_distribution_suffix_of_a_version_is_ignored() -> None:
    """The suffix that a distribution adds to a version is ignored.

    For example, Debian's Docker 26.1.5+dfsg1-9+b9 is compared as 26.1.5.
    """
    assert dialects.composed(("docker", "26.1.5+dfsg1-9+b9")) == dialects.composed(
        ("docker", DOCKER_26)
    )


def test_residue_patterns_of_several_entries_add_up() -> None:
    """A dialect has the residue patterns of all its entries.

    It does not have mydocker's, which are only the default.
    """
    found = dialects.composed(
        ("podman", "5.4.2"), ("netavark", "5.4.2"), ("netavark-root", "5.4.2")
    ).residue
    assert "nft table inet netavark" in found
    assert "cgroup libpod_parent" in found
    assert not set(found) & {"link docker0", "nft table inet mydocker"}
    both = dialects.composed(("podman", "5.4.2"), ("rootless", "5.4.2"), ("pasta", "5.4.2"))
    assert {"process * (conmon)", "process * (pasta*)"} <= set(both.fleeting)
    assert (both.default_network, both.none_resolver) == ("pasta", False)


def test_bare_runtime_has_choices_of_its_network_backend() -> None:
    """A bare runtime has the choices of its network backend.

    The bare runtime's own choices take precedence.
    """
    alone = dialects.composed(("crun", "1.21"))
    wired = dialects.composed(("cni", "1.0.0"), ("crun", "1.21"))
    assert (alone.mac, wired.mac) == ("from-address", "random")
    assert alone.hostname == wired.hostname == "name"
    assert "link cni0" in set(wired.residue) - set(alone.residue)


def test_unknown_runtime_has_the_default_dialect() -> None:
    """A runtime without an entry in the table has the default dialect."""
    assert dialects.composed(("acme", "1.0")) == Dialect()


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"mack": "random"}, r"unknown key of \[dialect\]: 'mack'; the known ones are .*mac, "),
        ({"mac": "drawn"}, "mac is 'drawn': .*; possible values: from-address, random, stable"),
        ({"none_loopback": "yes"}, "none_loopback is 'yes': Expected `bool`, got `str`"),
        ({"joined_refuses": ["publish", 7]}, r"joined_refuses is .*got `int` - at `\$\[1\]`"),
        ({"bridge_address": "172.17.0.300/16"}, "bridge_address is '172.17.0.300/16': Octet 300"),
        ({"mtu": "large"}, "mtu is 'large': .*; possible values: inherit"),
    ],
)
def test_invalid_choice_is_refused(choices: dict[str, Any], words: str) -> None:
    """The error for an invalid choice names the field, the value and the valid values."""
    with pytest.raises(TableError, match=words):
        dialects.read(choices)


def test_empty_text_means_not_documented() -> None:
    """An empty text in the table means that a choice is not documented.

    TOML has no null.
    """
    assert dialects.read({"bridge_name": "", "mtu": "inherit"}) == {
        "bridge_name": None,
        "mtu": "inherit",
    }


def test_differences_are_fields_that_differ_from_the_default() -> None:
    """`differences` returns the dialect's fields unlike the default, except residue."""
    changed = Dialect(mac="random", residue=("link x",))
    assert dict(dialects.differences(changed)) == {"mac": "random"}


@pytest.mark.parametrize("home", ["/var/lib", "/home/user/.local/share"])
def test_podmans_layer_mount_is_fleeting_but_no_residue(home: str) -> None:
    """The mount of podman's layers may exist for a short time, but must not stay.

    A snapshot may be taken before podman has cleaned up.
    """
    found = dialects.composed(
        ("podman", "5.4.2"), ("netavark", "5.4.2"), ("netavark-root", "5.4.2")
    )
    mount = f"mount tmpfs on {home}/containers/storage/overlay"
    assert any(fnmatchcase(mount, pattern) for pattern in found.fleeting)
    assert not any(fnmatchcase(mount, pattern) for pattern in found.residue)


@pytest.mark.parametrize("runtime", sorted(TABLE))
def test_no_residue_excuses_a_change_for_all_links(runtime: str) -> None:
    """No pattern of residue permits a change of the sysctl accept_ra of `all`.

    A runtime may change it for single links only (BYS-5).
    """
    for pattern in dialects.composed((runtime, "999")).residue:
        assert not fnmatchcase("sysctl net.ipv6.conf.all.accept_ra", pattern)
