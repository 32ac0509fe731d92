"""Where the master is and who asks: read once from a configuration file, handed down."""

import argparse
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slapos.protocol.errors import InvalidConfiguration
from slapos.system.clock import SystemClock
from slapos.system.settings import DEFAULT_CLIENT_CONFIGURATION, read_configuration

if TYPE_CHECKING:
    from slapos.protocol.hateoas_client import HateoasClient
    from slapos.protocol.slap_client import SlapClient

logger = logging.getLogger(__name__)

#: Seconds that a master gets to renew a certificate before the command goes on without.
RENEWAL_TIMEOUT = 10.0
#: Where `slapos standalone start` writes its configuration when it is not told otherwise.
STANDALONE_DIRECTORY = "~/.slapos/standalone"
ROOT_STANDALONE_DIRECTORY = "/srv/slapos/standalone"


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """What `[slapos]` (and `[slapconsole]`) say to one who asks a master.

    `node` and the two roots are there when the same file also configures a node.
    """

    path: Path
    master_url: str
    master_rest_url: str | None = None
    key_file: Path | None = None
    certificate_file: Path | None = None
    authority_file: Path | None = None
    token_file: Path | None = None
    node: str | None = None
    instance_root: Path | None = None
    software_root: Path | None = None

    @classmethod
    def read(cls, path: Path) -> "ClientSettings":
        """Read a configuration file; raises InvalidConfiguration."""
        sections = read_configuration(path)
        slapos = {**sections.get("slapos", {}), **sections.get("slapconsole", {})}
        master_url = slapos.get("master_url", "").strip()
        if not master_url:
            raise InvalidConfiguration(f"{path} has no master_url in its section [slapos]")
        settings = cls(
            path=path,
            master_url=master_url,
            master_rest_url=slapos.get("master_rest_url") or None,
            key_file=_path(slapos.get("key_file")),
            certificate_file=_path(slapos.get("cert_file")),
            authority_file=_path(slapos.get("master_ca_file")),
            token_file=_path(slapos.get("token_file")),
            node=slapos.get("computer_id") or None,
            instance_root=_path(slapos.get("instance_root")),
            software_root=_path(slapos.get("software_root")),
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Raise InvalidConfiguration when the URL, key, certificate or authority is amiss."""
        if not self.master_url.startswith(("http://", "https://")):
            raise InvalidConfiguration(
                f"{self.path}: master_url has to begin with http:// or https://, not be "
                f"{self.master_url!r}"
            )
        if (self.key_file is None) != (self.certificate_file is None):
            raise InvalidConfiguration(f"{self.path}: key_file and cert_file go together")
        files = (self.key_file, self.certificate_file, self.authority_file, self.token_file)
        for file in files:
            if file is not None and not file.is_file():
                raise InvalidConfiguration(f"{self.path} names {file}, which is not there")

    def token(self) -> str:
        """Return the token that is shown to the master, empty without one.

        Raises InvalidConfiguration when others can read it.
        """
        if self.token_file is None:
            return ""
        if self.token_file.stat().st_mode & 0o077:
            raise InvalidConfiguration(
                f"{self.token_file} can be read by others: chmod 0600 {self.token_file}; if they "
                "may have, revoke the token and make another"
            )
        return self.token_file.read_text().strip()

    def partition_directory(self, node: str | None, partition: str | None) -> Path | None:
        """Return where a partition is on this machine, None when it is elsewhere or not there."""
        if not partition or self.instance_root is None or node != self.node:
            return None
        directory = self.instance_root / partition
        return directory if directory.is_dir() else None


def add_configuration_argument(parser: argparse.ArgumentParser) -> None:
    """Add --cfg."""
    parser.add_argument(
        "--cfg",
        metavar="FILE",
        help="the configuration, which names the master (default: the environment's "
        f"SLAPOS_CLIENT_CONFIGURATION, else {DEFAULT_CLIENT_CONFIGURATION}, else that of "
        "`slapos standalone`)",
    )


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="answer in JSON on stdout")


def client_settings(
    arguments: argparse.Namespace, environment: Mapping[str, str]
) -> ClientSettings:
    """Return the settings of the first configuration that there is.

    Raises InvalidConfiguration, also when there is none at all.
    """
    named = arguments.cfg or environment.get("SLAPOS_CLIENT_CONFIGURATION")
    if named:
        return ClientSettings.read(Path(named).expanduser())
    candidates = [
        Path(name).expanduser()
        for name in (
            DEFAULT_CLIENT_CONFIGURATION,
            environment.get("SLAPOS_CONFIGURATION", ""),
            f"{default_standalone_directory()}/etc/slapos.cfg",
        )
        if name
    ]
    for path in candidates:
        if path.is_file():
            return ClientSettings.read(path)
    raise InvalidConfiguration(
        "no master is configured: `slapos standalone start` starts one on this machine; for "
        "another, name a configuration file that has master_url in its section [slapos] with "
        "--cfg or in the environment's SLAPOS_CLIENT_CONFIGURATION "
        f"(there is no {' and no '.join(map(str, candidates))})"
    )


def default_standalone_directory() -> Path:
    """Return where a standalone of this user is unless told otherwise."""
    directory = STANDALONE_DIRECTORY if os.geteuid() else ROOT_STANDALONE_DIRECTORY
    return Path(directory).expanduser()


def connect(settings: ClientSettings) -> "SlapClient":
    """Return the client of the master."""
    # Imported here: HTTP and XML take longer to import than some commands to run.
    from slapos.protocol.http_client import HttpClient, HttpSettings  # noqa: PLC0415
    from slapos.protocol.slap_client import SlapClient  # noqa: PLC0415

    _renew(settings)
    return SlapClient(
        HttpClient(
            HttpSettings(
                base_url=settings.master_url,
                key_file=settings.key_file,
                certificate_file=settings.certificate_file,
                authority_file=settings.authority_file,
                token=settings.token(),
            )
        )
    )


def _renew(settings: ClientSettings) -> None:
    """Renew the certificate of a person when that is due; what fails is only said."""
    if settings.certificate_file is None or not settings.master_url.startswith("https://"):
        return
    from slapos.system.credentials import Credentials, keep_current  # noqa: PLC0415

    credentials = Credentials.renewable(
        settings.master_url,
        settings.key_file,
        settings.certificate_file,
        settings.authority_file,
        timeout=RENEWAL_TIMEOUT,
    )
    # Whose files these are keeps them up to date: another user could not write them.
    if credentials is not None and os.access(credentials.certificate_file.parent, os.W_OK):
        for trouble in keep_current(credentials, SystemClock()):
            logger.warning("the certificate is not renewed: %s", trouble)


def connect_hateoas(client: "SlapClient", settings: ClientSettings) -> "HateoasClient":
    """Return the client of the master's hateoas answers."""
    from slapos.protocol.hateoas_client import HateoasClient  # noqa: PLC0415

    return HateoasClient(client, settings.master_rest_url)


def _path(value: str | None) -> Path | None:
    return Path(value).expanduser() if value else None
