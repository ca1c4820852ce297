"""Interfaces that are missing, down, or too many."""

from __future__ import annotations

from harness.faults.catalogue import PLUGGED, fault
from harness.faults.site import Site
from linux import rtnl


@fault("second-interface", violates=("BR-1",), moment=PLUGGED)
def second_interface(site: Site) -> None:
    """A container on a bridge network gets an interface that nobody asked for."""
    if site.is_bridged:
        site.inside.ensure(rtnl.add_veth("extra0", "extra1"))
