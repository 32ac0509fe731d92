"""The buildout that runs: upstream's, with our reading of profiles and our options."""

import hashlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import zc.buildout.buildout as upstream
import zc.buildout.configparser as upstream_parser
import zc.buildout.download
import zc.buildout.easy_install
from zc.buildout import UserError

from slapos.recipes.buildout.download import Download
from slapos.recipes.buildout.eggs import Installer
from slapos.recipes.buildout.options import Options as TypedOptions
from slapos.recipes.buildout.profiles import ProfileReader
from slapos.recipes.buildout.values import dumps, loads, to_option
from slapos.system.files import write_if_changed

pkg_resources = upstream.pkg_resources
#: What the node writes into [buildout], whether recipes of the release read it or not.
OF_THE_NODE = ("shared-part-list", "build-time-part-list")
INSTALLED_FILES = "__buildout_installed__"
_save_text = upstream._save_option

SCRIPT = """\
#!{python}
import sys

from slapos.recipes.buildout.main import main

sys.exit(main())
"""


class Buildout(upstream.Buildout):  # type: ignore[misc]
    """A buildout whose profiles are read once, and whose options may be any value."""

    Options = TypedOptions

    def __init__(self, *args: Any, **named: Any) -> None:
        self._constructing: list[TypedOptions] = []
        self._signatures: dict[str, str] = {}
        reader = ProfileReader()
        self._places = reader.places
        with _profiles_read_by(reader):
            super().__init__(*args, **named)
        # Used, though it is for releases to read: a node writes it for all of them.
        self["buildout"].get("build-time-part-list")

    # For the sections.

    def place_of(self, section: str) -> str | None:
        """Return the profile in which a section stands, None for one made at run time."""
        return self._places.get(section)

    def source_of(self, section: str, option: str = "") -> str | None:
        """Return the profile that set an option, or in which the section stands."""
        annotated = self._annotated.get(section, {}) if hasattr(self, "_annotated") else {}
        key = annotated.get(option)
        return key.source if key is not None else self.place_of(section)

    @contextmanager
    def constructing(self, options: TypedOptions) -> Iterator[None]:
        """Note what `options`' recipe reads of other sections while it is constructed."""
        self._constructing.append(options)
        try:
            yield
        finally:
            self._constructing.pop()

    def note_reading(self, options: TypedOptions, option: str, text: str) -> None:
        """Take note that an option is read; [buildout] is left out: it changes with -N and -v."""
        if not self._constructing or options.name == "buildout":
            return
        reader = self._constructing[-1]
        if reader is not options:
            reader.note_reading(options.name, option, text)

    def __setitem__(self, name: str, data: Mapping[str, Any]) -> None:
        super().__setitem__(name, {option: to_option(value) for option, value in data.items()})

    def preset(self, section: str, values: Mapping[str, Any]) -> None:
        """Set options of a section before its recipe is constructed."""
        if section in self._data:
            raise UserError(
                f"[{section}] is in use already, before its options could be set: refer to it "
                "through the section that sets them"
            )
        if section not in self._raw:
            raise upstream.MissingSection(section)
        # Dumped, so that nothing in a value is taken for a reference.
        self._raw[section].update({option: dumps(value) for option, value in values.items()})

    # Part signatures and .installed.cfg.

    def _compute_part_signatures(self, parts: list[str]) -> None:
        """Let a part be installed again when its recipe's packages, or what it read, changed.

        Upstream hashes the whole directory that a package of pip's lies in: all of site-packages.
        """
        for part in parts:
            options = self.get(part)
            if options is None:
                options = self[part] = {}
            package, _ = upstream._recipe(options)
            read = options.digest_of_reads()
            options["__buildout_signature__"] = " ".join(
                word for word in (self._signature(package), read) if word
            )

    def _signature(self, package: str) -> str:
        if package not in self._signatures:
            wanted = pkg_resources.Requirement.parse(package)
            try:
                distributions = pkg_resources.working_set.resolve([wanted])
            except pkg_resources.ResolutionError as error:
                raise UserError(f"the package {package} lacks what it needs: {error}") from error
            self._signatures[package] = " ".join(sorted({*map(_package_signature, distributions)}))
        return self._signatures[package]

    def _read_installed_part_options(self) -> tuple[dict[str, Any], bool]:
        try:
            _check_whole(Path(self["buildout"]["installed"]))
            installed, exists = super()._read_installed_part_options()
        except (upstream_parser.Error, ValueError) as error:
            self._put_list_aside(error)
            installed, exists = super()._read_installed_part_options()
        self._installed: dict[str, Any] = installed
        return installed, exists

    def _put_list_aside(self, error: Exception) -> None:
        """Begin a new list of what is installed: all parts are installed again, over the old."""
        path = self["buildout"]["installed"]
        os.replace(path, f"{path}.damaged")
        self._logger.warning(
            "%s was damaged, all parts are installed again; it is kept as %s.damaged: parts in it "
            "that are wanted no more have left their files (%s)",
            path,
            path,
            error,
        )

    def _uninstall_part(self, part: str, installed: dict[str, Any]) -> None:
        try:
            super()._uninstall_part(part, installed)
        except UserError as error:
            # Its recipe is not there any more, or fails: the part has to go all the same.
            self._logger.warning("Uninstalling %s without its recipe: %s", part, error)
            self._uninstall(installed[part][INSTALLED_FILES])

    def _update_installed(self, **buildout_options: str) -> None:
        changed = self._installed["buildout"]
        # That parts change places in the list is written once, at the end: see install().
        same_parts = set(changed["parts"].split()) == set(
            buildout_options.get("parts", changed["parts"]).split()
        )
        only_parts = set(buildout_options) == {"parts"}
        for option, value in buildout_options.items():
            changed[option] = value
        if not (same_parts and only_parts):
            self._save_installed_options(self._installed)

    def _save_installed_options(self, installed_options: dict[str, Any]) -> None:
        path = self["buildout"]["installed"]
        if not path:
            return
        content = io.StringIO()
        names = ["buildout", *installed_options["buildout"]["parts"].split()]
        for number, name in enumerate(names):
            content.write("\n" if number else "")
            kept = installed_options[name].copy()
            if name in self._data and self._data[name].removed:
                files = kept[INSTALLED_FILES].split("\n")
                kept[INSTALLED_FILES] = "\n".join(
                    path for path in files if path not in self._data[name].removed
                )
            upstream._save_options(name, kept, content)
        text = content.getvalue()
        write_if_changed(Path(path), f"{_header(text.encode())}\n{text}", mode=0o600)

    # Commands.

    def install(self, args: Any) -> None:
        """Install the parts."""
        for option in OF_THE_NODE:  # upstream warns of options that nobody reads
            self["buildout"].get(option)
        super().install(args)
        if os.path.exists(self["buildout"]["installed"]):
            self._save_installed_options(self._installed)

    def bootstrap(self, args: Any) -> None:
        """Make the directories and a `bin/buildout` that runs this buildout again."""
        self._setup_directories()
        script = Path(self["buildout"]["bin-directory"]) / "buildout"
        write_if_changed(script, SCRIPT.format(python=sys.executable), mode=0o755)
        logging.getLogger("zc.buildout").info("Generated script %r.", str(script))

    def _maybe_upgrade(self) -> None:
        """Leave buildout as it is: it belongs to the node and is upgraded with it."""


