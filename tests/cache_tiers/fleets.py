"""Redis of more than one server, of real processes on free ports: a Cluster, a master with a replica and a Sentinel,
and one server that speaks TLS. Each ends with the tests even if they are killed."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.backoff import NoBackoff
from redis.retry import Retry

from cache_tiers.embedded import _LAUNCH, _find_binary


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def free_port() -> int:
    """One that has room for a Cluster's bus 10,000 above it."""
    while True:
        with socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            if port < 55_000:
                with contextlib.suppress(OSError):
                    bus.bind(("127.0.0.1", port + 10_000))
                    return port


class Stoppable:
    """A process of the tests, a client of it, and a folder that goes with it."""

    process: subprocess.Popen[bytes]
    client: redis.Redis
    folder: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.client.close()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Node(Stoppable):
    """A redis-server on a port of 127.0.0.1."""

    def __init__(self, *options: str, binary: str = "", config: str = "", client: dict[str, Any] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="refrain-test-"))
        self.port = free_port()
        self._binary = binary or _find_binary(self.folder)[0]
        # Else a master waits 5 s for more replicas before it gives the first one its data. No Sentinel has the option.
        self._soon = () if "--sentinel" in options else ("--repl-diskless-sync-delay", "0")
        self._options = options or ("--port", str(self.port), "--save", "", "--appendonly", "no")
        (self.folder / "conf").write_text(config.format(port=self.port))
        self.client = redis.Redis("127.0.0.1", self.port, retry=Retry(NoBackoff(), 0), **(client or {}))
        self.run()

    def run(self) -> None:
        launch = [sys.executable, "-ISc", _LAUNCH, str(os.getpid())] if sys.platform == "linux" else []
        options = [option.format(port=self.port) for option in (*self._options, *self._soon)]
        command = [*launch, self._binary, str(self.folder / "conf"), "--dir", str(self.folder), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(self._answers, "a server of the tests does not answer")
        except BaseException:
            self.kill()
            raise

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"a server of the tests ended with code {self.process.returncode}"
        return bool(self.client.ping())


class _Client(redis.RedisCluster):
    def keys(self, pattern: Any = "*", **options: Any) -> Any:
        """Of all servers, not only of one."""
        return super().keys(pattern, target_nodes=self.PRIMARIES, **options)


class ClusterServers:
    """Three primaries with a third of the slots each; with `replica`, one more that follows the control slot's."""

    def __init__(self, *, replica: bool = False) -> None:
        options = ("--port", "{port}", "--save", "", "--appendonly", "no", "--cluster-enabled", "yes")
        options += (
            "--cluster-node-timeout",
            "1000",
            "--cluster-require-full-coverage",
            "no",
            "--maxmemory-policy",
            "volatile-lfu",
            "--lfu-decay-time",
            "0",
        )
        self.nodes = [Node(*options) for _ in range(4 if replica else 3)]
        first = self.nodes[0]
        for n, node in enumerate(self.nodes):
            if n < 3:
                node.client.execute_command("CLUSTER ADDSLOTS", *range(16384 * n // 3, 16384 * (n + 1) // 3))
            if n:
                node.client.execute_command("CLUSTER MEET", "127.0.0.1", first.port)
        self.client: Any = None
        wait_for(lambda: all(self._settled(node) for node in self.nodes), "the Cluster does not come up")
        self.client = _Client("127.0.0.1", first.port)
        if replica:
            followed = self.owner("refrain:{control}:events")
            who = followed.client.execute_command("CLUSTER MYID").decode()
            self.replica = self.nodes[3]
            self.replica.client.execute_command("CLUSTER REPLICATE", who)
            wait_for(
                lambda: self.replica.client.info("replication").get("master_link_status") == "up", "no replication"
            )

    def _settled(self, node: Node) -> bool:
        info = node.client.execute_command("CLUSTER INFO")
        known, covered = int(info["cluster_known_nodes"]), int(info["cluster_slots_ok"])
        return info["cluster_state"] == "ok" and covered == 16_384 and known == len(self.nodes)

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def owner(self, name: str) -> Node:
        """The primary that has a key's slot at present."""
        port = self.client.get_node_from_key(name).port
        return next(node for node in self.nodes if node.port == port)

    def begin_move(self, slot: int, here: Node, there: Node) -> None:
        ids = [node.client.execute_command("CLUSTER MYID").decode() for node in (here, there)]
        there.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        here.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])

    def end_move(self, slot: int, there: Node) -> None:
        """The new owner first, which claims the slot with an epoch above all that it knows; the others once they know
        that epoch. Else a late message of the old owner takes the slot back for one of them, and the next claim, by one
        that has not heard of this one, is not above it: two servers then name each other as the owner for good."""
        who = there.client.execute_command("CLUSTER MYID").decode()
        there.client.execute_command("CLUSTER SETSLOT", slot, "NODE", who)
        claimed = self._epoch(there, who)
        for node in self.nodes[:3]:
            wait_for(lambda node=node: self._epoch(node, who) >= claimed, "a server does not hear of a moved slot")
            node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", who)

    def _epoch(self, node: Node, who: str) -> int:
        """What `node` knows of the configuration epoch of another."""
        told = node.client.execute_command("CLUSTER NODES")
        return next(int(each["epoch"]) for each in told.values() if each["node_id"] == who)

    def flush(self) -> None:
        for node in self.nodes:
            node.client.flushall()

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
        for node in self.nodes:
            node.close()


class SentinelServers:
    """A master, its replica, and one Sentinel who decides alone."""

    def __init__(self) -> None:
        self.master = Node()
        self.replica = Node("--port", "{port}", "--save", "", "--replicaof", "127.0.0.1", str(self.master.port))
        wait_for(lambda: self.replica.client.info("replication")["master_link_status"] == "up", "no replication")
        config = (
            f"port {{port}}\nsentinel monitor main 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n"
        )
        self.sentinel = Node("--sentinel", config=config)
        wait_for(lambda: self.sentinel.client.sentinel_slaves("main"), "the Sentinel does not see the replica")

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/main"

    def close(self) -> None:
        for node in (self.sentinel, self.replica, self.master):
            node.close()


class NoTls(Exception):
    """No redis-server on this machine was built with TLS."""


class TlsServer:
    """One server that speaks TLS alone, and wants its clients' certificates too."""

    def __init__(self, valid: datetime.timedelta = datetime.timedelta(days=400)) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="refrain-test-"))
        make_certificates(self.folder, valid)
        ca, cert, key = (str(self.folder / name) for name in ("ca.crt", "server.crt", "server.key"))
        options = ("--port", "0", "--tls-port", "{port}", "--save", "", "--tls-ca-cert-file", ca)
        options += ("--tls-cert-file", cert, "--tls-key-file", key)
        client = {"ssl": True, "ssl_ca_certs": ca, "ssl_certfile": cert, "ssl_keyfile": key}
        self.node = Node(*options, binary=_binary_with_tls(), client=client)
        self.client = self.node.client

    @property
    def url(self) -> str:
        names = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "server.crt", "ssl_keyfile": "server.key"}
        query = "&".join(f"{option}={self.folder / name}" for option, name in names.items())
        return f"rediss://127.0.0.1:{self.node.port}?{query}"

    def close(self) -> None:
        self.node.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _binary_with_tls() -> str:
    """The first redis-server that knows the option; what it stumbles over then is the port."""
    for folder in os.get_exec_path():
        binary = Path(folder) / "redis-server"
        if os.access(binary, os.X_OK):
            command = [str(binary), "--tls-port", "0", "--port", "x"]
            told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
            if "tls-port" not in told.stdout + told.stderr:
                return str(binary)
    raise NoTls


def make_certificates(folder: Path, valid: datetime.timedelta) -> None:
    """A CA, and a certificate by it for 127.0.0.1."""
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server")}
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test's CA")])
    for name, key in keys.items():
        subject = issuer if name == "ca" else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test's")])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(1))
        builder = builder.not_valid_after(now + valid)
        builder = builder.add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
        if name == "server":
            place = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([place]), critical=False)
        certificate = builder.sign(keys["ca"], hashes.SHA256())
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{name}.key").write_bytes(key.private_bytes(*pem))
