"""`slapos:debian`: Debian or Ubuntu packages, with what they depend on, unpacked into a part.

The machine's own apt says what is needed and fetches it; nothing is installed and no root is
needed.

Options:
`packages`: one a line, `name` or `name = version`.
`lock`: a lock file (path, or URL); then exactly what it says for this distribution is unpacked.
    `buildout buildout:refresh-locks=true` writes it anew.
`base`: what the machine provides: `required` (default: what every installation has), `installed`
    (all that is installed here), `none`.
`exclude`: names of packages not to unpack.
`recommends`: `true` to take recommended packages as well.
`shared`: `true` to keep the part in the `shared-part-list`.
`cache-directory`: where downloads are kept. `apt-options`: further settings of apt, `Name=value`.

Exported: `location`; `bin`: wrappers of all programs, which set what they need; `library-path`;
`environment`: lines `NAME=value` for a wrapper of one's own.
"""

import logging
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from platform import freedesktop_os_release

from slapos.protocol.errors import InvalidConfiguration
from slapos.recipes.debian_packages.apt import Apt, AptFailed, sha256_of
from slapos.recipes.debian_packages.base_system import C_LIBRARY, Base
from slapos.recipes.debian_packages.lock import Package, differences, read_lock, write_lock
from slapos.recipes.debian_packages.tree import Tree
from slapos.recipes.fetch import from_folder, read_text
from slapos.recipes.part import (
    PartFailed,
    Sections,
    cache_directory,
    choose_part,
    explained,
    is_offline,
    is_true,
    lines,
    words,
)
from slapos.system.clock import SystemClock
from slapos.system.files import write_if_changed
from slapos.system.runner import CommandFailed, SystemRunner
from slapos.system.settings import clean_environment, environment

REFRESH = "refresh-locks"
HOW_TO_REFRESH = f"refresh the lock with `buildout buildout:{REFRESH}=true`"


