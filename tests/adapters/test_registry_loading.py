"""Adapters are found by name, and their modules loaded only then."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.adapters import registry
from harness.adapters.registry import DoesNotLoad, UnknownRuntime
from harness.model.features import Feature

ADAPTER = """
class Adapter:
    features = frozenset()

    def __init__(self, host):
        self.host = host
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create an installed distribution with a working adapter and one that does not load."""
    info = tmp_path / "acme_netmodes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-netmodes\nVersion: 1.0\n")
    points = "acme = acme_netmodes:Adapter\nbroken = acme_broken:Adapter\n"
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{points}")
    (tmp_path / "acme_netmodes.py").write_text(ADAPTER)
    (tmp_path / "acme_broken.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("acme_netmodes", "acme_broken"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def test_the_runtime_that_comes_along_is_always_there() -> None:
    """Without anything installed the default runtime has its adapter."""
    assert registry.DEFAULT in registry.names()
    assert "MydockerAdapter" in repr(registry.find(registry.DEFAULT))


def test_an_installed_adapter_is_found_by_its_entry_point(installed: Path) -> None:
    """What a distribution declares is listed, and made with the host it is given."""
    assert {"acme", "broken", registry.DEFAULT} <= set(registry.names())
    assert registry.names() == sorted(registry.names())
    host = object()
    adapter = registry.find("acme")(host)  # type: ignore[arg-type] # whatever it is given
    assert vars(adapter) == {"host": host}


def test_a_module_is_loaded_only_when_it_is_asked_for(installed: Path) -> None:
    """Listing names, or finding another adapter, imports nothing that may be missing or slow."""
    registry.names()
    registry.find(registry.DEFAULT)
    assert "acme_netmodes" not in sys.modules
    registry.find("acme")
    assert "acme_netmodes" in sys.modules


def test_an_adapter_that_does_not_load_says_why(installed: Path) -> None:
    """The error is that of its own module, not that there is no such runtime."""
    why = "'broken', which is acme_broken:Adapter, .*ModuleNotFoundError: .*no_such_module_anywhere"
    with pytest.raises(DoesNotLoad, match=why):
        registry.find("broken")


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ('frozenset({"bridg", "host"})', "claims 'bridg': there is no such feature; there are: br"),
        ('"bridge"', "has 'bridge' for its features: a set of them is wanted"),
        ("property(lambda self: frozenset())", "has <property .*: a set of them is wanted"),
    ],
    ids=["misspelt", "text", "property"],
)
def test_an_adapter_that_claims_what_is_no_feature_does_not_load(
    features: str, words: str, installed: Path
) -> None:
    """Its run would be green, and have tested nothing of what was meant."""
    (installed / "acme_netmodes.py").write_text(ADAPTER.replace("frozenset()", features))
    with pytest.raises(DoesNotLoad, match=f"'acme', which is acme_netmodes:Adapter, {words}"):
        registry.find("acme")


def test_features_may_be_told_by_their_words(installed: Path) -> None:
    """A word is as good as the member of `Feature` that it stands for."""
    told = ADAPTER.replace("frozenset()", 'frozenset({"bridge", "user-mode"})')
    (installed / "acme_netmodes.py").write_text(told)
    assert registry.find("acme").features == {Feature.BRIDGE, Feature.USER_MODE}


def test_an_unknown_name_lists_the_known_ones(installed: Path) -> None:
    """Who mistypes a name sees what there is."""
    with pytest.raises(UnknownRuntime, match=r"no adapter is called 'doker'; there are: acme, "):
        registry.find("doker")
