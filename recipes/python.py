"""`slapos:python`: a virtual environment from a locked requirements file, in a part.

Options:
`requirements`: the file (path or URL), every line with its hashes; make it with
    `uv pip compile --universal --generate-hashes`.
`python`: the interpreter to build on (default: the one that runs buildout).
`scripts`: programs of the environment to link into buildout's `bin-directory`, `name` or
    `name = program`, one a line.
`build`: names of packages that may be built from source; the others must come as wheels.
`shared`: `true` to keep the part in the `shared-part-list`.
`offline`: `true` to take all from the cache. `cache-directory`: where downloads are kept.

Exported: `location`; `bin`; `executable`, the environment's Python; `site-packages`.
"""

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from pathlib import Path

import uv

from slapos.protocol.errors import InvalidConfiguration, SlapOSError
from slapos.recipes.fetch import from_folder, read_text
from slapos.recipes.part import (
    Sections,
    cache_directory,
    choose_part,
    explained,
    is_offline,
    lines,
    words,
)
from slapos.system.runner import CommandFailed, SystemRunner
from slapos.system.settings import clean_environment, environment

TIMEOUT = 3600.0
DESCRIBE = (
    "import json, sys, sysconfig; print(json.dumps(['%d.%d' % sys.version_info[:2],"
    " sysconfig.get_platform(), sys._base_executable or sys.executable]))"
)

#: What uv says → what to do about it. The first that fits is told.
REMEDIES = [
    (
        r"[Hh]ash(es)? mismatch",
        "what was downloaded is not what was locked: if the index is right, lock it again with "
        "`uv pip compile --universal --generate-hashes`",
    ),
    (
        r"require-hashes|do not have a hash|must be pinned",
        "write the requirements with `uv pip compile --universal --generate-hashes`",
    ),
    (
        r"no wheels? (are|is|with)|no usable wheels|[Bb]uilding source distributions? .* disabled"
        r"|no matching Python ABI|platform tag",
        "take a version that has a wheel for this Python and machine, use another `python`, "
        "or name the package in `build` to have it built from source",
    ),
    (
        r"not found in the cache|network was disabled|offline",
        "it was not downloaded before: run once with the network",
    ),
    (
        r"error sending request|[Ff]ailed to fetch|dns error|timed out|[Cc]onnect",
        "see the network and the proxy; another index is set with UV_DEFAULT_INDEX, the "
        "certificates to trust with SSL_CERT_FILE",
    ),
    (r"No space left", "free some space"),
]


class InstallFailed(SlapOSError):
    """The environment cannot be made."""

    code = "install_failed"


class Recipe:
    """One virtual environment."""

    def __init__(self, buildout: Sections, name: str, options: MutableMapping[str, str]) -> None:
        self.name = name
        self._log = logging.getLogger(name)
        self._runner = SystemRunner()
        self._offline = is_offline(buildout, options)
        self._cache = cache_directory(buildout, options, "python")
        self._python = options.get("python", "").strip() or sys.executable
        self._build = words(options.get("build", ""))
        with explained(name):
            if not options.get("requirements", "").strip():
                raise InvalidConfiguration("the option `requirements` is missing: name a file")
            self._requirements = from_folder(
                options["requirements"].strip(), buildout["buildout"]["directory"]
            )
            self._text = read_text(self._requirements, self._cache / "locks", offline=self._offline)
            python = self._describe_python()
            signature = {
                "recipe": "slapos:python",
                "python": python,
                "requirements": self._text,
                "build": sorted(self._build),
            }
            self._part = choose_part(buildout, name, options, signature)
            self._scripts = _scripts(options.get("scripts", ""))
        self._links = Path(buildout["buildout"]["bin-directory"])
        options["location"] = str(self._part.location)
        options["bin"] = str(self._part.location / "bin")
        packages = self._part.location / f"lib/python{python[0]}/site-packages"
        options["site-packages"] = str(packages)
        options["executable"] = str(self._part.location / "bin/python")

    def install(self) -> list[str]:
        """Make the environment, unless it is there, and link its programs."""
        with explained(self.name):
            owned = self._part.build(self._fill)
            return owned + [self._link(*script) for script in self._scripts]

    update = install

    def _describe_python(self) -> list[str]:
        try:
            result = self._runner.run(
                [self._python, "-c", DESCRIBE], cwd=Path("/"), environment=self._environment
            )
            described = json.loads(result.output)
        except (CommandFailed, ValueError) as error:
            raise InvalidConfiguration(
                f"python = {self._python} is no Python that runs here: {error}"
            ) from error
        return [str(item) for item in described]

    @property
    def _environment(self) -> dict[str, str]:
        return clean_environment(environment())

    def _fill(self, location: Path) -> None:
        requirements = location / "requirements.txt"
        requirements.write_text(self._text)
        self._log.info("making a virtual environment from %s", self._requirements)
        self._uv("venv", "--allow-existing", "--python", self._python, str(location))
        builds = ["--only-binary", ":all:"]
        for package in self._build:
            builds += ["--no-binary", package]
        self._uv(
            "pip",
            "install",
            "--require-hashes",
            "--compile-bytecode",
            *builds,
            "--python",
            str(location / "bin/python"),
            "-r",
            str(requirements),
        )

    def _uv(self, *arguments: str) -> None:
        general = ["--system-certs", "--no-python-downloads", "--no-progress", "--color", "never"]
        general += ["--cache-dir", str(self._cache / "uv")]
        if self._offline:
            general.append("--offline")
        try:
            self._runner.run(
                [uv.find_uv_bin(), *general, *arguments],
                cwd=Path("/"),
                environment=self._environment,
                timeout=TIMEOUT,
                on_line=self._log.debug,
            )
        except CommandFailed as error:
            raise InstallFailed(explain(self._requirements, error)) from error

    def _link(self, name: str, program: str) -> str:
        target = self._part.location / "bin" / program
        if not target.exists():
            raise InvalidConfiguration(
                f"`scripts` names {program}, which the environment does not have: "
                f"see {target.parent}"
            )
        link = self._links / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() or link.exists():
            link.unlink()
        link.symlink_to(target)
        return str(link)


def explain(requirements: str, error: CommandFailed) -> str:
    """Say which package cannot be installed, why in uv's words, and what to do."""
    output = re.sub(r"\x1b\[[0-9;]*m", "", error.output).strip()
    cause = re.sub(r"\s*\n[^\w`'\"]*", ": ", output[-1500:]).lstrip(": \u00d7") or str(error)
    remedy = next((said for sign, said in REMEDIES if re.search(sign, output)), None)
    return f"{requirements} cannot be installed: {cause}" + (f"; {remedy}" if remedy else "")


def _scripts(text: str) -> list[tuple[str, str]]:
    pairs = (line.partition("=") for line in lines(text))
    return [(name.strip(), (program or name).strip()) for name, _, program in pairs]