class Recipe:
    """One part of Debian packages."""

    def __init__(self, buildout: Sections, name: str, options: MutableMapping[str, str]) -> None:
        self.name = name
        self._log = logging.getLogger(name)
        self._runner = SystemRunner()
        self._environment = clean_environment(environment())
        self._cache = cache_directory(buildout, options, "debian")
        with explained(name):
            self._wanted = _wanted(options.get("packages", ""))
            self._excluded = set(words(options.get("exclude", "")))
            self._recommends = is_true(options.get("recommends", "false"))
            self._apt = Apt(
                folder=self._cache / "apt",
                runner=self._runner,
                clock=SystemClock(),
                environment=self._environment,
                base=_base(options.get("base", Base.REQUIRED)),
                settings=tuple(lines(options.get("apt-options", ""))),
                offline=is_offline(buildout, options),
            )
            self._architecture = self._apt.architecture()
            lock = options.get("lock", "").strip()
            self._lock = lock and from_folder(lock, buildout["buildout"]["directory"])
            shared = is_true(options.get("shared", "false"))
            self._packages: list[Package] | None = None
            if self._lock:
                refresh = is_true(buildout["buildout"].get(REFRESH, "false"))
                self._packages = self._refreshed() if refresh else self._locked()
            elif shared:
                # The place of a shared part says which versions are in it.
                self._packages = self._resolve(self._wanted)
            self._part = choose_part(buildout, name, options, self._signature())
        tree = Tree(self._part.location, self._architecture)
        options["location"] = str(tree.root)
        options["bin"] = str(tree.wrappers)
        options["library-path"] = tree.library_path
        options["environment"] = tree.environment

    def install(self) -> list[str]:
        """Make the part, unless it is there; return what belongs to it alone."""
        with explained(self.name):
            return self._part.build(self._fill)

    update = install

    def _signature(self) -> dict[str, object]:
        packages = self._packages
        return {
            "recipe": "slapos:debian",
            "platform": self._platform,
            "wanted": self._wanted,
            "base": self._apt.base,
            "excluded": sorted(self._excluded),
            "recommends": self._recommends,
            "packages": None if packages is None else [f"{p} {p.sha256}" for p in packages],
        }

    @property
    def _platform(self) -> str:
        release = freedesktop_os_release()
        codename = release.get("VERSION_CODENAME") or release.get("VERSION_ID") or release["ID"]
        return f"{codename}/{self._architecture}"

    @property
    def _files(self) -> Path:
        return self._cache / "packages"

    def _resolve(self, wanted: Sequence[str]) -> list[Package]:
        found = self._apt.resolve(wanted, recommends=self._recommends)
        if self._apt.base is Base.NONE:
            self._excluded.update(C_LIBRARY)
        packages = [package for package in found if package.name not in self._excluded]
        for package in packages:
            if package.name in C_LIBRARY:
                raise AptFailed(
                    f"the packages need {package}, newer than the C library of this machine: "
                    "upgrade the machine (`apt-get upgrade`)"
                )
        return packages

    def _locked(self) -> list[Package]:
        text = read_text(self._lock, self._cache / "locks", offline=self._apt.offline)
        packages = read_lock(text, self._lock, self._platform)
        if packages is None:
            raise AptFailed(
                f"the lock {self._lock} says nothing of {self._platform}: {HOW_TO_REFRESH} "
                "on such a machine"
            )
        versions = {package.name: package.version for package in packages}
        for wish in self._wanted:
            name, _, version = wish.partition("=")
            if name not in versions or version not in ("", versions[name]):
                raise AptFailed(
                    f"`packages` asks for {wish}, which the lock {self._lock} does not have for "
                    f"{self._platform}: {HOW_TO_REFRESH}"
                )
        return packages

    def _refreshed(self) -> list[Package]:
        packages = self._resolve(self._wanted)
        self._apt.download(packages, self._files)
        path = Path(self._lock)
        before = path.read_text() if path.exists() else ""
        write_if_changed(path, write_lock(before, self._platform, packages))
        self._log.info("%s written: %d packages for %s", path, len(packages), self._platform)
        return packages

    def _check_lock(self, locked: Sequence[Package]) -> None:
        """Raise AptFailed unless apt says that the locked packages are offered, and enough."""
        try:
            found = self._resolve([f"{p.name}={p.version}" for p in locked])
        except AptFailed as error:
            raise AptFailed(
                f"the lock {self._lock} does not hold: {error}; {HOW_TO_REFRESH}"
            ) from error
        if told := differences(locked, found):
            raise AptFailed(
                f"the lock {self._lock} does not hold: {'; '.join(told)}; {HOW_TO_REFRESH}"
            )

    def _fill(self, location: Path) -> None:
        packages = self._packages
        if packages is None:
            packages = self._resolve(self._wanted)
        missing = [p for p in packages if not (self._files / f"{p.sha256}.deb").exists()]
        if missing:
            if self._lock:
                self._check_lock(packages)
            self._log.info("fetching %d of %d packages", len(missing), len(packages))
            self._apt.download(missing, self._files)
        for package in packages:
            self._unpack(package, location)
        tree = Tree(location, self._architecture)
        tree.finish()
        self._log.info("%d packages unpacked: %s", len(packages), ", ".join(map(str, packages)))

    def _unpack(self, package: Package, location: Path) -> None:
        file = self._files / f"{package.sha256}.deb"
        if sha256_of(file) != package.sha256:
            file.unlink()
            raise AptFailed(f"{file} ({package}) is damaged and was removed: run again")
        command = ["dpkg-deb", "-x", str(file), str(location)]
        try:
            self._runner.run(command, cwd=location, environment=self._environment)
        except CommandFailed as error:
            raise PartFailed(
                f"{self.name}: {package} cannot be unpacked into {location}: {error.output[-500:]}"
            ) from error


def _wanted(text: str) -> list[str]:
    """Return what `packages` asks for, as apt writes it: `name` or `name=version`."""
    wanted = ["=".join(word.strip() for word in line.split("=", 1)) for line in lines(text)]
    if not wanted:
        raise InvalidConfiguration("the option `packages` names no package")
    return sorted(wanted)


def _base(text: str) -> Base:
    try:
        return Base(text.strip())
    except ValueError:
        raise InvalidConfiguration(f"base = {text}: it is one of {', '.join(Base)}") from None