def _header(content: bytes) -> str:
    return f"# sha256 of what follows: {hashlib.sha256(content).hexdigest()}"


def _check_whole(path: Path) -> None:
    """See that a list of what is installed is as it was written.

    Half of a path may be a folder that must not be removed. Raises ValueError. A list of before
    there was a digest, or of another buildout, is taken as it is if it has its first section.
    """
    if not path.is_file():
        return
    head, _, content = path.read_bytes().partition(b"\n")
    if head.startswith(b"# sha256 "):
        if head.decode(errors="replace") != _header(content):
            raise ValueError("it is not as it was written")
    elif b"[buildout]" not in head + content:
        raise ValueError("it has no section [buildout]")


def _package_signature(distribution: Any) -> str:
    installed = os.path.basename(distribution.location) in ("site-packages", "dist-packages")
    if installed or isinstance(distribution, pkg_resources.DistInfoDistribution):
        return f"{distribution.key}-{distribution.version}"
    return str(upstream._dists_sig([distribution])[0])


@contextmanager
def _profiles_read_by(reader: ProfileReader) -> Iterator[None]:
    original = upstream._open
    upstream._open = reader
    try:
        yield
    finally:
        upstream._open = original


def _save_option(option: str, value: Any, stream: IO[str]) -> None:
    _save_text(option, to_option(value), stream)


def take_place() -> None:
    """Let upstream's command line, and recipes that ask upstream's modules, use what is here."""
    upstream.Buildout = Buildout
    upstream.dumps, upstream.loads = dumps, loads
    upstream._save_option = _save_option
    zc.buildout.download.Download = Download
    zc.buildout.easy_install.Installer = Installer
