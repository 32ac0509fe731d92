"""Have the commands on this machine ask a master, as yourself.

With --email you sign in: a key is made here, and the master makes a certificate for it, which
renews itself while you use it. With --bearer a token of yours (from your account's page, or POST
/v1/tokens) is kept and shown instead: so these commands get no more rights than the token has. The
master is trusted as the system says, or by --fingerprint (whoever runs it can tell you: `slapos
master ca show`), or by --master-ca-file.

examples:
  slapos configure client --master https://master.example.com --email customer-1@example.com
  slapos configure client --master https://master.example.com --fingerprint 3f0c… --email …
  slapos configure client --master https://master.example.com --bearer --token - < token
  slapos configure client --master http://127.0.0.1:4000

exit status: 0 done, 1 refused or failed (all is as it was)
"""

import argparse
import json
import os
import re
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from slapos.command.secret_option import read_secret
from slapos.protocol.certificate import OURS, parse_certificate
from slapos.protocol.certificate_request import key_digest, make_request, subject_uri
from slapos.protocol.enrolment_client import EnrolmentClient
from slapos.protocol.errors import Conflict, Forbidden, InvalidConfiguration, MasterFailed
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.tls import NotTrusted
from slapos.system.clock import Clock, SystemClock
from slapos.system.credentials import check_bundle, check_issued, waiting_key
from slapos.system.files import sync_folder, write_if_changed
from slapos.system.process_lock import process_lock
from slapos.system.settings import (
    DEFAULT_CLIENT_CONFIGURATION,
    environment,
    read_configuration,
)
from slapos.system.settings_file import write_options
from slapos.system.trust import known_authority

