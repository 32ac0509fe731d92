"""The master's settings, read once at the start and handed down.

Those of the local profile come from the sections `[slapos]`, `[slapproxy]` and
`[multimaster/<url>]` of a settings file, and options of the command line come first; those of the
full profile are in `full_settings.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from slapos.protocol.errors import InvalidConfiguration

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 5000
MULTIMASTER = "multimaster/"


class Profile(StrEnum):
    """Whom a master serves: one person on one machine, or everybody who has an account."""

    LOCAL = "local"
    FULL = "full"


@dataclass(frozen=True)
class Rate:
    """So many requests a second in the long run, and so many at once."""

    per_second: float
    burst: float


@dataclass(frozen=True, kw_only=True)
class OtherMaster:
    """A master that requests may be forwarded to."""

    url: str
    key_file: Path | None = None
    certificate_file: Path | None = None
    #: The partition of that master on whose behalf is requested; without it, as its user.
    node: str | None = None
    partition: str | None = None
    #: Requests for these releases always go there.
    release_urls: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator can set."""

    database_url: str
    #: Who may ask: everybody who reaches it (LOCAL), or who has signed in or shows a certificate.
    profile: Profile = Profile.LOCAL
    default_node: str = "computer"
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    threads: int = 8
    #: Whether requesting an instance also supplies its release; slapproxy waits for `supply`.
    supply_on_request: bool = False
    #: Software product → URL of its release.
    software_products: Mapping[str, str] = field(default_factory=dict)
    local_release_root: Path | None = None
    other_masters: tuple[OtherMaster, ...] = ()
    #: Days until an instance that its requester asks for no more is destroyed.
    orphan_grace: float = 1.0

    # Of the full profile; what each means is said in full_settings.py.
    data_directory: Path | None = None
    secret_file: Path | None = None
    public_url: str = ""
    workers: int = 1
    node_lost_after: int = 60
    tls: bool = False
    certificate_file: Path | None = None
    key_file: Path | None = None
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    log_format: str = "text"
    rate_limit: Rate | None = None
    anonymous_rate_limit: Rate | None = None
    second_factor_roles: frozenset[str] = frozenset()
    metrics_token_file: Path | None = None
    audit_days: int = 400
    openid_issuer: str = ""
    openid_client_id: str = ""
    openid_client_secret_file: Path | None = None
    openid_title: str = ""
    smtp_url: str = ""
    smtp_password_file: Path | None = None
    smtp_ca_file: Path | None = None
    mail_from: str = ""
    webhook_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    webhook_days: int = 3
    remote_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    legacy_key_delivery: bool = False


def read_settings(
    configuration: Mapping[str, Mapping[str, str]], options: Mapping[str, str | None]
) -> Settings:
    """Return the settings of a configuration, overridden by `options` that are not None.

    Keys, in either: database_uri, computer_id, host, port, software_product_list,
    local_software_release_root, supply_on_request, orphan_grace. Raises InvalidConfiguration.
    """
    merged: dict[str, str] = {}
    for section in ("slapos", "slapproxy"):
        merged |= configuration.get(section, {})
    merged |= {name: value for name, value in options.items() if value is not None}
    database = merged.get("database_uri", "").strip()
    if not database:
        raise InvalidConfiguration(
            "no database is named: set database_uri in [slapproxy], or give --database-uri"
        )
    root = merged.get("local_software_release_root", "").strip()
    return Settings(
        database_url=database_url(database),
        default_node=merged.get("computer_id", "").strip() or "computer",
        host=merged.get("host", "").strip() or DEFAULT_HOST,
        port=port_number(merged.get("port", "").strip()),
        supply_on_request=truth("supply_on_request", merged.get("supply_on_request", "")),
        software_products=_products(merged.get("software_product_list", "")),
        local_release_root=Path(root).absolute() if root else None,
        orphan_grace=_orphan_grace(merged.get("orphan_grace", "").strip()),
        other_masters=tuple(
            _other_master(name.removeprefix(MULTIMASTER), section)
            for name, section in configuration.items()
            if name.startswith(MULTIMASTER)
        ),
    )


def database_url(uri: str) -> str:
    """Return the URL of a database that is named by a URL or by the path of an SQLite file."""
    if "://" not in uri:
        return f"sqlite:///{Path(uri).expanduser().absolute()}"
    scheme, rest = uri.split("://", 1)
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"
    if scheme.split("+")[0] not in ("sqlite", "postgresql"):
        raise InvalidConfiguration(
            f"database_uri begins with {scheme}://; "
            "a path, sqlite:///… and postgresql://… can be used"
        )
    return uri


def truth(key: str, text: str) -> bool:
    """Return whether a setting says true; nothing is false. Raises InvalidConfiguration."""
    word = text.strip().lower()
    if word not in ("", "true", "false"):
        raise InvalidConfiguration(f"{key} is {text!r}; it can be true or false")
    return word == "true"


def port_number(text: str) -> int:
    """Return a setting's port, the default for nothing. Raises InvalidConfiguration."""
    try:
        port = int(text or DEFAULT_PORT)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise InvalidConfiguration(f"port is {text!r}, which is no port number (0 to 65535)")
    return port


def number_of_days(text: str) -> float:
    """Return a number of days, which may have a fraction; raises ValueError."""
    if not text.replace(".", "", 1).isdecimal() or float(text) > 36500:
        raise ValueError("it must be a number of days, such as 1 or 0.5")
    return float(text)


def _orphan_grace(text: str) -> float:
    try:
        return number_of_days(text) if text else Settings.orphan_grace
    except ValueError as error:
        raise InvalidConfiguration(f"orphan_grace is {text!r}: {error}") from error


def _products(text: str) -> dict[str, str]:
    products = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, url = line.partition(" ")
        if not url.strip():
            raise InvalidConfiguration(
                f"software_product_list has the line {line!r}; each is a product, a space, a URL"
            )
        products[name] = url.strip()
    return products


def _other_master(url: str, section: Mapping[str, str]) -> OtherMaster:
    key, certificate = section.get("key"), section.get("cert")
    return OtherMaster(
        url=url,
        key_file=Path(key) if key else None,
        certificate_file=Path(certificate) if certificate else None,
        node=section.get("computer"),
        partition=section.get("partition"),
        release_urls=tuple(
            filter(None, map(str.strip, section.get("software_release_list", "").splitlines()))
        ),
    )
