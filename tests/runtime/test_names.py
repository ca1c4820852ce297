"""Names on user-defined networks, and the attendant that answers them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from dns.message import Message

from linux.netns import NetNS
from runtime.attendant import client
from runtime.engine import Engine
from runtime.errors import ConflictError, MydockerError
from runtime.records import Container
from runtime.state import process_born
from tests.runtime.conftest import FOR_EVER
from tests.runtime.killing import Step, killed_at, steps
from tests.runtime.looks import netns, nothing_left, processes, until

RESOLVER = "127.0.0.11"
GATEWAY = "10.9.0.1"


@pytest.fixture
def lan(engine: Engine) -> str:
    """A network with both families."""
    engine.network_create("lan", subnet="10.9.0.0/24", subnet6="fd00:9::/64")
    return "lan"


def _ask(
    asker: Container,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    payload: int = 0,
    patience: float = 10,
) -> Message:
    """What a container's resolver answers, asked over a socket inside."""
    query = dns.message.make_query(name, kind, use_edns=0 if payload else False, payload=payload)
    number = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with netns(asker) as space, space.socket(socket.AF_INET, number) as opened:
        opened.settimeout(patience)
        opened.connect((RESOLVER, 53))
        opened.setblocking(False)
        if tcp:
            return dns.query.tcp(query, RESOLVER, patience, sock=opened)
        return dns.query.udp(query, RESOLVER, patience, sock=opened)


def _told(answer: Message) -> set[str]:
    return {rdata.to_text() for rrset in answer.answer for rdata in rrset}


def _rcode(answer: Message) -> str:
    return dns.rcode.to_text(answer.rcode())


# --- who is who ------------------------------------------------------------------------


def test_members_answer_to_all_their_names(engine: Engine, lan: str) -> None:
    """Name, alias, short id and hostname, with the network's name behind them too, in any case."""
    web = engine.run("base", FOR_EVER, name="Web", network=lan, aliases=["www"], hostname="box")
    db = engine.run("base", FOR_EVER, name="db", network=lan)
    for name in ("Web", "web", "WWW", web.id[:12], "box", "web.lan", "www.LAN."):
        assert _told(_ask(db, name)) == {"10.9.0.2"}, name
        assert _told(_ask(db, name, "AAAA")) == {"fd00:9::2"}, name
    assert _told(_ask(web, "web")) == {"10.9.0.2"}


def test_addresses_lead_back_to_names(engine: Engine, lan: str) -> None:
    """A member's does, in both families; nobody's in the subnet is known not to exist."""
    web = engine.run("base", FOR_EVER, name="web", network=lan)
    for address in ("10.9.0.2", "fd00:9::2"):
        reverse = dns.reversename.from_address(address).to_text()
        assert _told(_ask(web, reverse, "PTR")) == {"web.lan."}
    for address in ("10.9.0.77", "fd00:9::77"):
        reverse = dns.reversename.from_address(address).to_text()
        assert _rcode(_ask(web, reverse, "PTR")) == "NXDOMAIN"


def test_a_name_without_such_an_address_is_no_error(engine: Engine) -> None:
    """No AAAA where there is no IPv6: the name exists, and nobody outside is asked."""
    engine.network_create("four", subnet="10.8.0.0/24")
    web = engine.run("base", FOR_EVER, name="web", network="four")
    for kind in ("AAAA", "MX"):
        answer = _ask(web, "web", kind)
        assert (_rcode(answer), answer.answer) == ("NOERROR", [])


def test_an_alias_of_several_leads_to_all(engine: Engine, lan: str) -> None:
    """Each container that has it."""
    for name in ("one", "two", "three"):
        engine.run("base", FOR_EVER, name=name, network=lan, aliases=["all"])
    asker = engine.inspect("one")
    assert _told(_ask(asker, "all")) == {"10.9.0.2", "10.9.0.3", "10.9.0.4"}


def test_a_program_inside_gets_the_answer(engine: Engine, lan: str) -> None:
    """By what its resolv.conf says."""
    engine.run("base", FOR_EVER, name="web", network=lan)
    engine.run("base", FOR_EVER, name="db", network=lan)
    assert engine.exec("db", ["getent", "ahostsv4", "web"]).stdout.startswith(b"10.9.0.2 ")
    back = engine.exec("db", ["getent", "hosts", "10.9.0.2"]).stdout
    assert back.split() == [b"10.9.0.2", b"web.lan"]


