"""The badge: what shields.io draws from an endpoint, https://shields.io/badges/endpoint-badge."""

from __future__ import annotations

import json

from harness.report.sanitize import line
from harness.report.schema import Report


def render(report: Report) -> str:
    """The JSON that the badge is drawn from: how much of the core is kept."""
    core = report.totals.core
    tested = core.total - core.untested
    message = f"{core.kept}/{tested} core"
    if report.conforms is False:
        colour = "red" if core.broken or core.error else "orange"
    else:
        colour = "brightgreen" if report.conforms else "lightgrey"
    if not report.complete:
        message, colour = f"{message}, partial", "lightgrey"
    badge = {
        "schemaVersion": 1,
        "label": f"netmodes: {line(report.implementation.name)}",
        "message": message,
        "color": colour,
    }
    return json.dumps(badge) + "\n"
