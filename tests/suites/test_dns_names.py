"""Tests of the names that the suites look up."""

from __future__ import annotations

import os
import re

import pytest

from suites.support.dns import fresh_name


def test_fresh_name_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh name is no number, which inet_aton(3) would take for an address.

    Once in 280 its digits are decimal ones.
    """
    monkeypatch.setattr(os, "urandom", lambda size: b"\x12" * size)
    assert not re.match(r"(0x)?[0-9]+\.", fresh_name())