def test_names_follow_at_once(engine: Engine, lan: str) -> None:
    """Starting, stopping, connecting and taking off are seen by the very next question."""
    engine.network_create("dmz", subnet="10.8.0.0/24")
    asker = engine.run("base", FOR_EVER, name="asker", network=lan)
    other = engine.run("base", FOR_EVER, name="other", network="dmz")
    assert _rcode(_ask(asker, "other")) == "SERVFAIL"
    engine.network_connect(lan, "other", aliases=["friend"])
    assert _told(_ask(asker, "other")) == {"10.9.0.3"}
    assert _told(_ask(asker, "friend")) == {"10.9.0.3"}
    assert _told(_ask(other, "asker")) == {"10.9.0.2"}
    engine.network_connect("dmz", "asker")
    assert _told(_ask(asker, "other")) == {"10.9.0.3", "10.8.0.2"}
    engine.network_disconnect(lan, "other")
    assert _told(_ask(asker, "other")) == {"10.8.0.2"}
    assert _rcode(_ask(asker, "friend")) == "SERVFAIL"
    engine.stop("other", timeout=0)
    assert _rcode(_ask(asker, "other")) == "SERVFAIL"
    engine.start("other")
    assert _told(_ask(asker, "other")) == {"10.8.0.2"}


def test_the_default_network_has_no_names(engine: Engine) -> None:
    """There a container asks the host's resolvers, and nobody attends to it."""
    web = engine.run("base", FOR_EVER, name="web")
    engine.run("base", FOR_EVER, name="db")
    assert RESOLVER.encode() not in engine.exec("web", ["cat", "/etc/resolv.conf"]).stdout
    with pytest.raises(ConnectionRefusedError):
        _ask(web, "db")


def test_a_container_that_comes_from_the_default_network_learns_names(
    engine: Engine, lan: str
) -> None:
    """When it is connected to another, resolv.conf changes under its feet, and back again."""
    web = engine.run("base", FOR_EVER, name="web")

    def resolv_conf() -> str:
        return engine.exec("web", ["cat", "/etc/resolv.conf"]).stdout.decode()

    before = resolv_conf()
    engine.network_connect(lan, "web")
    assert f"nameserver {RESOLVER}\n" in resolv_conf()
    assert _told(_ask(web, "web")) == {"10.9.0.2"}
    engine.network_disconnect(lan, "web")
    assert resolv_conf() == before
    with pytest.raises(ConnectionRefusedError):
        _ask(web, "web")


def test_port_53_stays_the_containers(engine: Engine, lan: str) -> None:
    """It can run a name server on every address of its own, and is still answered names."""
    web = engine.run("base", FOR_EVER, name="web", network=lan)
    with (
        netns(web) as space,
        space.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        space.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
    ):
        udp.bind(("", 53))
        tcp.bind(("", 53))
        tcp.listen()
        for over_tcp in (False, True):
            assert _told(_ask(web, "web", tcp=over_tcp)) == {"10.9.0.2"}


def test_a_large_answer_comes_whole_over_tcp(engine: Engine, lan: str) -> None:
    """Over UDP it is cut and says so, unless the asker has room for it."""
    for number in range(30):
        engine.run("base", FOR_EVER, name=f"c{number}", network=lan, aliases=["many"])
    asker = engine.inspect("c0")
    cut = _ask(asker, "many", "AAAA")
    assert cut.flags & dns.flags.TC
    assert len(_told(_ask(asker, "many", "AAAA", payload=4096))) == 30
    whole = _ask(asker, "many", "AAAA", tcp=True)
    assert len(_told(whole)) == 30
    assert not whole.flags & dns.flags.TC


def test_nonsense_is_passed_over(engine: Engine, lan: str) -> None:
    """What is no query gets no answer, and the next one that is gets its own."""
    web = engine.run("base", FOR_EVER, name="web", network=lan)
    with netns(web) as space, space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect((RESOLVER, 53))
        for nonsense in (b"", b"x", os.urandom(300), bytes(12), b"\xff" * 64):
            opened.send(nonsense)
    assert _told(_ask(web, "web")) == {"10.9.0.2"}


# --- the rest -----------------------------------------------------------------------------


