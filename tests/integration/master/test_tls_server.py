"""The web server's TLS, and web servers in front: real connections, real certificates."""

import base64
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from flask import Flask

from slapos.master.app import create_app
from slapos.master.certificates import authorities, joining
from slapos.master.certificates import service as certificates
from slapos.master.certificates.authorities import Issuing
from slapos.master.certificates.authority import key_text
from slapos.master.certificates.views import BOX
from slapos.master.http import Assembly
from slapos.master.identity.caller import SYSTEM, serve
from slapos.master.identity.model import Project
from slapos.master.secret_file import make_secret_file
from slapos.master.settings import Profile, Settings
from slapos.protocol.certificate_request import make_key, make_request
from slapos.system.clock import SystemClock
from slapos.system.files import write_if_changed
from slapos.system.identifier import SystemIdentifiers
from tests.integration.master.web_server import served


def application(settings: Settings, tmp_path: Path, **more: Any) -> Flask:
    secret = tmp_path / "secret"
    make_secret_file(secret, SystemIdentifiers())
    full = Settings(
        database_url=settings.database_url, profile=Profile.FULL, secret_file=secret, **more
    )
    app = create_app(full)
    in_session(app, lambda session: authorities.ensure_authority(session, issuing(app)))
    return app


def issuing(app: Flask) -> Issuing:
    return Issuing(SystemClock(), app.extensions[BOX])


def in_session(app: Flask, work: Callable[[Any], Any]) -> Any:
    parts: Assembly = app.extensions["slapos"]
    with parts.database.writing() as session:
        serve(session, SYSTEM)
        result = work(session)
        session.commit()
        return result


@dataclass
class Machine:
    """A node: its key and certificate in a folder, and the authorities that it trusts."""

    folder: Path
    reference: str = ""

    @classmethod
    def join(cls, app: Flask, folder: Path) -> "Machine":
        """Make one of a machine."""
        folder.mkdir()
        (folder / "key.pem").write_text(make_key())
        made = cls(folder)

        def work(session: Any) -> joining.Joined:
            project = session.get(Project, 1)
            name, identifiers = folder.name, SystemIdentifiers()
            text, _ = joining.make_join_token(session, issuing(app), identifiers, project, name)
            return joining.join(session, issuing(app), text, name, made.request())

        joined = in_session(app, work)
        made.reference = joined.node.reference
        made.take(joined.issued.certificate, joined.issued.authority)
        return made

    def request(self) -> str:
        """Return a certificate request for its key."""
        return make_request((self.folder / "key.pem").read_text(), "x")

    def take(self, certificate: str, authority: str) -> None:
        """Keep what it has been given."""
        write_if_changed(self.folder / "certificate.pem", certificate)
        write_if_changed(self.folder / "authority.pem", authority)

    def ask(self, method: str, url: str, **more: Any) -> requests.Response:
        """Ask over a connection of its own."""
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(self.folder / "authority.pem")
            session.cert = (
                str(self.folder / "certificate.pem"),
                str(self.folder / "key.pem"),
            )
            return session.request(method, url, timeout=30, **more)

    @property
    def certificate(self) -> x509.Certificate:
        """Its certificate."""
        return x509.load_pem_x509_certificate((self.folder / "certificate.pem").read_bytes())


def test_a_client_is_who_its_certificate_says(settings: Settings, tmp_path: Path) -> None:
    app = application(settings, tmp_path, tls=True)
    machine = Machine.join(app, tmp_path / "edge")
    with served(app) as port:
        url = f"https://127.0.0.1:{port}/"
        me = machine.ask("GET", f"{url}v1/nodes/{machine.reference}")
        assert me.json()["reference"] == machine.reference
        without = requests.Session()
        without.trust_env = False
        without.verify = str(machine.folder / "authority.pem")
        assert without.get(f"{url}v1/nodes", timeout=30).status_code == 401
        forged = base64.b64encode(machine.certificate.public_bytes(Encoding.DER)).decode()
        answer = without.get(f"{url}v1/nodes", headers={"X-SSL-Client-Cert": forged}, timeout=30)
        assert answer.status_code == 401
        with pytest.raises(requests.exceptions.SSLError):
            without.get(f"{url}v1/nodes", verify=True, timeout=30)
        without.close()


def test_an_authority_is_changed_and_no_call_fails(settings: Settings, tmp_path: Path) -> None:
    app = application(settings, tmp_path, tls=True)
    machines = [Machine.join(app, tmp_path / f"edge{number}") for number in range(3)]
    over, failed, calls = threading.Event(), [], []

    def work(machine: Machine, url: str) -> None:
        """Ask, and renew each few calls, as a node does each few days."""
        count = 0
        while not over.is_set():
            count += 1
            try:
                answer = machine.ask("GET", f"{url}v1/nodes/{machine.reference}")
                if answer.status_code == 200 and count % 5 == 0:
                    asked = {"certificate_request": machine.request()}
                    answer = machine.ask("POST", f"{url}v1/certificates/renewals", json=asked)
                    if answer.status_code == 201:
                        machine.take(answer.json()["certificate"], answer.json()["authority"])
                if answer.status_code >= 400:
                    failed.append(answer.text)
            except requests.RequestException as error:
                failed.append(str(error))
            calls.append(machine.reference)

    with served(app, glance=0.2) as port:
        url = f"https://127.0.0.1:{port}/"
        threads = [threading.Thread(target=work, args=(each, url)) for each in machines]
        for thread in threads:
            thread.start()
        old = in_session(app, lambda s: authorities.active_authority(s, SystemClock()).fingerprint)
        soon = timedelta(seconds=2)
        in_session(app, lambda s: authorities.rotate(s, issuing(app), soon))
        try:
            until(lambda: all(_signer(each) != _first(machines, app, old) for each in machines))
            in_session(app, lambda s: authorities.retire(s, SystemClock(), old))
            so_far = len(calls)
            until(lambda: len(calls) > so_far + 60)
        finally:
            over.set()
            for thread in threads:
                thread.join(60)
    assert failed == []
    assert len(calls) > 100


