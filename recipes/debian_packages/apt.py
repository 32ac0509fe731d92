"""apt, asked without root: the machine's sources, keyrings and proxies, our own state and cache."""

import hashlib
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

from slapos.protocol.errors import SlapOSError
from slapos.recipes.debian_packages.base_system import Base, filter_status
from slapos.recipes.debian_packages.lock import Package
from slapos.system.clock import Clock
from slapos.system.files import write_if_changed
from slapos.system.process_lock import process_lock
from slapos.system.runner import CommandFailed, Runner

MACHINE_STATUS = Path("/var/lib/dpkg/status")
MACHINE_LISTS = Path("/var/lib/apt/lists")

#: Package lists older than this are fetched again when the network may be used.
LISTS_FRESH = timedelta(days=1)
TIMEOUT = 1800.0

# 'http://…/jq_1.6%2bdeb12_amd64.deb' jq_1%3a1.6+deb12_amd64.deb 64432 SHA256:…
URI_LINE = re.compile(r"^'[^']*' (?P<file>\S+)_(?P<arch>[^_\s]+)\.deb \d+ SHA256:(?P<sha>\w{64})$")

CONFIGURATION = """\
Dir::State "{state}";
Dir::State::lists "{lists}";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
Acquire::ForceHash "SHA256";
APT::Update::Error-Mode "any";
APT::Sandbox::User "";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Invoke;
"""


class AptFailed(SlapOSError):
    """apt cannot do what was asked; the message says why in its words and what may help."""

    code = "apt_failed"


class DownloadFailed(AptFailed):
    """A package or a package list could not be fetched."""

    code = "download_failed"