class Outside:
    """A name server of the host's that answers as it is told, and keeps what it was asked."""

    def __init__(self, address: str, answer: Callable[[Message, bool], Message | None]) -> None:
        self.asked: list[tuple[str, bool]] = []
        self._answer = answer
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for opened in (self._udp, self._tcp):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((address, 53))
        self._tcp.listen()
        self._threads = [threading.Thread(target=work) for work in (self._hear, self._listen)]
        for thread in self._threads:
            thread.start()

    def _said(self, wire: bytes, *, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        self.asked.append((query.question[0].name.to_text(), tcp))
        answer = self._answer(query, tcp)
        return answer.to_wire() if answer else None

    def _hear(self) -> None:
        while True:
            wire, asker = self._udp.recvfrom(4096)
            if not wire:
                return
            if answer := self._said(wire, tcp=False):
                self._udp.sendto(answer, asker)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._tcp.accept()
                with accepted:
                    wire = accepted.recv(4096)[2:]
                    if answer := self._said(wire, tcp=True):
                        accepted.sendall(len(answer).to_bytes(2, "big") + answer)

    def close(self) -> None:
        """Be gone."""
        self._tcp.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._udp.getsockname())
        for thread in self._threads:
            thread.join()
        self._tcp.close()
        self._udp.close()


@contextlib.contextmanager
def _outside(
    answer: Callable[[Message, bool], Message | None], address: str = GATEWAY
) -> Iterator[Outside]:
    with contextlib.closing(Outside(address, answer)) as server:
        yield server


def _known(query: Message, tcp: bool) -> Message:  # noqa: FBT001 - what `Outside` calls
    answer = dns.message.make_response(query, recursion_available=True)
    if query.question[0].name.to_text() == "big.example.":
        if not tcp:
            answer.flags |= dns.flags.TC
            return answer
        values = [f"192.0.2.{number}" for number in range(200)]
    else:
        values = ["192.0.2.1"]
    answer.answer.append(dns.rrset.from_text_list(query.question[0].name, 5, "IN", "A", values))
    return answer


def test_the_rest_is_asked_of_a_resolver_that_was_named(engine: Engine, lan: str) -> None:
    """Over the transport by which it was asked; peers' names are not."""
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=[GATEWAY])
    with _outside(_known) as outside:
        for tcp in (False, True):
            assert _told(_ask(web, "www.example", tcp=tcp)) == {"192.0.2.1"}
            assert _told(_ask(web, "web", tcp=tcp)) == {"10.9.0.2"}
        assert outside.asked == [("www.example.", False), ("www.example.", True)]


def test_an_answer_that_was_cut_is_whole_over_tcp(engine: Engine, lan: str) -> None:
    """That it was cut is passed on, and asking again over TCP brings all of it."""
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=[GATEWAY])
    with _outside(_known) as outside:
        assert _ask(web, "big.example").flags & dns.flags.TC
        assert len(_told(_ask(web, "big.example", tcp=True))) == 200
        got = engine.exec("web", ["getent", "ahostsv4", "big.example"]).stdout.decode()
        assert {line.split()[0] for line in got.splitlines()} == {
            f"192.0.2.{number}" for number in range(200)
        }
        assert ("big.example.", True) in outside.asked


def test_a_resolver_that_fails_is_passed_over(engine: Engine, lan: str) -> None:
    """One that is not there, one that gives up and one that never answers: the next is asked."""
    servers = ["10.9.0.200", GATEWAY, "172.17.42.1"]
    engine.network_inspect("bridge")
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=servers)

    def gives_up(query: Message, _: bool) -> Message:  # noqa: FBT001
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.SERVFAIL)
        return answer

    with _outside(gives_up):
        assert _rcode(_ask(web, "www.example")) == "SERVFAIL"
        with _outside(_known, "172.17.42.1"):
            assert _told(_ask(web, "www.example")) == {"192.0.2.1"}
    with _outside(lambda query, tcp: None):  # noqa: ARG005
        assert _rcode(_ask(web, "www.example", tcp=True)) == "SERVFAIL"


def test_what_is_unknown_outside_is_unknown(engine: Engine, lan: str) -> None:
    """NXDOMAIN is an answer: nobody else is asked."""

    def nowhere(query: Message, _: bool) -> Message:  # noqa: FBT001
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer

    servers = [GATEWAY, "172.17.42.1"]
    engine.network_inspect("bridge")
    web = engine.run("base", FOR_EVER, network=lan, dns=servers)
    with _outside(nowhere), _outside(_known, "172.17.42.1") as second:
        assert _rcode(_ask(web, "www.example")) == "NXDOMAIN"
        assert second.asked == []


