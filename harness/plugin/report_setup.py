"""What the options of reports, gate and shards ask for, and the plugins that they make."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from harness.model.requirements import Catalogue
from harness.plugin import options
from harness.plugin.worker_notes import Sharding, WorkerNotes
from harness.report import merge, schema, store
from harness.report.expectations import BadExpectations, Deviation
from harness.report.recorder import NodeIds, Recorder
from harness.report.schema import BadReport, Shard


def directory(config: pytest.Config) -> Path | None:
    """Where the report goes, `None` for nowhere. Raises `pytest.UsageError`."""
    asked = config.getoption("report")
    if config.getoption("no_report"):
        if asked:
            raise pytest.UsageError("--report and --no-report: which of the two?")
        return None
    if config.getoption("setuponly"):
        return None
    return config.invocation_params.dir / asked if asked else config.rootpath / options.REPORT


def register(
    config: pytest.Config, *, runtime: str, catalogue: Catalogue, recorder: Recorder, suites: Path
) -> None:
    """Register what notes, shards and reports. Raises `pytest.UsageError` for bad options."""
    node_ids = NodeIds(config.rootpath, suites)
    config.pluginmanager.register(WorkerNotes(recorder, node_ids), "netmodes-notes")
    sharding = _sharding(config)
    if sharding:
        part, seconds, _ = sharding
        plugin = Sharding(part, seconds, recorder, node_ids)
        config.pluginmanager.register(plugin, "netmodes-shard")
    if hasattr(config, "workerinput"):  # who reports to others
        return
    if config.getoption("collectonly") or config.getoption("setuponly"):  # or --setup-plan
        return
    from harness.plugin.reporting import Reporter, ReportOptions

    start = config.invocation_params.dir
    where = directory(config)
    expect, write = config.getoption("expect"), config.getoption("write_expect")
    held = None if expect is None else _expected(start / expect)
    if write is not None:
        _make_room(start / write)
    order = ReportOptions(
        directory=where,
        asked=bool(config.getoption("report") or expect or write or sharding),
        expected=None if held is None else (expect, held[0]),
        expectations="none" if held is None else held[1],
        write=None if write is None else start / write,
        shard=_as_shard(sharding),
        narrowed=_narrowed(config, suites),
        arguments=tuple(map(str, config.args)),
        pyargs=config.getoption("pyargs"),
        seeds=_seeds(config),
        fault=config.getoption("fault", default=None),
        probe=options.changed(config, "probe"),
        known=suites / "expected",
    )
    reporter = Reporter(
        order,
        runtime=runtime,
        catalogue=catalogue,
        recorder=recorder,
        node_ids=node_ids,
        root=config.rootpath,
    )
    config.pluginmanager.register(reporter, "netmodes-report")


def _expected(path: Path) -> tuple[tuple[Deviation, ...], str]:
    """What is in an expectation file, and a digest of it."""
    try:
        listed, text = store.listed(path)
    except BadExpectations as error:
        raise pytest.UsageError(f"--expect {error}") from error
    return listed, _digest(text)


def _make_room(path: Path) -> None:
    """Nobody waits for the end of a run to learn that nothing can be written."""
    try:
        store.make_room(path)
    except BadExpectations as error:
        raise pytest.UsageError(f"--write-expect {error}") from error


def _sharding(config: pytest.Config) -> tuple[merge.ShardReport, dict[str, float], str] | None:
    asked, by = config.getoption("shard"), config.getoption("shard_by")
    if asked is None:
        if by is not None:
            raise pytest.UsageError("--shard-by says how to divide a run: give --shard too")
        return None
    try:
        part = merge.parse(asked)
    except merge.BadShard as error:
        raise pytest.UsageError(str(error)) from error
    if by is None:
        return part, {}, ""
    try:
        report = schema.load(config.invocation_params.dir / by)
    except (BadReport, OSError) as error:
        raise pytest.UsageError(f"--shard-by {by}: {error}") from error
    seconds = {test.id: test.seconds for test in report.tests}
    told = "\0".join(f"{id_} {took}" for id_, took in sorted(seconds.items()))
    return part, seconds, _digest(told)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_shard(sharding: tuple[merge.ShardReport, dict[str, float], str] | None) -> Shard | None:
    if sharding is None:
        return None
    part, _, by = sharding
    return Shard(number=part.number, of=part.of, by=by)


def _narrowed(config: pytest.Config, suites: Path) -> bool:
    """Whether the command line names less than all of the suites."""
    if config.args_source != pytest.Config.ArgsSource.ARGS:
        return False
    for argument in config.args:
        if config.getoption("pyargs") and argument == suites.name:
            return False
        if suites.is_relative_to((config.invocation_params.dir / argument).resolve()):
            return False
    return True


def _seeds(config: pytest.Config) -> dict[str, str]:
    """What makes the run's random choices come out the same again."""
    seeds = {"PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "")}
    if "hypothesis" in sys.modules or config.pluginmanager.hasplugin("hypothesispytest"):
        for name in ("hypothesis_seed", "hypothesis_profile"):
            seeds[name.replace("_", " ")] = str(config.getoption(name, default=None) or "")
    seeds["profile"] = str(config.getoption("profile", default=None) or "")
    return {name: value for name, value in seeds.items() if value}