FOLDER = "client"
_FINGERPRINT = re.compile(r"[0-9a-f]{32}(?:[0-9a-f]{32})?")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--master", "--master-url", required=True, metavar="URL", help="its URL")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--email", metavar="ADDRESS", help="sign in as the person with this address")
    who.add_argument("--token", metavar="TOKEN", help="yours; - reads it from standard input")
    parser.add_argument(
        "--password", choices=("-",), help="read the password of --email from standard input"
    )
    parser.add_argument(
        "--bearer", action="store_true", help="keep the token instead of getting a certificate"
    )
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--fingerprint", metavar="HEX", help="of the master's authority")
    trust.add_argument("--master-ca-file", metavar="FILE", help="the authority's certificate")
    parser.add_argument(
        "--cfg",
        metavar="FILE",
        help="the file that is written (default: $SLAPOS_CLIENT_CONFIGURATION, else "
        f"{DEFAULT_CLIENT_CONFIGURATION}); key and certificate are put into client/ beside it",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace what it says of another master or person"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Write the configuration."""
    named = arguments.cfg or environment().get("SLAPOS_CLIENT_CONFIGURATION")
    path = Path(named or DEFAULT_CLIENT_CONFIGURATION).expanduser().absolute()
    url = arguments.master.strip()
    is_local = _is_local(url)
    _check_present(path, url, force=arguments.force)
    os.umask(0o077)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = {}
    if arguments.email:
        password = read_secret(arguments.password, "password", "--password")
        written = _enter(arguments, path.parent / FOLDER, url, password=password)
    elif arguments.token is not None:
        token = read_secret(arguments.token, "token")
        written = _enter(arguments, path.parent / FOLDER, url, token=token)
    elif not is_local:
        raise InvalidConfiguration(f"say who you are to {url}: with --email, or --token")
    # What is not said here is said to be nothing: it would be of another master, or person.
    kept = ("key_file", "cert_file", "master_ca_file", "token_file")
    options = {"master_url": url, **{name: written.get(name, "") for name in kept}}
    write_options(path, "slapos", options, fresh="[slapos]\n", fresh_mode=0o600)
    _clear(path.parent / FOLDER)
    document = {"configuration": str(path), "master_url": url, **written}
    print(json.dumps(document, indent=2) if arguments.json else _text(document))
    return 0


def _is_local(url: str) -> bool:
    """Whether it is a master on this machine; raises InvalidConfiguration for what is not https."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return False
    if parts.scheme == "http" and parts.hostname in _LOOPBACK:
        return True
    raise InvalidConfiguration(
        f"a token is shown over https only, and {url} is not (http:// is for a master on this "
        "machine)"
    )


def _check_present(path: Path, url: str, *, force: bool) -> None:
    if force or not path.exists():
        return
    slapos = read_configuration(path).get("slapos", {})
    present = slapos.get("master_url", "").strip()
    if present.rstrip("/") not in ("", url.rstrip("/")):
        raise Conflict(f"{path} is for {present}: to replace that, use --force")


@dataclass(frozen=True, kw_only=True)
class _Trust:
    """How the master is known: the settings to ask it by, and its authority when we keep that."""

    settings: HttpSettings
    authority_file: Path | None = None
    is_kept: bool = False


def _enter(
    arguments: argparse.Namespace, folder: Path, url: str, *, token: str = "", password: str = ""
) -> dict[str, str]:
    """Keep the token, or get a certificate; return what the configuration is to say."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with process_lock(folder / ".lock"):
        trust = _trust(arguments, folder, url, SystemClock())
        with closing(HttpClient(replace(trust.settings, token=token))) as http:
            client = EnrolmentClient(http)
            if password:
                _request(http, "v1/authority")  # the password is for nobody else
                client.sign_in(arguments.email, password)
                try:
                    return _certified(client, folder, trust)
                finally:
                    client.sign_out()
            if not arguments.bearer:
                return _certified_by_token(client, folder, trust)
            _request(http, "v1/me")
        return _with_token(folder, token, trust)


def _certified_by_token(client: EnrolmentClient, folder: Path, trust: _Trust) -> dict[str, str]:
    try:
        return _certified(client, folder, trust)
    except Forbidden as error:
        raise Forbidden(
            f"{error}; use --email to sign in, or --bearer to keep the token itself"
        ) from error


def _trust(arguments: argparse.Namespace, folder: Path, url: str, clock: Clock) -> _Trust:
    settings = HttpSettings(base_url=url)
    if arguments.master_ca_file:
        path = Path(arguments.master_ca_file).expanduser().absolute()
        return _Trust(settings=replace(settings, authority_file=path), authority_file=path)
    if not arguments.fingerprint:
        return _Trust(settings=settings)
    wanted = arguments.fingerprint.strip().lower().replace(":", "")
    if not _FINGERPRINT.fullmatch(wanted):
        raise InvalidConfiguration("--fingerprint has 64 hexadecimal digits, or the first 32 of it")
    certificate = known_authority(settings, lambda found: found.startswith(wanted), clock)
    path = folder / "joining-authority.pem"
    write_if_changed(path, certificate)
    return _Trust(
        settings=replace(settings, authority_file=path), authority_file=path, is_kept=True
    )


def _request(http: HttpClient, path: str) -> bytes:
    try:
        return http.request("GET", path).content
    except NotTrusted as error:
        raise NotTrusted(f"{error} (or give --fingerprint, or --master-ca-file)") from error


def _certified(client: EnrolmentClient, folder: Path, trust: _Trust) -> dict[str, str]:
    """Get a certificate, and keep it with its key in a folder of its own."""
    _request(client.http, "v1/authority")  # nothing is made for a master that is not trusted
    key = waiting_key(folder / "joining.key")
    issued = client.own_certificate(make_request(key, "slapos"))
    uri = subject_uri(issued.certificate)
    reference = uri.removeprefix(f"{OURS}person:")
    if uri == reference or not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", reference):
        raise MasterFailed(f"the master sent a certificate of {uri or 'nobody'}: it is not used")
    check_issued(issued.certificate, key, uri)
    own = folder / f"{reference}-{key_digest(key)[:8]}"
    own.mkdir(mode=0o700, exist_ok=True)
    write_if_changed(own / "key.pem", key, mode=0o600)
    write_if_changed(own / "certificate.pem", issued.certificate, mode=0o600)
    said = {"key_file": str(own / "key.pem"), "cert_file": str(own / "certificate.pem")}
    if trust.is_kept:
        check_bundle(issued.authority)
        write_if_changed(own / "authority.pem", issued.authority, mode=0o600)
    sync_folder(own)
    return said | _authority(own, trust)


def _with_token(folder: Path, token: str, trust: _Trust) -> dict[str, str]:
    own = folder / "token"
    own.mkdir(mode=0o700, exist_ok=True)
    write_if_changed(own / "token", f"{token}\n", mode=0o600)
    if trust.is_kept and trust.authority_file is not None:
        authority = trust.authority_file.read_text()
        write_if_changed(own / "authority.pem", authority, mode=0o600)
    return {"token_file": str(own / "token")} | _authority(own, trust)


def _authority(own: Path, trust: _Trust) -> dict[str, str]:
    if trust.is_kept:
        return {"master_ca_file": str(own / "authority.pem")}
    return {"master_ca_file": str(trust.authority_file)} if trust.authority_file else {}


def _clear(folder: Path) -> None:
    for name in ("joining.key", "joining-authority.pem"):
        (folder / name).unlink(missing_ok=True)


def _text(document: dict[str, str]) -> str:
    lines = [f"{document['configuration']} says: ask {document['master_url']}"]
    if "cert_file" in document:
        certificate = parse_certificate(Path(document["cert_file"]).read_text())
        assert certificate is not None
        who = certificate.uri.rpartition(":")[2]
        lines.append(
            f"you are {who}, certificate until {certificate.not_after:%Y-%m-%d}, renewed in time "
            "while you use it"
        )
    elif "token_file" in document:
        lines.append(f"your token is kept in {document['token_file']}, and shown to this master")
    return "\n".join([*lines, "next: slapos service list"])
