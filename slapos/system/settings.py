"""Settings files: INI, as `slapos.cfg` has always been, and the environment."""

import configparser
import os
import re
from collections.abc import Mapping
from pathlib import Path

from slapos.protocol.errors import InvalidConfiguration

DEFAULT_NODE_CONFIGURATION = "/etc/opt/slapos/slapos.cfg"
DEFAULT_CLIENT_CONFIGURATION = "~/.slapos/slapos-client.cfg"

#: What a build may see of the caller's environment: where programs are, how to reach the network,
#: and how the package installers were set up. Everything else stays out (slap-node.md §2.6).
PASSED_ON = ("PATH", "LANG", "TZ", "SOURCE_DATE_EPOCH")
PASSED_ON_LOWER_CASE = ("http_proxy", "https_proxy", "no_proxy", "ftp_proxy", "all_proxy")
PASSED_ON_PREFIXES = ("SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
#: Only for builds: the address of a package index may have a password in it.
INSTALLERS_PREFIXES = ("PIP_", "UV_")


def read_configuration(path: Path) -> dict[str, dict[str, str]]:
    """Read an INI file into sections of options, with no interpolation (a `%` is a `%`).

    Raises InvalidConfiguration when it cannot be read or is no INI file.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with path.expanduser().open(encoding="utf-8") as stream:
            parser.read_file(stream)
    except OSError as error:
        raise InvalidConfiguration(
            f"the configuration file {path} cannot be read: {error.strerror}; "
            "give another with --cfg"
        ) from error
    except (configparser.Error, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidConfiguration(f"{path} is not a settings file: {reason}") from error
    return {name: dict(parser[name]) for name in parser.sections()}


def parse_size(text: str) -> int:
    """Return bytes: `1000M`, `1.5 GiB`, `2 gigabyte`, `123`; K is 1024. Raises ValueError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)", text.strip())
    units = "bkmgtpezy"
    letter = match.group(2)[:1].lower() if match else ""
    if match is None or letter not in units:
        raise ValueError("it must be a size such as 1000M")
    return int(float(match.group(1)) * 1024 ** max(units.find(letter or "b"), 0))


def environment() -> Mapping[str, str]:
    """Return the environment of this process, read here and handed down."""
    return os.environ


def clean_environment(given: Mapping[str, str], *, installs: bool = True) -> dict[str, str]:
    """Return the part of an environment that builds may see; without `installs`, instances."""
    prefixes = PASSED_ON_PREFIXES + (INSTALLERS_PREFIXES if installs else ())
    kept = {
        name: value
        for name, value in given.items()
        if name in PASSED_ON or name.lower() in PASSED_ON_LOWER_CASE or name.startswith(prefixes)
    }
    kept.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    kept["PYTHONNOUSERSITE"] = "1"
    return kept
