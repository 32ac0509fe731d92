"""`slapos:template.jinja2`: a file from a Jinja2 template.

Options: `output`, `inline`, `url`, `md5sum`, `mode` as for `slapos:template`.
`context`: lines TYPE NAME EXPRESSION, each a variable of the template:
    `raw` text as it is; `key` the value of `section:option` (`:option` of this section);
    `json` a JSON document; `jsonkey` a JSON document in an option; `import` a Python module;
    `section` all options of a section.
`import-list`: lines TYPE ALIAS EXPRESSION, templates to import: `rawfile` a path, `file` a path in
    an option; `rawfolder`, `folder` a folder, whose files are `ALIAS/PATH`.
`import-delimiter`: what stands between alias and path (default `/`).
`extensions`: extensions of Jinja2. `encoding`: of the files (default utf-8).
`once`: a file that, once it is there, keeps the output from being written again.

Undefined variables are errors. `dumps(value)` writes a value so that buildout reads it back.
"""

import builtins
import importlib
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from slapos.protocol.errors import InvalidConfiguration
from slapos.recipes.buildout import dumps
from slapos.recipes.section import lines, words
from slapos.recipes.template import read_template, write_rendered

BUILTINS = (
    "abs all any bin bool bytes callable chr complex dict divmod enumerate filter float format "
    "frozenset hex int isinstance iter len list map max min next oct ord pow range repr reversed "
    "round set sorted str sum tuple zip"
)


class Recipe:
    """One file."""

    def __init__(self, buildout: Any, name: str, options: Any) -> None:
        self._buildout = buildout
        self._options = options
        self._mode = options.get("mode")
        self._once = options.get("once")
        self._encoding = options.get("encoding", "utf-8")
        old_style = "output" not in options
        self._output = options["rendered" if old_style else "output"]
        if old_style and not options.get("url") and not options.get("inline"):
            given = options["template"]
            inline = given.startswith("inline:")
            options["inline" if inline else "url"] = (
                given.removeprefix("inline:").lstrip("\r\n") if inline else given
            )
        self._place = options.get("url") or f"inline of [{name}]"
        source, is_inline = read_template(buildout, options, self._encoding)
        # In an option, that is how a `${` is written which buildout leaves alone.
        self._source = source.replace("$${", "${") if is_inline else source
        self._environment = self._jinja()
        self._context = self._variables()
        options.barrier()

    def install(self) -> list[str]:
        """Write the file."""
        if self._once and os.path.exists(self._once):
            return []
        path = write_rendered(self._output, self._rendered(), self._mode, self._encoding)
        if self._once:
            Path(self._once).touch()
            return []
        return [path]

    update = install

    def _rendered(self) -> str:
        try:
            code = self._environment.compile(self._source, filename=self._place)
            template = self._environment.template_class.from_code(
                self._environment, code, self._environment.make_globals(None)
            )
            return template.render(self._context)
        except jinja2.TemplateSyntaxError as error:
            place = error.filename or self._place
            raise InvalidConfiguration(f"{place}, line {error.lineno}: {error.message}") from error
        except Exception as error:  # a template is code that a release brings
            raise InvalidConfiguration(f"{self._line_of(error)}: {_told(error)}") from error

    def _line_of(self, error: BaseException) -> str:
        """Return the innermost line of a template that an error went through."""
        known = {self._place, *self._imported.values()}
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in known:
                return f"{frame.filename}, line {frame.lineno}"
        return str(self._place)

    def _jinja(self) -> jinja2.Environment:
        self._imported: dict[str, str] = {}
        folders = {}
        for kind, alias, expression in _triples("import-list", self._options):
            if kind not in ("file", "rawfile", "folder", "rawfolder"):
                raise InvalidConfiguration(
                    f"import-list: {kind!r} is none of file, rawfile, folder, rawfolder"
                )
            if alias in self._imported:
                raise InvalidConfiguration(f"import-list: {alias!r} is there twice")
            path = expression if kind.startswith("raw") else self._key(expression)
            self._imported[alias] = path
            if kind.endswith("folder"):
                folders[alias] = jinja2.FileSystemLoader(path, encoding=self._encoding)
        delimiter = self._options.get("import-delimiter", "/")

        def load(name: str) -> tuple[str, str, Callable[[], bool]]:
            alias, _, rest = name.partition(delimiter)
            if alias not in self._imported or bool(rest) != (alias in folders):
                raise jinja2.TemplateNotFound(name)
            if alias in folders:
                source, path, _ = folders[alias].get_source(
                    self._environment, rest.replace(delimiter, "/")
                )
                self._imported[name] = path
            else:
                path = self._imported[alias]
                source = Path(path).read_text(encoding=self._encoding)
            return source, path, lambda: True

        return jinja2.Environment(
            extensions=words(self._options.get("extensions")),
            undefined=jinja2.StrictUndefined,
            loader=jinja2.FunctionLoader(load),
        )

    def _variables(self) -> dict[str, Any]:
        context: dict[str, Any] = {name: getattr(builtins, name) for name in BUILTINS.split()}
        context |= {"assert": _assert, "dumps": _dumps}
        own: set[str] = set()
        readers: dict[str, Callable[[str], Any]] = {
            "raw": str,
            "key": self._key,
            "json": json.loads,
            "jsonkey": lambda expression: _from_json(self._key(expression)),
            "import": importlib.import_module,
            "section": lambda expression: dict(self._buildout[expression].items()),
        }
        for kind, name, expression in _triples("context", self._options):
            if kind not in readers:
                raise InvalidConfiguration(
                    f"context: {kind!r} is no type of variable; there are: {', '.join(readers)}"
                )
            if name in own:
                raise InvalidConfiguration(f"context: the variable {name!r} is there twice")
            own.add(name)
            try:
                context[name] = readers[kind](expression)
            except (ValueError, ImportError) as error:
                raise InvalidConfiguration(
                    f"context: {kind} {name} {expression}: {error}"
                ) from error
        return context

    def _key(self, expression: str) -> Any:
        section, colon, option = expression.partition(":")
        if not colon:
            raise InvalidConfiguration(f"{expression!r} is no section:option")
        return (self._buildout[section] if section else self._options)[option]


def _from_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _triples(option: str, options: Any) -> list[list[str]]:
    triples = [line.split(None, 2) for line in lines(options.get(option))]
    for words_ in triples:
        if len(words_) != 3:
            raise InvalidConfiguration(
                f"{option}: {' '.join(words_)!r} is not TYPE NAME EXPRESSION"
            )
    return triples


def _dumps(value: Any) -> str:
    if isinstance(value, jinja2.Undefined):
        str(value)  # which says what is undefined
    return dumps(value)


def _assert(condition: Any, message: str = "") -> str:
    if not condition:
        raise AssertionError(message)
    return ""


def _told(error: Exception) -> str:
    if isinstance(error, jinja2.TemplateNotFound):
        return f"there is nothing to import as {error.name!r}; see the option import-list"
    known = isinstance(error, jinja2.TemplateError)
    return str(error) if known else f"{type(error).__name__}: {error}"
