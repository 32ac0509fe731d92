"""A node, and a person, of a real master with its own authority: programs, TLS, certificates."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from slapos.command.client_settings import ClientSettings
from slapos.node.enrolment.node_certificate import node_credentials
from slapos.node.settings import read_node_settings
from slapos.protocol.certificate import read_certificate
from slapos.protocol.errors import SlapOSError
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient
from slapos.system.clock import SystemClock
from slapos.system.credentials import refresh_authority, renew
from tests.fakes import FakeClock
from tests.integration.master.test_master_commands import configured, master, started
from tests.integration.node.world import IS_ROOT, NOBODY, until

EMAIL, PASSWORD = "customer-1@example.com", "correct horse battery staple"


@dataclass
class Site:
    """A master that runs, and its first project's production manager."""

    cfg: Path
    url: str
    session: requests.Session
    project: str = ""

    @property
    def authority(self) -> str:
        return str(self.cfg.parent / "authority.pem")

    def ask(self, method: str, path: str, **body: object) -> dict[str, object]:
        answer = self.session.request(
            method, f"{self.url}v1/{path}", json=body or None, timeout=20, verify=self.authority
        )
        assert answer.ok, answer.text
        found: dict[str, object] = answer.json() if answer.content else {}
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    cfg = configured(folder, str(folder / "master.db"))
    cfg.write_text(cfg.read_text().replace("tls = false", "tls = true"))
    assert master("init", cfg=cfg).returncode == 0
    invited = json.loads(
        master("user", "invite", EMAIL, "--role", "administrator", "--json", cfg=cfg).stdout
    )
    (folder / "authority.pem").write_text(master("ca", "show", "--pem", cfg=cfg).stdout)
    with started(cfg) as (url, _), requests.Session() as session:
        site = Site(cfg, url, session)
        token = invited["link"].partition("token=")[2]
        site.ask("POST", "invitations/acceptance", token=token, name="one", password=PASSWORD)
        site.project = str(site.ask("POST", "projects", title="first")["reference"])
        yield site


def slapos(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "slapos.command", *words],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=120,
        check=False,
    )


def registered(site: Site, folder: Path, name: str = "edge") -> Path:
    """Register a node, format it, and return its settings file."""
    made = site.ask("POST", "nodes/join-tokens", title=name, project=site.project)
    path = folder / "slapos.cfg"
    path.write_text(
        f"[slapos]\nsoftware_root = {folder}/soft\ninstance_root = {folder}/inst\n"
        "root_check = false\n\n[slapformat]\npartition_amount = 2\nalter_user = false\n"
        "ipv4_local_network = 127.0.201.0/24\n"
    )
    words = ("--master", site.url, "--token", "-", "--name", name, "--cfg", str(path))
    done = slapos("node", "register", *words, stdin=str(made["token"]))
    assert done.returncode == 0, done.stderr
    formatted = slapos("node", "format", "--now", "--cfg", str(path))
    assert formatted.returncode == 0, formatted.stderr
    return path


def asked(path: Path) -> int:
    """Ask the master as the node, and return how many partitions it has there."""
    settings = read_node_settings(path, {})
    found = node_credentials(settings)
    assert found is not None
    with closing(HttpClient(found.http_settings())) as http:
        return len(SlapClient(http).node_information(settings.computer_id).partitions)


def test_a_node_joins_works_renews_and_is_turned_away_when_it_is_revoked(
    site: Site, tmp_path: Path
) -> None:
    path = registered(site, tmp_path)
    assert asked(path) == 2
    settings = read_node_settings(path, {})
    found = node_credentials(settings)
    assert found is not None
    before = found.certificate_file.read_bytes()
    renew(found, SystemClock())
    assert found.certificate_file.read_bytes() != before
    assert asked(path) == 2
    assert slapos("node", "software", "--cfg", str(path)).returncode == 0
    doctor = slapos("node", "doctor", "--cfg", str(path)).stdout
    assert re.search(r"^ok +certificates .* renewed from", doctor, re.MULTILINE), doctor
    assert re.search(r"^ok +master", doctor, re.MULTILINE), doctor

    assert master("ca", "rotate", cfg=site.cfg).returncode == 0
    assert refresh_authority(found)
    assert found.authority_file is not None
    assert found.authority_file.read_text().count("BEGIN CERTIFICATE") == 2
    assert asked(path) == 2

    assert master("ca", "revoke", settings.computer_id, cfg=site.cfg).returncode == 0
    with pytest.raises(SlapOSError):
        asked(path)
    with pytest.raises(SlapOSError):
        renew(found, SystemClock())