def test_an_internal_network_ends_with_its_peers(engine: Engine) -> None:
    """They answer; nothing else exists, though the host has resolvers."""
    engine.network_create("closed", internal=True, subnet="10.7.0.0/24")
    web = engine.run("base", FOR_EVER, name="web", network="closed")
    engine.run("base", FOR_EVER, name="db", network="closed")
    assert _told(_ask(web, "db")) == {"10.7.0.3"}
    for name in ("www.example", "lan", "web.other"):
        assert _rcode(_ask(web, name)) == "NXDOMAIN"


# --- the attendant ---------------------------------------------------------------------------


def _attendants() -> set[int]:
    found = set()
    for pid in processes():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            own = os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/thread-self/ns/net")
            if b"runtime.attendant.process" in words and own:
                found.add(pid)
    return found


def test_it_comes_with_the_first_and_goes_with_the_last(
    engine: Engine, lan: str, root: Path
) -> None:
    """One for all of them; nothing is left of it, and nobody attends to what needs nobody."""
    engine.run("base", FOR_EVER)
    assert not _attendants()
    with nothing_left(root):
        one = engine.run("base", FOR_EVER, network=lan)
        until(lambda: len(_attendants()) == 1, "it has come")
        two = engine.run("base", FOR_EVER, network=lan)
        assert len(_attendants()) == 1
        engine.remove(one.id, force=True)
        assert _told(_ask(two, two.name)) == {"10.9.0.3"}
        engine.remove(two.id, force=True)
        assert not _attendants()
    three = engine.run("base", FOR_EVER, name="three", network=lan)
    assert _told(_ask(three, "three")) == {"10.9.0.2"}


def test_it_lets_go_of_a_container_that_ends_by_itself(engine: Engine, lan: str) -> None:
    """Its namespace is not kept alive by those who answered it, though nobody calls."""
    web = engine.run("base", FOR_EVER, network=lan)
    until(lambda: bool(_attendants()), "it has come")
    assert _told(_ask(web, web.name)) == {"10.9.0.2"}
    os.kill(web.state.pid, signal.SIGKILL)
    until(lambda: not _attendants(), "it has gone with the last")


def test_killed_it_is_replaced_by_the_next_call(engine: Engine, lan: str) -> None:
    """Which answers everybody that it answered, and relays what it relayed."""
    web = engine.run("base", FOR_EVER, name="web", network=lan, publish=["8080:80"])
    db = engine.run("base", FOR_EVER, name="db", network=lan)
    assert _told(_ask(web, "db")) == {"10.9.0.3"}
    (old,) = _attendants()
    os.kill(old, signal.SIGKILL)
    until(lambda: not process_born(old), "it is dead, its socket too")
    engine.containers()
    until(lambda: _attendants() - {old} != set(), "another has come")
    until(lambda: _answers(web), "it has found whom to attend to")
    assert _told(_ask(db, "web")) == {"10.9.0.2"}
    assert _called_on_loopback6(web) == "fd00:9::1"
    engine.remove("web", force=True)
    assert _told(_ask(db, "db")) == {"10.9.0.3"}
    engine.remove("db", force=True)
    assert not _attendants()


def _answers(asker: Container) -> bool:
    try:
        return bool(_told(_ask(asker, asker.name, patience=0.2)))
    except (ConnectionRefusedError, dns.exception.Timeout):
        return False


def test_killed_before_a_start_it_is_replaced_by_it(engine: Engine, lan: str) -> None:
    """The one that starts and those that ran are all answered."""
    web = engine.run("base", FOR_EVER, name="web", network=lan)
    until(lambda: bool(_attendants()), "it has come")
    (old,) = _attendants()
    os.kill(old, signal.SIGKILL)
    until(lambda: not process_born(old), "it is dead, its socket too")
    db = engine.run("base", FOR_EVER, name="db", network=lan)
    assert _told(_ask(db, "web")) == {"10.9.0.2"}
    until(lambda: _answers(web), "it has found out about the others")


def test_many_start_and_stop_at_once(engine: Engine, lan: str, root: Path) -> None:
    """From as many processes; there is one attendant at most, and everybody is answered."""
    with nothing_left(root):
        for _ in range(2):
            workers = []
            for number in range(8):
                pid = os.fork()
                if not pid:
                    code = 1
                    try:
                        own = Engine(root)
                        web = own.run("base", FOR_EVER, name=f"w{number}", network=lan)
                        code = 0 if len(_told(_ask(web, f"w{number}"))) == 1 else 2
                        own.remove(web.id, force=True)
                    finally:
                        os._exit(code)
                workers.append(pid)
            assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers] == [0] * 8
            assert not _attendants()


