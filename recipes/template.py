"""`slapos:template`: a file from a template in buildout's own syntax.

Options:
`output`: the file (also called `rendered`).
`inline`: the template itself; or `url`: where it is, a path or an address; then `md5sum`: its hash.
`mode`: its permissions, octal (default: 0666 less the umask, executable if it begins with `#!`).

`${section:option}` is replaced, `$${section:option}` stays as `${section:option}`. The file is
written anew at each run, if that would change it.
"""

import os
from pathlib import Path
from typing import Any

import zc.buildout.download

from slapos.protocol.errors import InvalidConfiguration
from slapos.recipes.section import mode_under_umask, octal, write


class Recipe:
    """One file."""

    def __init__(self, buildout: Any, _name: str, options: Any) -> None:
        self._output = options.get("output") or options["rendered"]
        self._mode = options.get("mode")
        text, is_inline = read_template(buildout, options)
        # Buildout has replaced what an option holds.
        self._content = text.replace("$$", "$") if is_inline else options.fill_in(text)
        options.barrier()

    def install(self) -> list[str]:
        """Write the file."""
        return [write_rendered(self._output, self._content, self._mode)]

    update = install


def read_template(buildout: Any, options: Any, encoding: str = "utf-8") -> tuple[str, bool]:
    """Return a template, and whether it stood in the option `inline`."""
    inline, url, md5sum = (options.get(name) for name in ("inline", "url", "md5sum"))
    if bool(inline) == bool(url):
        raise InvalidConfiguration("give one of the options inline and url")
    if inline:
        if md5sum:
            raise InvalidConfiguration("md5sum is for a template from an url, not for inline")
        return str(inline), True
    download = zc.buildout.download.Download(buildout["buildout"], hash_name=True)
    location, is_temporary = download(url, md5sum or None)
    path = Path(location)
    try:
        return path.read_text(encoding=encoding), False
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{url} is no text in {encoding}: {error}") from error
    finally:
        if is_temporary:
            path.unlink()


def write_rendered(output: str, content: str, mode: str | None, encoding: str = "utf-8") -> str:
    """Write a file unless it is the same already; what begins with `#!` is made executable."""
    if mode:
        bits = octal(mode)
    else:
        program = content[2:].split("\n", 1)[0].split()[:1] if content.startswith("#!") else []
        executable = bool(program) and os.access(program[0], os.X_OK)
        bits = mode_under_umask(0o777 if executable else 0o666)
    return write(output, content.encode(encoding), bits)