def test_a_node_comes_back_by_its_key_alone(site: Site, tmp_path: Path) -> None:
    path = registered(site, tmp_path, "sleeper")
    found = node_credentials(read_node_settings(path, {}))
    assert found is not None
    before = found.certificate_file.read_bytes()
    renew(found, FakeClock(found.certificate().not_after))
    assert found.certificate_file.read_bytes() != before
    assert asked(path) == 2


def test_a_person_signs_in_for_a_certificate_and_asks_by_it(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "client.cfg"
    words = ("configure", "client", "--master", site.url, "--cfg", str(path))
    shown = json.loads(master("ca", "show", "--json", cfg=site.cfg).stdout)
    fingerprint = re.search(r"[0-9a-f]{64}", json.dumps(shown))
    assert fingerprint is not None
    trust = ("--fingerprint", fingerprint.group())
    options = (*trust, "--email", EMAIL, "--password", "-")
    assert slapos(*words, *options, stdin="wrong").returncode == 1
    done = slapos(*words, *options, stdin=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert ClientSettings.read(path).certificate_file is not None
    listed = slapos("service", "list", "--cfg", str(path))
    assert listed.returncode == 0, listed.stderr

    end = (SystemClock().now() + timedelta(days=1)).isoformat()
    made = site.ask("POST", "tokens", title="program", scopes=["read"], expires_at=end)
    (text,) = [v for v in made.values() if isinstance(v, str) and v.startswith("slapos_")]
    refused = slapos(*words, *trust, "--token", "-", stdin=text)
    assert "--bearer to keep the token" in refused.stderr
    done = slapos(*words, *trust, "--bearer", "--token", "-", stdin=text)
    assert done.returncode == 0, done.stderr
    listed = slapos("service", "list", "--cfg", str(path))
    assert listed.returncode == 0, listed.stderr


RELEASE = "http://example.com/hello/software.cfg"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="slapfull-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_an_instance_gets_a_certificate_through_its_node_and_asks_by_it(
    site: Site, place: Path, tmp_path: Path
) -> None:
    path = registered(site, place, "holder")
    for partition in (place / "inst").glob("slappart*"):
        if IS_ROOT:  # nothing is run as root
            os.chown(partition, NOBODY.pw_uid, NOBODY.pw_gid)
    settings = read_node_settings(path, {})
    words = ("--project", site.project, "--url", RELEASE, "--type", "default", "--publish")
    added = master("product", "add", "hello", *words, "--json", cfg=site.cfg)
    product = re.search(r"PROD-[0-9]+", added.stdout)
    assert product is not None, added.stderr
    supply = ("--project", site.project, "--product", product.group(), "--all-nodes")
    for each in (
        ("supply", "add", "all", *supply),
        ("node", "set", settings.computer_id, "--scope", "open"),
    ):
        done = master(*each, cfg=site.cfg)
        assert done.returncode == 0, done.stderr
    client = tmp_path / "client.cfg"
    signing = ("--master-ca-file", site.authority, "--email", EMAIL, "--password", "-")
    done = slapos(
        *("configure", "client", "--master", site.url, "--cfg", str(client), *signing),
        stdin=PASSWORD,
    )
    assert done.returncode == 0, done.stderr
    built(settings.layout.release(RELEASE))
    slapos("node", "software", "--cfg", str(path))
    # Machines of other tests are in the supply, too.
    here = ("--node", f"computer_guid={settings.computer_id}")
    order = ("request", "hello", RELEASE, *here, "--no-check", "--cfg", str(client))
    asked_for = slapos(*order)
    assert asked_for.returncode in (0, 2), asked_for.stderr
    try:
        passed = slapos("node", "instance", "--cfg", str(path))
        assert passed.returncode == 0, passed.stdout + passed.stderr
    finally:
        slapos("node", "supervisorctl", "--cfg", str(path), "shutdown")
        until(lambda: not settings.layout.supervisor_pid_file.exists(), "supervisord ends")
    folder = settings.certificate_repository_path
    assert folder is not None
    (certificate,) = folder.glob("*.crt")
    found = read_certificate(certificate)
    assert found is not None
    assert found.uri.startswith("slapos:instance:SOFTINST-")
    shown = HttpSettings(
        base_url=settings.master_url,
        key_file=certificate.with_suffix(".key"),
        certificate_file=certificate,
        authority_file=settings.master_ca_file,
    )
    with closing(HttpClient(shown)) as http:
        who = (settings.computer_id, certificate.stem)
        assert SlapClient(http).partition_information(*who).title == "hello"


def built(folder: Path) -> None:
    """Make a release that is built already, and whose instances are empty."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "buildout").write_text("#!/bin/sh\n")
    (folder / "instance.cfg").write_text("[buildout]\nparts =\n")
    (folder / ".completed").touch()
    (folder / "bin" / "buildout").chmod(0o755)
