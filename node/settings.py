"""The settings of a node: `[slapos]` and `[slapformat]` of slapos.cfg, and options over them.

Every key that slapos.cfg has ever had is known, with `-` or `_` in it; keys whose work is not done
(yet) are read and left alone. A key that nobody knows is warned of.
"""

import difflib
import ipaddress
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from slapos.node.isolate.limits import NAMES as LIMITS
from slapos.node.isolate.limits import PREFIX as LIMIT
from slapos.node.isolate.limits import PartitionLimits, parse_limit
from slapos.node.layout import Layout
from slapos.node.monitor.address import read_address
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.settings import parse_size, read_configuration

logger = logging.getLogger(__name__)

Settings = TypeVar("Settings")
Sections = Mapping[str, Mapping[str, str]]

#: Known keys of [slapos] and [slapformat] that this node has no use for.
UNUSED = frozenset(
    {
        *("master_rest_url", "buildout", "power_user_list", "signature_private_key_file"),
        *("manager_list", "console", "log_file", "bridge_name", "no_bridge"),
        *("computer_model_id", "heating_sensor_id"),
        *("supervisord_socket", "supervisord_configuration_path"),
    }
)

#: More threads than these would only wait for each other.
MOST_WORKERS = 100


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """What `slapos node run|software|instance|report|promise` and supervisord need to know.

    Times are in seconds, sizes in bytes; a time limit of 0 is none.
    """

    computer_id: str
    master_url: str
    software_root: Path
    instance_root: Path
    key_file: Path | None = None
    cert_file: Path | None = None
    master_ca_file: Path | None = None
    certificate_repository_path: Path | None = None
    shared_part_list: tuple[Path, ...] = ()
    build_time_part_list: tuple[Path, ...] = ()
    software_min_free_space: int = 1000 * 1024**2
    instance_min_free_space: int = 1000 * 1024**2
    ipv4_global_network: str = ""
    instance_storage_home: str = ""
    maximum_periodicity: int = 86400
    promise_timeout: float = 20.0
    instance_workers: int = 4
    build_workers: int = 1
    promise_workers: int = 4
    poll_interval: float = 15.0
    usage_interval: float = 3600.0
    older_state_patience: float = 600.0
    # Passes process partitions one after the other: one that hangs must not stop all others.
    partition_timeout: float = 3600.0
    software_timeout: float = 21600.0
    request_timeout: float = 60.0
    monitor_interval: float = 60.0
    disk_usage_interval: float = 3600.0
    collect_cache: int = 15
    metrics_listen: str = ""
    maximal_delay: int = 0
    forbid_supervisord_automatic_launch: bool = False
    root_check: bool = True
    develop: bool = False
    force_stop: bool = False
    only_sr: tuple[str, ...] = ()
    only_cp: tuple[str, ...] = ()
    partition_memory: int | None = None
    partition_cpu: float | None = None
    partition_processes: int | None = None
    partition_open_files: int | None = None
    partition_memory_maximum: int | None = None
    partition_cpu_maximum: float | None = None
    partition_processes_maximum: int | None = None
    partition_open_files_maximum: int | None = None
    firewall: bool = False
    pidfile: Path | None = None
    pidfile_software: Path | None = None
    pidfile_instance: Path | None = None
    pidfile_report: Path | None = None

    @property
    def layout(self) -> Layout:
        """Return where things are."""
        return Layout(self.software_root, self.instance_root)

    @property
    def partition_limits(self) -> PartitionLimits:
        """Return what a partition may use whose release and order ask for nothing else."""
        return PartitionLimits(**{name: getattr(self, LIMIT + name) for name in LIMITS})

    @property
    def partition_maximum(self) -> PartitionLimits:
        """Return what no partition may go beyond."""
        most = {name: getattr(self, f"{LIMIT}{name}_maximum") for name in LIMITS}
        return PartitionLimits(**most)

    def lock(self, kind: str) -> Path:
        """Return the lock file of the command `sr`, `cp` or `ur`."""
        named = {
            "sr": self.pidfile_software,
            "cp": self.pidfile_instance,
            "ur": self.pidfile_report,
        }
        return named[kind] or self.pidfile or self.layout.default_pidfile(kind)