def _signer(machine: Machine) -> bytes:
    found = machine.certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert found.value.key_identifier is not None
    return found.value.key_identifier


def _first(machines: list[Machine], app: Flask, fingerprint: str) -> bytes:
    def work(session: Any) -> bytes:
        for each in authorities.trusted(session):
            if each.fingerprint == fingerprint:
                found = x509.load_pem_x509_certificate(each.certificate.encode())
                digest: bytes = found.extensions.get_extension_for_class(
                    x509.SubjectKeyIdentifier
                ).value.digest
                return digest
        raise AssertionError("it is not trusted any more")

    result: bytes = in_session(app, work)
    return result


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_trusted_web_server_says_who_the_client_is(settings: Settings, tmp_path: Path) -> None:
    app = application(settings, tmp_path, trusted_proxies=(ip_network("127.0.0.1"),))
    machine = Machine.join(app, tmp_path / "edge")
    pem = (machine.folder / "certificate.pem").read_text()
    forms = {
        "nginx": quote(pem, safe=""),
        "haproxy": base64.b64encode(machine.certificate.public_bytes(Encoding.DER)).decode(),
    }
    with served(app) as port:
        url = f"http://127.0.0.1:{port}/v1/nodes/{machine.reference}"
        for form in forms.values():
            answer = requests.get(url, headers={"X-SSL-Client-Cert": form}, timeout=30)
            assert answer.status_code == 200, answer.text
        twice = (f"{form},{form}" for form in forms.values())
        for wrong in ("x", "", forms["nginx"] * 2, *twice):
            answer = requests.get(url, headers={"X-SSL-Client-Cert": wrong}, timeout=30)
            assert answer.status_code == 401, answer.text


def test_nobody_else_says_who_the_client_is(settings: Settings, tmp_path: Path) -> None:
    app = application(settings, tmp_path, trusted_proxies=(ip_network("192.0.2.0/24"),))
    machine = Machine.join(app, tmp_path / "edge")
    form = base64.b64encode(machine.certificate.public_bytes(Encoding.DER)).decode()
    names = ("X-SSL-Client-Cert", "X_SSL_Client_Cert", "SLAPOS.CLIENT_CERTIFICATE")
    with served(app) as port:
        url = f"http://127.0.0.1:{port}/v1/nodes/{machine.reference}"
        for name in names:
            answer = requests.get(url, headers={name: form}, timeout=30)
            assert answer.status_code == 401, answer.text
        forwarded = {"X-Forwarded-For": "192.0.2.1", "X-SSL-Client-Cert": form}
        assert requests.get(url, headers=forwarded, timeout=30).status_code == 401


NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server-key.pem;
    ssl_client_certificate {folder}/authority.pem;
    ssl_verify_client optional;
    location / {{
      proxy_pass http://127.0.0.1:{master};
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
      proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
      proxy_read_timeout 90;
    }}
  }}
}}
"""


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_nginx_in_front(settings: Settings, tmp_path: Path, free_port: int) -> None:
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("there is no nginx on this machine")
    app = application(settings, tmp_path, trusted_proxies=(ip_network("127.0.0.1"),))
    machine = Machine.join(app, tmp_path / "edge")
    key = ec.generate_private_key(ec.SECP256R1())
    issued = in_session(
        app,
        lambda s: certificates.issue_server(s, issuing(app), ["127.0.0.1"], key.public_key()),
    )
    folder = tmp_path / "nginx"
    folder.mkdir()
    (folder / "server.pem").write_text(issued.certificate)
    (folder / "server-key.pem").write_text(key_text(key))
    (folder / "authority.pem").write_text(issued.authority)
    with served(app) as master:
        (folder / "nginx.conf").write_text(
            NGINX.format(folder=folder, port=free_port, master=master)
        )
        words = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as nginx:
            try:
                url = f"https://127.0.0.1:{free_port}/"
                until(lambda: _answers(machine, f"{url}v1/health"))
                answer = machine.ask("GET", f"{url}v1/nodes/{machine.reference}")
                assert answer.status_code == 200, answer.text
                # What the client itself says in that header does not get through.
                other = Machine.join(app, tmp_path / "other")
                form = base64.b64encode(other.certificate.public_bytes(Encoding.DER)).decode()
                headers = {"X-SSL-Client-Cert": form}
                answer = machine.ask("GET", f"{url}v1/nodes/{other.reference}", headers=headers)
                assert answer.status_code == 404, answer.text
                changes = machine.ask("GET", f"{url}v1/nodes/{machine.reference}/changes").json()
                waited = (
                    f"{url}v1/nodes/{machine.reference}/changes?since={changes['token']}&wait=1"
                )
                assert machine.ask("GET", waited).json()["changed"] is False
            finally:
                nginx.terminate()
                nginx.communicate(timeout=30)


def _answers(machine: Machine, url: str) -> bool:
    try:
        return machine.ask("GET", url).status_code == 200
    except requests.RequestException:
        return False
