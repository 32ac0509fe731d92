"""The settings of the full profile: the section `[slapos-master]` of its own settings file.

All there is to set is in KEYS: what is read, what `slapos master init` writes, and what the
reference lists. A new setting is a line there and a field of Settings with the same name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parseaddr
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from slapos.master.identity.caller import Role
from slapos.master.settings import (
    Profile,
    Rate,
    Settings,
    database_url,
    number_of_days,
    port_number,
    truth,
)
from slapos.protocol.errors import InvalidConfiguration

SECTION = "slapos-master"
#: Stands for all roles.
EVERYBODY = "everybody"


@dataclass(frozen=True)
class Key:
    """A setting: `read` gets its text, which is not empty, and the data directory.

    `default` is that text when the file says nothing; "" leaves the field as Settings has it.
    `about` is a sentence for who edits the file.
    """

    name: str
    default: str
    about: str
    read: Callable[[str, Path], Any]


def read_full_settings(
    configuration: Mapping[str, Mapping[str, str]],
    folder: Path,
    options: Mapping[str, str | None] | None = None,
) -> Settings:
    """Return the settings of the full profile; `folder` is where the settings file is.

    Options that are not None come before the file. Raises InvalidConfiguration, also for a key that
    nobody knows.
    """
    given = {key: text.strip() for key, text in configuration.get(SECTION, {}).items()}
    given |= {key: text for key, text in (options or {}).items() if text is not None}
    known = [key.name for key in KEYS]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidConfiguration(
            f"[{SECTION}] has {', '.join(unknown)}, which is no setting; "
            f"there are {', '.join(known)}"
        )
    data = _path(given.get(DATA_DIRECTORY) or DEFAULT_DATA, folder)
    values: dict[str, Any] = {}
    for key in KEYS:
        text = given.get(key.name) or key.default
        if text:
            values[key.name] = _read(key, text, data)
    values[DATA_DIRECTORY] = data
    values["database_url"] = values.pop("database_uri")
    settings = Settings(profile=Profile.FULL, **values)
    if (settings.certificate_file is None) != (settings.key_file is None):
        raise InvalidConfiguration(
            f"[{SECTION}] has one of certificate_file and key_file; they are set together"
        )
    openid = (settings.openid_issuer, settings.openid_client_id, settings.openid_client_secret_file)
    if any(openid) and not all(openid):
        raise InvalidConfiguration(
            f"[{SECTION}] has some of openid_issuer, openid_client_id and "
            "openid_client_secret_file; they are set together"
        )
    if any(mail := (settings.smtp_url, settings.mail_from)) and not all(
        (*mail, settings.public_url)
    ):
        raise InvalidConfiguration(
            f"[{SECTION}] has smtp_url or mail_from without the other, or without public_url: "
            "e-mail has links that begin with it"
        )
    return settings


def explained(values: Mapping[str, str]) -> str:
    """Return the text of a settings file: each setting with what it means; `values` are set."""
    lines = [f"[{SECTION}]"]
    for key in KEYS:
        lines.append(f"# {key.about}")
        if key.name in values:
            lines.append(f"{key.name} = {values[key.name]}")
        else:
            lines.append(f"# {key.name} = {key.default}".rstrip())
        lines.append("")
    return "\n".join(lines)


def _read(key: Key, text: str, data: Path) -> Any:
    try:
        return key.read(text, data)
    except ValueError as error:
        raise InvalidConfiguration(f"[{SECTION}] has {key.name} = {text}: {error}") from error


def _path(text: str, data: Path) -> Path:
    """Return a path; one that is not absolute is below the data directory."""
    return (data / Path(text).expanduser()).absolute()


def _database(text: str, data: Path) -> str:
    return database_url(text if "://" in text else str(_path(text, data)))


def _text(text: str, _data: Path) -> str:
    return text


def _port(text: str, _data: Path) -> int:
    return port_number(text)


def _tls(text: str, _data: Path) -> bool:
    return truth("tls", text)


def _key_delivery(text: str, _data: Path) -> bool:
    return truth("legacy_key_delivery", text)


def _count(text: str, _data: Path) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= 1000:
        raise ValueError("it must be a number from 1 to 1000")
    return number


def _url(text: str, _data: Path) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("it must be a URL such as https://master.example.com/")
    return text.rstrip("/") + "/"


def _mail_server(text: str, _data: Path) -> str:
    parts = urlsplit(text)
    is_whole = parts.scheme in ("smtp", "smtps") and parts.hostname and not parts.path.strip("/")
    if not is_whole or parts.query or parts.fragment:
        raise ValueError("it must be a URL such as smtp://NAME@mail.example.com:587")
    if parts.password is not None:
        raise ValueError("the password belongs into smtp_password_file")
    return text


def _sender(text: str, _data: Path) -> str:
    found = parseaddr(text)[1]
    if "@" not in found.strip("@") or not text.isprintable():
        raise ValueError("it must be an address such as SlapOS <master@example.com>")
    return text


def _issuer(text: str, _data: Path) -> str:
    if not text.startswith(("https://", "http://localhost:", "http://127.0.0.1:")):
        raise ValueError("it must be a URL that begins with https://")
    return text


def _networks(text: str, _data: Path) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(word) for word in text.replace(",", " ").split())


def _part_of_days(text: str, _data: Path) -> float:
    return number_of_days(text)


def _days(text: str, _data: Path) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 36500:
        raise ValueError("it must be a number of days")
    return int(text)


def _patience(text: str, _data: Path) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 30 <= number <= 86400:
        raise ValueError("it must be a number of seconds from 30 to 86400")
    return number


def _roles(text: str, _data: Path) -> frozenset[str]:
    words = frozenset(text.replace(",", " ").split())
    if words == {EVERYBODY}:
        return frozenset(Role)
    unknown = sorted(words - set(Role))
    if unknown:
        raise ValueError(f"{unknown[0]} is no role; there are {', '.join(Role)}, or {EVERYBODY}")
    return words


def _log_format(text: str, _data: Path) -> str:
    if text not in ("text", "json"):
        raise ValueError("it can be text or json")
    return text


def _rate(text: str, _data: Path) -> Rate | None:
    if text == "off":
        return None
    words = text.split()
    if len(words) != 2 or not all(word.replace(".", "", 1).isdecimal() for word in words):
        raise ValueError("it must be two numbers such as 100 1000, or off")
    per_second, burst = map(float, words)
    if per_second <= 0 or burst < 1:
        raise ValueError("so nobody could ask anything")
    return Rate(per_second, burst)


DATA_DIRECTORY = "data_directory"
#: Beside the settings file; `slapos master init` writes another one for a machine's own master.
DEFAULT_DATA = "slapos-master"

KEYS: tuple[Key, ...] = (
    Key(
        DATA_DIRECTORY,
        "",
        "Where the master keeps its files; other paths that are not absolute are below it.",
        _path,
    ),
    Key(
        "database_uri",
        "master.db",
        "The database: an SQLite file, or postgresql://USER:PASSWORD@HOST/NAME.",
        _database,
    ),
    Key(
        "secret_file",
        "secret",
        "The key of what is encrypted in the database: the same on all machines of a master.",
        _path,
    ),
    Key("host", "127.0.0.1", "The address to listen on; :: and 0.0.0.0 are all of them.", _text),
    Key("port", "8443", "The port to listen on; 0 is any that is free.", _port),
    Key("workers", "2", "How many web processes there are.", _count),
    Key("threads", "8", "How many requests one web process answers at a time.", _count),
    Key(
        "public_url",
        "",
        "How others reach the master, such as https://master.example.com:8443/.",
        _url,
    ),
    Key(
        "tls",
        "true",
        "Whether the web server speaks TLS; false behind another one that does.",
        _tls,
    ),
    Key(
        "certificate_file",
        "",
        "A certificate for TLS (PEM, with its chain) instead of one of our own authority.",
        _path,
    ),
    Key("key_file", "", "The key of that certificate (PEM).", _path),
    Key(
        "trusted_proxies",
        "",
        "Addresses or networks of web servers in front that end TLS and say who the client is.",
        _networks,
    ),
    Key(
        "node_lost_after",
        "60",
        "Seconds after which a silent node is lost; one that does not wait on the change feed, "
        "five times that.",
        _patience,
    ),
    Key("log_format", "text", "How the log is written: text or json.", _log_format),
    Key(
        "rate_limit",
        "100 1000",
        "Requests of one caller: a second in the long run, and at once; or off.",
        _rate,
    ),
    Key(
        "anonymous_rate_limit",
        "10 100",
        "Requests from one address of those who do not say who they are, in the same way.",
        _rate,
    ),
    Key(
        "second_factor_roles",
        "",
        "Roles that nobody uses without a second factor, such as administrator "
        "production_manager; or everybody.",
        _roles,
    ),
    Key(
        "metrics_token_file",
        "",
        "A file with the token for /metrics; without it, they are shown to this machine only.",
        _path,
    ),
    Key(
        "orphan_grace",
        "1",
        "Days until an instance that its requester asks for no more is destroyed.",
        _part_of_days,
    ),
    Key(
        "openid_issuer",
        "",
        "An OpenID provider that people may sign in at, such as https://login.example.com.",
        _issuer,
    ),
    Key("openid_client_id", "", "What the provider knows this master by.", _text),
    Key("openid_client_secret_file", "", "A file with the secret of that client.", _path),
    Key("openid_title", "", "What people know the provider by; its address otherwise.", _text),
    Key(
        "smtp_url",
        "",
        "A mail server for invitations, new passwords and notices, such as "
        "smtp://NAME@mail.example.com:587 (STARTTLS) or smtps://…; without it, links are shown "
        "or printed only.",
        _mail_server,
    ),
    Key("smtp_password_file", "", "A file with the password of NAME there.", _path),
    Key(
        "smtp_ca_file",
        "",
        "Authorities (PEM) that the mail server is checked by, instead of the system's.",
        _path,
    ),
    Key("mail_from", "", "Whom e-mail comes from, such as SlapOS <master@example.com>.", _sender),
    Key("audit_days", "400", "How long the audit log is kept.", _days),
    Key(
        "webhook_networks",
        "",
        "Where webhooks may be; without it, at public addresses by https only.",
        _networks,
    ),
    Key(
        "remote_networks",
        "",
        "Where masters behind remote nodes may be; without it, at public addresses by https only.",
        _networks,
    ),
    Key("webhook_days", "3", "A webhook that fails for so many days is disabled.", _days),
    Key(
        "legacy_key_delivery",
        "false",
        "Whether the master makes private keys for slapos.core's nodes, and sends them.",
        _key_delivery,
    ),
)