@dataclass(frozen=True)
class Apt:
    """apt with its state in a folder of ours. `settings` are further `Name=value` of apt.conf."""

    folder: Path
    runner: Runner
    clock: Clock
    environment: Mapping[str, str]
    base: Base = Base.REQUIRED
    settings: tuple[str, ...] = ()
    offline: bool = False

    def architecture(self) -> str:
        """Return the architecture of this machine in Debian's words, such as amd64."""
        return self._run("dpkg", "--print-architecture").strip()

    def resolve(self, wanted: Sequence[str], *, recommends: bool = False) -> list[Package]:
        """Return the package files that `wanted` (`name` or `name=version`) need beyond the base.

        The machine's package lists are used while they are fresh, else our own. When apt does not
        find a package in them, they are fetched and it is asked once more. Raises AptFailed.
        """
        with process_lock(self.folder / "lock", patience=math.inf):
            lists = self._lists()
            try:
                return self._resolve(lists, wanted, recommends)
            except CommandFailed as error:
                failure = error
            if not self.offline and self._own_lists_age() > timedelta(minutes=1):
                self._update()
                try:
                    return self._resolve(self._own_lists, wanted, recommends)
                except CommandFailed as error:
                    failure = error
            raise AptFailed(self._explain(failure.output)) from failure

    def download(self, packages: Sequence[Package], into: Path) -> None:
        """Fetch package files into `into` as `<sha256>.deb`, leaving out those that are there.

        Raises DownloadFailed when one cannot be fetched or is not what its hash says; then our own
        package lists are fetched anew, since a package that is gone often means an old list.
        """
        missing = [package for package in packages if not (into / f"{package.sha256}.deb").exists()]
        if not missing:
            return
        names = ", ".join(str(package) for package in missing)
        if self.offline:
            raise DownloadFailed(f"offline, and not downloaded before: {names}")
        with process_lock(self.folder / "lock", patience=math.inf):
            arrivals = self.folder / "arrivals"
            shutil.rmtree(arrivals, ignore_errors=True)
            arrivals.mkdir(parents=True)
            wanted = [_specification(package) for package in missing]
            try:
                self._apt("apt-get", self._lists(), "-qq", "download", *wanted, cwd=arrivals)
            except CommandFailed as error:
                self._update()
                raise DownloadFailed(
                    f"cannot fetch {names}: {_errors(error.output)}; the package lists have been "
                    "fetched anew: run again, and if it stays so, see the network, the proxy and "
                    "the sources in /etc/apt"
                ) from error
            into.mkdir(parents=True, exist_ok=True)
            _put_in_place(arrivals, missing, into)
            shutil.rmtree(arrivals)

    def offered(self, name: str) -> list[str]:
        """Return the versions of a package that the sources offer."""
        try:
            output = self._apt("apt-cache", self._lists(), "madison", name)
        except CommandFailed:
            return []
        rows = [line.split("|") for line in output.splitlines()]
        return list(dict.fromkeys(row[1].strip() for row in rows if len(row) == 3))

    @property
    def _own_lists(self) -> Path:
        return self.folder / "lists"

    def _lists(self) -> Path:
        """Return the folder of package lists to use, after having fetched them where needed."""
        ages = {
            folder: age
            for folder, age in (
                (MACHINE_LISTS, self._age(MACHINE_LISTS)),
                (self._own_lists, self._own_lists_age()),
            )
            if _has_packages(folder)
        }
        best = min(ages, key=lambda folder: ages[folder], default=None)
        if best is not None and (self.offline or ages[best] < LISTS_FRESH):
            return best
        if self.offline:
            raise DownloadFailed(
                "offline, and there are no package lists yet: run once with the network, "
                "or use a lock file"
            )
        try:
            self._update()
        except DownloadFailed:
            if best is None:
                raise
            return best
        return self._own_lists

    def _update(self) -> None:
        try:
            self._apt("apt-get", self._own_lists, "-qq", "update")
        except CommandFailed as error:
            if not _has_packages(self._own_lists):
                raise DownloadFailed(
                    f"the package lists cannot be fetched: {_errors(error.output)}; see the "
                    "network, the proxy and the sources in /etc/apt (`apt-get update` must work)"
                ) from error
            return
        (self.folder / "updated").touch()

    def _own_lists_age(self) -> timedelta:
        return self._age(self.folder / "updated")

    def _age(self, path: Path) -> timedelta:
        """Return how long ago something was changed in `path` (or in its folder `partial`)."""
        changed = [p.stat().st_mtime for p in (path, path / "partial") if p.exists()]
        now = self.clock.now()
        if not changed:
            return timedelta.max
        return now - datetime.fromtimestamp(max(changed), now.tzinfo)

    def _resolve(self, lists: Path, wanted: Sequence[str], recommends: bool) -> list[Package]:
        output = self._apt(
            "apt-get",
            lists,
            "-qq",
            "--print-uris",
            "--reinstall",
            "--allow-downgrades",
            "--install-recommends" if recommends else "--no-install-recommends",
            "install",
            *wanted,
        )
        return sorted(_package(line) for line in output.splitlines() if line.startswith("'"))

    def _apt(self, program: str, lists: Path, *arguments: str, cwd: Path | None = None) -> str:
        (self.folder / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
        (self._own_lists / "partial").mkdir(parents=True, exist_ok=True)
        status = MACHINE_STATUS.read_text() if MACHINE_STATUS.exists() else ""
        write_if_changed(self.folder / "status", filter_status(status, self.base))
        configuration = self.folder / "apt.conf"
        write_if_changed(configuration, CONFIGURATION.format(state=self.folder, lists=lists))
        settings = [word for setting in self.settings for word in ("-o", setting)]
        return self._run(program, "-c", str(configuration), *settings, *arguments, cwd=cwd)

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        environment = {**self.environment, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        path = shutil.which(program, path=environment.get("PATH"))
        if path is None:
            raise AptFailed(
                f"there is no {program} on this machine: slapos:debian needs Debian, Ubuntu or "
                "another distribution with apt and dpkg"
            )
        result = self.runner.run(
            [path, *arguments], cwd=cwd or Path("/"), environment=environment, timeout=TIMEOUT
        )
        return result.output

    def _explain(self, output: str) -> str:
        unknown = re.findall(r"Unable to locate package (\S+)", output)
        unknown += re.findall(r"Package '(\S+)' has no installation candidate", output)
        versions = re.findall(r"Version '(\S+)' for '(\S+)' was not found", output)
        told = [
            f"apt knows no package {name}: see `apt-cache search {name}` and the sources in "
            "/etc/apt"
            for name in unknown
        ]
        told += [
            f"{name} {version} is not offered any more; the sources have "
            f"{', '.join(self.offered(name)) or 'no version of it'}"
            for version, name in versions
        ]
        return "; ".join(told) or f"apt cannot resolve the packages: {_errors(output)}"


def _package(line: str) -> Package:
    match = URI_LINE.match(line)
    if match is None:
        raise AptFailed(f"the archive gives no sha256 for a package, it cannot be checked: {line}")
    name, _, version = match["file"].partition("_")
    return Package(name, unquote(version), match["arch"], match["sha"])


def _specification(package: Package) -> str:
    return f"{package.name}:{package.architecture}={package.version}"


def _put_in_place(arrivals: Path, packages: Sequence[Package], into: Path) -> None:
    """Move what was downloaded to where its hash says, checking that it is what was asked for."""
    arrived = {sha256_of(path): path for path in arrivals.glob("*.deb")}
    for package in packages:
        path = arrived.pop(package.sha256, None)
        if path is None:
            found = ", ".join(f"{path.name} {sha}" for sha, path in arrived.items())
            raise DownloadFailed(
                f"the hash of {package} differs: {package.sha256} is expected, the archive gave "
                f"{found}; if that is meant, refresh the lock file"
            )
        path.replace(into / f"{package.sha256}.deb")


def sha256_of(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _has_packages(folder: Path) -> bool:
    return any(folder.glob("*_Packages*"))


def _errors(output: str) -> str:
    """Return what apt calls errors, in one line."""
    errors = [line[2:].strip() for line in output.splitlines() if line.startswith("E:")]
    return "; ".join(errors) or output.strip()[-500:]