@dataclass(frozen=True, kw_only=True)
class FormatSettings:
    """What `slapos node format` needs to know besides what `[slapos]` says of the node."""

    computer_id: str
    master_url: str
    software_root: Path
    instance_root: Path
    key_file: Path | None = None
    cert_file: Path | None = None
    master_ca_file: Path | None = None
    certificate_repository_path: Path | None = None
    request_timeout: float = 60.0
    partition_amount: int
    partition_base_name: str = "slappart"
    user_base_name: str = "slapuser"
    tap_base_name: str = ""
    create_tap: bool = True
    tap_gateway_interface: str = ""
    tap_ipv6: bool = True
    create_tun: bool = False
    tun_ipv6: bool = True
    interface_name: str = ""
    ipv6_interface: str = ""
    ipv6_prefixshift: int = 16
    partition_has_ipv6_range: bool = True
    ipv4_local_network: ipaddress.IPv4Network | None = None
    alter_user: bool = True
    alter_network: bool = True
    software_user: str = "slapsoft"
    instance_storage_home: str = ""
    computer_xml: Path | None = None
    computer_json: Path | None = None
    input_definition_file: Path | None = None
    output_definition_file: Path | None = None
    root_check: bool = True
    maximal_delay: int = 0
    dry_run: bool = False

    @property
    def on_interfaces(self) -> bool:
        """Tell whether addresses are to be added to interfaces."""
        return bool(
            self.alter_network and self.interface_name and self.input_definition_file is None
        )

    @property
    def makes_taps(self) -> bool:
        """Tell whether each partition gets a tap interface."""
        return self.create_tap and bool(self.tap_base_name)

    @property
    def layout(self) -> Layout:
        """Return where things are."""
        return Layout(self.software_root, self.instance_root)


#: What passes, the agent and `node format` know alike: who this is, and where its master is.
Registration = NodeSettings | FormatSettings


def read_node_settings(
    path: Path, options: Mapping[str, Any], *, quiet: bool = False
) -> NodeSettings:
    """Read the settings of the node; an option that is not None goes before the file.

    Keys that are not known are warned of unless `quiet`. Raises InvalidConfiguration.
    """
    sections = read_configuration(path)
    given = _normal(sections.get("slapos", {}))
    if options.get("pidfile"):  # else the file's own pidfile_software and so on would win over it
        for name in ("pidfile_software", "pidfile_instance", "pidfile_report"):
            given.pop(name, None)
    settings = _build(NodeSettings, given | _chosen(options), f"[slapos] of {path}")
    if not quiet:
        _warn_of_unknown(sections, path)
    return _checked(settings, path)


def read_format_settings(path: Path, options: Mapping[str, Any]) -> FormatSettings:
    """Read what `node format` needs: `[slapformat]`, over it `[slapos]`, over it the options.

    Raises InvalidConfiguration.
    """
    sections = read_configuration(path)
    given = _normal(sections.get("slapformat", {})) | _normal(sections.get("slapos", {}))
    for gone in ("bridge_name", "no_bridge"):
        if gone in given:
            raise InvalidConfiguration(f"{gone} in {path}: bridges are no more, remove the key")
    _warn_of_unknown(sections, path)
    where = f"[slapformat] of {path}"
    definition = _path(
        str(
            _chosen(options).get("input_definition_file")
            or given.get("input_definition_file")
            or ""
        )
    )
    if "partition_amount" not in given and definition is not None:
        names = read_configuration(definition)
        given["partition_amount"] = str(sum(name.startswith("partition_") for name in names))
    return _build(FormatSettings, given | _chosen(options), where)


def _normal(section: Mapping[str, str]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in section.items()}


