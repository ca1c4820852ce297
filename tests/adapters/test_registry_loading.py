"""Tests of adapters from entry points, which are imported only when needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.adapters import registry
from harness.adapters.registry import DoesNotLoad
from harness.model.features import Feature

ADAPTER = """
class Adapter:
    features = frozenset()

    def __init__(self, host):
        self.host = host
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create an installed distribution that has an entry point for an adapter."""
    info = tmp_path / "acme_netmodes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-netmodes\nVersion: 1.0\n")
    points = f"[{registry.GROUP}]\nacme = acme_netmodes:Adapter\n"
    (info / "entry_points.txt").write_text(points)
    (tmp_path / "acme_netmodes.py").write_text(ADAPTER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_netmodes", raising=False)
    return tmp_path


def test_installed_adapter_is_found_by_its_entry_point(installed: Path) -> None:
    """An installed adapter is found by its entry point, and is not imported before.

    The list of adapters has it, and it is created with the given host.
    """
    assert {"acme", registry.DEFAULT} <= set(registry.names())
    assert registry.names() == sorted(registry.names())
    registry.find(registry.DEFAULT)
    assert "acme_netmodes" not in sys.modules
    host = object()
    adapter = registry.find("acme")(host)  # type: ignore[arg-type] # whatever it is given
    assert vars(adapter) == {"host": host}


def test_finding_mydocker_imports_no_other_driver() -> None:
    """Finding the adapter mydocker does not import the modules for other runtimes.

    They are those for CNI, bundles and command lines.
    """
    program = (
        "import sys; from harness.adapters import registry; registry.find('mydocker'); "
        "print(*(name for name in sys.modules if name.startswith('harness.adapters.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "harness.adapters.mydocker" in loaded
    assert not [name for name in loaded if ".bare" in name or ".docker_cli" in name]


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ('frozenset({"bridg", "host"})', "claims the unknown feature 'bridg'; known: br"),
        ('"bridge"', "has the features 'bridge', which is not a set of features"),
        ("property(lambda self: frozenset())", "has the features <property .*, which is not a set"),
    ],
    ids=["misspelt", "text", "property"],
)
def test_adapter_with_unknown_feature_does_not_load(
    features: str, words: str, installed: Path
) -> None:
    """An adapter that declares an unknown feature does not load.

    Otherwise the tests of the feature that was meant would be skipped.
    """
    (installed / "acme_netmodes.py").write_text(ADAPTER.replace("frozenset()", features))
    with pytest.raises(DoesNotLoad, match=f"'acme', which is acme_netmodes:Adapter, {words}"):
        registry.find("acme")


def test_features_may_be_plain_strings(installed: Path) -> None:
    """An adapter may declare its features as strings.

    Each string equals a member of `Feature`.
    """
    told = ADAPTER.replace("frozenset()", 'frozenset({"bridge", "user-mode"})')
    (installed / "acme_netmodes.py").write_text(told)
    assert registry.find("acme").features == {Feature.BRIDGE, Feature.USER_MODE}
