"""A small master over real HTTP: answers what a test put in, and keeps what it is told."""

import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from slapos.protocol.marshal import dumps
from slapos.protocol.messages import NodeInformation, PartitionInformation, ReleaseAssignment
from tests.tls_server import TlsServer


class Link(Enum):
    """Where a connection is cut."""

    WHOLE = 0
    CUT_BEFORE = 1
    """Before the master takes anything in."""
    CUT_AFTER = 2
    """After it has taken all in, and before it says so."""


@dataclass
class FakeMaster:
    """`failures` maps a call to the (status, body) that it gets instead of an answer, `reaction`
    is called with what was told, and answers to questions wait for `release_answer`.

    With `takes_reports` it has the call for many reports at once: `reports` are those it counted,
    by id, without those with a value that is in `refused`; `batches` how many came in each request;
    `link` is asked what becomes of each request.
    """

    url: str = ""
    releases: list[ReleaseAssignment] = field(default_factory=list)
    partitions: dict[str, PartitionInformation] = field(default_factory=dict)
    told: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    connections: int = 0
    failures: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    release_answer: threading.Event | None = None
    has_feed: bool = False
    longest_wait: float = 60.0
    reaction: Callable[[str, dict[str, str]], None] = lambda call, form: None
    takes_reports: bool = False
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    link: Callable[[], Link] = lambda: Link.WHOLE
    context: ssl.SSLContext | None = None

    def certify(
        self, call: str, body: str, connection: socket.socket, authorization: str
    ) -> tuple[bytes, int] | None:
        """Answer what is about certificates, or refuse who shows none; None when it is neither."""
        return None

    def information(self) -> NodeInformation:
        return NodeInformation(
            reference="node",
            releases=tuple(self.releases),
            partitions=tuple(self.partitions.values()),
        )

    def calls(self, *names: str) -> list[str]:
        """What was told, as `call partition`, in order; only these calls if any are named."""
        return [
            " ".join(filter(None, (call, form.get("computer_partition_id"))))
            for call, form in self.told
            if not names or call in names
        ]

    def answer_reports(self, call: str, body: str) -> tuple[bytes, int]:
        """Return body and status. Raises ConnectionAbortedError where the connection is cut."""
        if not self.takes_reports or call in self.failures:
            return b"", 404
        link = self.link()
        answer = b"" if link is Link.CUT_BEFORE else json.dumps(self._take(body)).encode()
        if link is not Link.WHOLE:
            raise ConnectionAbortedError(link)
        return answer, 200

    def _take(self, body: str) -> dict[str, Any]:
        reports = json.loads(body)["reports"]
        self.batches.append(len(reports))
        taken, refused = [], []
        for report in reports:
            if self.refused & {str(value) for value in report.values()}:
                refused.append({"id": report["id"], "code": "conflict", "message": "not so"})
            else:
                self.reports.setdefault(report["id"], report)
                taken.append(report["id"])
        return {"taken": taken, "refused": refused}

    def counted(self, kind: str) -> list[dict[str, Any]]:
        return [report for report in self.reports.values() if report["kind"] == kind]

    def errors(self) -> list[str]:
        return [form["error_log"] for _, form in self.told if "error_log" in form]

    def answer_question(self, call: str, query: dict[str, list[str]]) -> tuple[bytes, int]:
        match call:
            case "v1/nodes/node/changes" if self.has_feed:
                return self.changes(query), 200
            case "getFullComputerInformation":
                return dumps(self.information().to_marshalled()), 200
            case "registerComputerPartition":
                name = query["computer_partition_reference"][0]
                return dumps(self.partitions[name].to_marshalled()), 200
            case "getComputerPartitionCertificate":
                return dumps({"key": "KEY", "certificate": "CERTIFICATE"}), 200
            case _:
                return b"", 404

    def changes(self, query: dict[str, list[str]]) -> bytes:
        """The feed's answer: once something has changed, or in its time."""
        wait = min(float(query.get("wait", ["60"])[0]), self.longest_wait)
        deadline = time.monotonic() + wait
        while True:
            document = dumps(self.information().to_marshalled())
            token = hashlib.md5(document, usedforsecurity=False).hexdigest()
            changed = [token] != query.get("since")
            if changed or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        told: dict[str, object] = {"token": token, "changed": changed}
        if changed:
            told |= {"information": document.decode(), "etag": token}
        return json.dumps(told).encode()


def _handler(master: FakeMaster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            master.connections += 1

        @property
        def _authorization(self) -> str:
            return self.headers.get("Authorization", "")

        def do_GET(self) -> None:
            call = urlsplit(self.path).path.strip("/")
            master.asked.append(call)
            if master.release_answer is not None:
                master.release_answer.wait(30)
            query = parse_qs(urlsplit(self.path).query)
            answer = master.certify(call, "", self.connection, self._authorization)
            self._answer(call, *(answer or master.answer_question(call, query)))

        def do_POST(self) -> None:
            call = urlsplit(self.path).path.strip("/")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            answer = master.certify(call, body, self.connection, self._authorization)
            if answer or call.startswith("v1/"):
                self._answer(call, *(answer or master.answer_reports(call, body)))
                return
            form = {name: values[-1] for name, values in parse_qs(body).items()}
            if call not in master.failures:
                master.told.append((call, form))
                master.reaction(call, form)
            self._answer(call, dumps(None))

        def _answer(self, call: str, body: bytes, status: int = 200) -> None:
            status, body = master.failures.get(call, (status, body))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    return Handler


@contextmanager
def running_master(master: FakeMaster | None = None) -> Iterator[FakeMaster]:
    master = master or FakeMaster()
    server = TlsServer(("127.0.0.1", 0), _handler(master))
    server.context = master.context
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    scheme = "https" if master.context else "http"
    master.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/"
    yield master
    server.shutdown()
    server.server_close()
    thread.join()
