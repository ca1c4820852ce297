"""Concurrent operations of an adapter, each in a separate process inside the host."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from harness.adapters.protocol import RuntimeRefused
from harness.world.host import HostMachine, quiet_fork
from harness.world.rpc import Channel

T = TypeVar("T")


def at_once(host: HostMachine, jobs: Sequence[Callable[[], T]]) -> list[T | RuntimeRefused]:
    """Run several jobs at the same time; return the result or refusal of each.

    All jobs start at the same moment. Within a job the host's method `call` runs in the job's own
    process, so the jobs do not wait for each other. An exception other than a refusal is raised
    when all jobs have ended. Results must be picklable.
    """
    gate, opener = os.pipe()
    answers: list[Channel] = []
    children: list[int] = []
    try:
        for job in jobs:
            here, there = Channel.pair()
            with there:
                child = quiet_fork()
                if not child:
                    os.close(opener)
                    _enter_and_do(host, job, gate, there)
            answers.append(here)
            children.append(child)
    finally:
        os.close(gate)
        os.close(opener)  # this releases all jobs
    outcomes = [_outcome(answer) for answer in answers]
    for child in children:
        os.waitpid(child, 0)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, RuntimeRefused):
            raise outcome
    return outcomes


def _enter_and_do(
    host: HostMachine, job: Callable[[], object], gate: int, answer: Channel
) -> NoReturn:
    """Enter the host and run the job in a child process: only a child is in its pid namespace."""
    try:
        host.enter()
        child = os.fork()
        if child:
            answer.close()
            os.waitpid(child, 0)
            os._exit(0)
        os.read(gate, 1)
        try:
            outcome: object = job()
        except BaseException as error:
            outcome = error
        answer.send(1, pickle.dumps(outcome))
    finally:
        os._exit(1)


def _outcome(answer: Channel) -> Any:
    with answer:
        try:
            return pickle.loads(answer.receive()[1])  # noqa: S301 # from our own child
        except EOFError:
            return ChildProcessError("a job ended without a result")