def _chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _build(kind: type[Settings], given: Mapping[str, Any], where: str) -> Settings:
    values: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        raw = given.get(field.name)
        if raw is None or raw == "":
            if field.default is MISSING:
                raise InvalidConfiguration(f"{field.name} is missing: set it in {where}")
            continue
        values[field.name] = _convert(field.name, str(field.type), raw, where)
    return kind(**values)


def _convert(name: str, kind: str, raw: Any, where: str) -> Any:
    if not isinstance(raw, str):
        return raw
    try:
        if name in _LIMIT_KEYS:
            return parse_limit(_LIMIT_KEYS[name], raw)
        if name.endswith("min_free_space"):
            return parse_size(raw)
        return _CONVERTERS[kind](raw.strip())
    except ValueError as error:
        raise InvalidConfiguration(f"{name} = {raw} in {where}: {error}") from error


#: The keys that are limits, with the limit that each is.
_LIMIT_KEYS = {f"{LIMIT}{name}{end}": name for name in LIMITS for end in ("", "_maximum")}


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError("it must be true or false")
    return words[text.lower()]


def _path(text: str) -> Path | None:
    return Path(os.path.abspath(os.path.expanduser(text))) if text else None


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(path for line in text.splitlines() if (path := _path(line.strip())))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in re.split(r"[,\s]+", text) if (name := part.strip()))


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("it must be a whole number") from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("it must be a number of seconds") from None
    if not 0 <= value < float("inf"):
        raise ValueError("it must be a number of seconds, 0 or more")
    return value


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    str(str): str,
    str(int): _number,
    str(float): _seconds,
    str(bool): _boolean,
    str(Path): _path,
    str(Path | None): _path,
    str(tuple[Path, ...]): _paths,
    str(tuple[str, ...]): _names,
    str(ipaddress.IPv4Network | None): lambda text: ipaddress.IPv4Network(text, strict=False),
}


def _checked(settings: NodeSettings, path: Path) -> NodeSettings:
    for name in ("instance_workers", "build_workers", "promise_workers"):
        if not 0 < getattr(settings, name) <= MOST_WORKERS:
            raise InvalidConfiguration(
                f"{name} = {getattr(settings, name)} in [slapos] of {path}: it must be 1 to "
                f"{MOST_WORKERS}"
            )
    for name, least in (("poll_interval", 0.1), ("usage_interval", 1.0)):
        if getattr(settings, name) < least:
            raise InvalidConfiguration(f"{name} in [slapos] of {path} must be {least:g} or more")
    pair = (settings.key_file, settings.cert_file)
    if any(pair) and not (all(pair) and settings.certificate_repository_path):
        raise InvalidConfiguration(
            f"key_file, cert_file and certificate_repository_path go together: give all three in "
            f"[slapos] of {path}, or none"
        )
    if settings.collect_cache < 1:
        raise InvalidConfiguration(f"collect_cache in [slapos] of {path} must be 1 day or more")
    try:
        read_address(settings.metrics_listen)
    except ValueError as error:
        raise InvalidConfiguration(
            f"metrics_listen = {settings.metrics_listen} in [slapos] of {path}: {error}"
        ) from error
    for file in (*pair, settings.master_ca_file):
        if file is not None and not file.is_file():
            raise InvalidConfiguration(f"{file}, named in {path}, is no file")
    return settings


def unknown_keys(path: Path) -> list[str]:
    """Return what is to be said of keys that nobody knows. Raises InvalidConfiguration."""
    return _unknown(read_configuration(path), path)


def _warn_of_unknown(sections: Sections, path: Path) -> None:
    for said in _unknown(sections, path):
        logger.warning("%s", said)


def _unknown(sections: Sections, path: Path) -> list[str]:
    known = {field.name for kind in (NodeSettings, FormatSettings) for field in fields(kind)}
    known |= UNUSED
    found = []
    for section in ("slapos", "slapformat"):
        for name in _normal(sections.get(section, {})):
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                found.append(f"{name} in [{section}] of {path} is not known{hint}")
    return found
