"""Who is on a network under which names: what its containers may ask one another by.

One file per network, replaced as a whole, so that a reader sees at once whoever has
come or gone. Whoever changes it holds the root's lock.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import NamedTuple

from runtime.records import Address, Connection, ContainerConfig
from runtime.state import read_json, write_json


class Member(NamedTuple):
    """A container's names, in lower case, and addresses on one network."""

    names: list[str]
    addresses: list[str]


class Members:
    """The members of one network, by container id."""

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/members.json"

    def read(self) -> dict[str, Member]:
        """All of them."""
        try:
            found = read_json(self.path)
        except FileNotFoundError:
            return {}
        return {identity: Member(*entry) for identity, entry in found.items()}

    def add(self, identity: str, names: Iterable[str], addresses: Iterable[Address]) -> None:
        """Tell about one; what was told before is replaced."""
        member = Member([name.lower() for name in names], [str(item) for item in addresses])
        write_json(self.path, {**self.read(), identity: member})

    def remove(self, identities: Collection[str]) -> None:
        """Tell about them no more."""
        members = self.read()
        kept = {key: member for key, member in members.items() if key not in identities}
        if len(kept) == len(members):
            return
        if kept:
            write_json(self.path, kept)
        else:
            os.unlink(self.path)


def names_of(config: ContainerConfig, connection: Connection) -> list[str]:
    """What a container goes by on a network: its name, aliases, short id and hostname.

    As in Docker (`DNSNames` of an endpoint in its Engine API).
    """
    return list(dict.fromkeys([config.name, *connection.aliases, config.id[:12], config.hostname]))