def _called_on_loopback6(web: Container, *, kind: socket.SocketKind = socket.SOCK_STREAM) -> str:
    """Whom a listener on port 80 in the container sees when the host calls `::1` port 8080."""
    with (
        netns(web) as space,
        space.socket(socket.AF_INET6, kind) as ear,
        socket.socket(socket.AF_INET6, kind) as call,
    ):
        ear.bind(("", 80))
        ear.settimeout(10)
        call.settimeout(10)
        if kind == socket.SOCK_STREAM:
            ear.listen()
            call.connect(("::1", 8080))
            accepted, caller = ear.accept()
            with accepted:
                call.sendall(b"x" * 300_000)
                call.shutdown(socket.SHUT_WR)
                heard = b"".join(iter(lambda: accepted.recv(1 << 16), b""))
                accepted.sendall(heard[::-1])
            assert b"".join(iter(lambda: call.recv(1 << 16), b"")) == b"x" * 300_000
        else:
            for word in (b"one", b"two"):
                call.sendto(word, ("::1", 8080))
                heard, caller = ear.recvfrom(64)
                ear.sendto(heard.upper(), caller)
                assert call.recv(64) == word.upper()
        return str(caller[0])


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_ipv6_loopback_is_relayed(engine: Engine, lan: str, kind: str) -> None:
    """Both ways, to the end, and seen as the host; a call that nobody takes is hung up on."""
    number = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    web = engine.run("base", FOR_EVER, network=lan, publish=[f"[::1]:8080:80/{kind}"])
    assert _called_on_loopback6(web, kind=number) == "fd00:9::1"
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as call:
        call.settimeout(10)
        if kind == "tcp":
            call.connect(("::1", 8080))
            with contextlib.suppress(ConnectionResetError):
                assert call.recv(1) == b""
    engine.network_create("aaa", subnet6="fd00:a::/64")
    engine.network_connect("aaa", web.id)
    assert _called_on_loopback6(web, kind=number) == "fd00:a::1"
    engine.stop(web.id, timeout=0)
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as call,
        pytest.raises(ConnectionRefusedError),
    ):
        call.connect(("::1", 8080))


@pytest.mark.parametrize(
    "step",
    steps(
        (client, "attend"),
        (client, "_say"),
        (client, "_begin"),
        (client, "_bind"),
        (client, "_spawn"),
        (client, "open_ears"),
    ).values(),
)
def test_a_start_is_killed(engine: Engine, root: Path, lan: str, step: Step) -> None:
    """Whatever it had got to, the next start has its names answered, and nothing is left."""
    with nothing_left(root):
        killed_at(step, lambda: Engine(root).run("base", FOR_EVER, name="web", network=lan))
        until(lambda: not _starting(engine), "its child has let go of the lock too")
        with contextlib.suppress(MydockerError):
            engine.remove("web", force=True)
        db = engine.run("base", FOR_EVER, name="web", network=lan)
        assert _told(_ask(db, "web")) == {"10.9.0.2"}
        engine.remove("web", force=True)
        until(lambda: not _attendants(), "it has gone with the last")


def _starting(engine: Engine) -> bool:
    return any(item.state.status in ("starting", "removing") for item in engine.containers())


def test_a_stopped_attendant_is_told_of(
    engine: Engine, lan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cannot be reached is named; the start fails and leaves nothing running."""
    engine.run("base", FOR_EVER, network=lan)
    until(lambda: bool(_attendants()), "it has come")
    (pid,) = _attendants()
    monkeypatch.setattr(client, "_BOUND", 0.2)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(MydockerError, match="attendant"):
            engine.run("base", FOR_EVER, name="web", network=lan)
        assert [item.name for item in engine.containers()].count("web") == 0
    finally:
        os.kill(pid, signal.SIGCONT)
    with pytest.raises(ConflictError):
        engine.network_remove(lan)


def test_a_namespace_is_entered_and_left(engine: Engine, lan: str, host: NetNS) -> None:
    """Asking a resolver from inside a container does not move the attendant there."""
    web = engine.run("base", FOR_EVER, network=lan, dns=[GATEWAY])
    with _outside(_known):
        assert _told(_ask(web, "www.example")) == {"192.0.2.1"}
    (pid,) = _attendants()
    assert os.readlink(f"/proc/{pid}/ns/net") == f"net:[{host.id[1]}]"
