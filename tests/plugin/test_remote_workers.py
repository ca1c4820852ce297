"""Recognition of workers on other machines."""

from __future__ import annotations

import pytest

from harness.plugin import workers


@pytest.mark.parametrize(
    ("specs", "proxies", "where"),
    [
        ((), (), (False, False)),
        (("popen",), (), (True, False)),
        (("2*popen//python=python3",), (), (True, False)),
        (("ssh=one",), (), (False, True)),
        (("3*ssh=one//python=netmodes python", "socket=two:8888"), (), (False, True)),
        (("ssh=one", "popen"), (), (True, True)),
        (("4*popen//via=far",), ("id=far//ssh=one",), (False, True)),
        (("popen//via=near",), ("id=near//popen",), (True, False)),
    ],
)
def test_worker_location_follows_from_xdist_specs(
    specs: tuple[str, ...], proxies: tuple[str, ...], where: tuple[bool, bool]
) -> None:
    """The specs name workers here, elsewhere, or both."""
    assert workers.gateways(specs, proxies) == where


@pytest.mark.parametrize("more", [["--tx", "popen"], ["--sandbox=always"]], ids=" ".join)
def test_local_and_remote_workers_are_refused_together(
    project: pytest.Pytester, more: list[str]
) -> None:
    """Local workers need the sandbox and remote ones the network."""
    project.makepyfile("def test_it(): pass")
    result = project.runpytest_subprocess("--dist=load", "--tx", "ssh=nobody.example", *more)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*reached over a network, and a sandbox has none*"])
