"""A section of a buildout: upstream's, whose options may be any value."""

import difflib
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zc.buildout.buildout as upstream
from zc.buildout import UserError

from slapos.protocol.errors import InvalidConfiguration, SlapOSError
from slapos.recipes.buildout.profiles import base_of
from slapos.recipes.buildout.values import inside_text, loads, to_option

pkg_resources = upstream.pkg_resources


class MissingOption(upstream.MissingOption):  # type: ignore[misc]
    """A reference to an option that is not there; says where the reference stands."""


class MissingSection(upstream.MissingSection):  # type: ignore[misc]
    """A reference to a section that is not there; says where the reference stands."""

    def __str__(self) -> str:
        return str(self.args[0])


class Options(upstream.Options):  # type: ignore[misc]
    """The options of a section. Within, each is kept as text; readers get the value.

    An option that is a single `${section:option}` has that one's value, whatever it is.
    """

    def __init__(self, buildout: Any, section: str, data: dict[str, str]) -> None:
        super().__init__(buildout, section, data)
        self._volatile: set[str] = set()
        #: Files that the part no longer has, although an earlier run installed them.
        self.removed: set[str] = set()
        # What the recipe's constructor read of other sections: it decides about reinstallation.
        self._read: dict[tuple[str, str], str] = {}
        self._recording = False

    # Values in and out.

    def __setitem__(self, option: str, value: Any) -> None:
        super().__setitem__(option, to_option(value))

    def __getitem__(self, option: str) -> Any:
        text = self._text(option)
        if text is None:
            raise MissingOption(f"{self._where()} has no option {option!r}, which is needed here")
        return self._value(option, text)

    def get(self, option: str, default: Any = None, seen: list[Any] | None = None) -> Any:
        """Return the value of an option; with `seen` (upstream, substituting) its text."""
        text = self._text(option, seen)
        if text is None:
            return default
        return text if seen is not None else self._value(option, text)

    def copy(self) -> dict[str, Any]:
        """Return the options that are remembered from one run to the next."""
        kept = super().copy()
        return {
            name: self._value(name, text)
            for name, text in kept.items()
            if name not in self._volatile
        }

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Options):
            return self.copy() == other.copy()
        return self.copy() == other

    __hash__ = None  # type: ignore[assignment]

    def volatile(self, *names: str) -> None:
        """Keep options (secrets) out of `.installed.cfg`; their change reinstalls nothing."""
        self._volatile.update(names)

    def barrier(self) -> None:
        """Let nothing that the recipe reads from now on decide about its reinstallation."""
        self._recording = False

    def digest_of_reads(self) -> str:
        """Return a hash of what the recipe read of other sections; empty when that is nothing."""
        if not self._read:
            return ""
        return hashlib.sha256(repr(sorted(self._read.items())).encode()).hexdigest()[:32]

    def _value(self, option: str, text: str) -> Any:
        try:
            return loads(text)
        except InvalidConfiguration as error:
            raise UserError(f"{self._where(option)}, option {option}: {error}") from error

    # Substitution.

    def _text(self, option: str, seen: list[Any] | None = None) -> str | None:
        text: str | None = self._data.get(option)
        if text is None:
            text = self._cooked.get(option)
            if text is None:
                text = self._raw.get(option)
                if text is not None and "${" in text:
                    text = self._substituted(option, text, seen)
            if text is None:
                return self._implicit(option)
            self._data[option] = text
        self.buildout.note_reading(self, option, text)
        return text

    def _implicit(self, option: str) -> str | None:
        if option == "_buildout_section_name_":
            return str(self.name)
        if option == "_profile_base_location_":
            place = self.buildout.place_of(self.name)
            return base_of(place) if place else None
        return None

    def fill_in(self, text: str) -> str:
        """Return a text with what its `${…}` refer to; `$$` is a dollar sign."""
        pieces = text.split("$$")
        return "$".join(inside_text(self._sub(piece, [(self.name, "")])) for piece in pieces)

    def _dosub(self, option: str, v: str) -> None:
        self._cooked[option] = self._substituted(option, v, None)

    def _substituted(self, option: str, text: str, seen: list[Any] | None) -> str:
        seen = [] if seen is None else seen
        key = (self.name, option)
        if key in seen:
            chain = " → ".join(f"${{{':'.join(item)}}}" for item in [*seen[seen.index(key) :], key])
            raise UserError(f"these options refer to each other in a circle: {chain}")
        seen.append(key)
        try:
            return "$$".join(self._sub(piece, seen) for piece in text.split("$$"))
        finally:
            seen.pop()

    def _sub(self, template: str, seen: list[Any] | None) -> str:
        seen = [] if seen is None else seen
        pieces = self._template_split(template)
        if len(pieces) == 3 and not pieces[0] and not pieces[2]:
            return self._reference(pieces[1], seen)
        pieces[1::2] = [inside_text(self._reference(piece, seen)) for piece in pieces[1::2]]
        return "".join(pieces)

    def _reference(self, reference: str, seen: list[Any]) -> str:
        """Return the text of what a single `${section:option}` refers to."""
        try:
            return str(super()._sub(reference, seen))
        except (MissingOption, MissingSection):
            raise
        except upstream.MissingSection as error:
            there_are = sorted(self.buildout)
            message = f"there is no section [{error.args[0]}]"
            kind: type[Exception] = MissingSection
            sought = error.args[0]
        except upstream.MissingOption as error:
            _, section, sought = error.args
            there_are = sorted(self.buildout[section])
            message = f"the section [{section}] has no option {sought!r}"
            kind = MissingOption
        option = seen[-1][1] if seen else ""
        near = difflib.get_close_matches(sought, there_are, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(there_are)}"
        place = f"{self._where(option)}, option {option}" if option else self._where()
        raise kind(f"{reference} in {place}: {message}{hint}") from None

    def _where(self, option: str = "") -> str:
        """Return this section, and the profile that it (or one of its options) comes from."""
        source = self.buildout.source_of(self.name, option)
        return f"[{self.name}] ({source})" if source else f"[{self.name}]"

    # The recipe.

    def _initialize(self) -> None:
        super()._initialize()
        if self.name == "buildout":
            # The directory of a release's eggs already ends with the version (eggs/v5).
            version = self.get("eggs-directory-version")
            if version and self["eggs-directory"].rstrip("/").endswith(f"/{version}"):
                self["eggs-directory-version"] = ""

    def initialize(self) -> None:
        """Load the recipe and hand it the section."""
        recipe_class = self._recipe_class()
        self._recording = True
        with self.buildout.constructing(self), failures_named(self.name):
            self.recipe = recipe_class(self.buildout, self.name, self)

    def note_reading(self, section: str, option: str, text: str) -> None:
        """Remember what the recipe's constructor read of another section."""
        if self._recording:
            self._read[section, option] = text

    def _recipe_class(self) -> Any:
        text = self["recipe"]
        package, _, entry = text.partition(":")
        try:
            return upstream._install_and_load(
                package, "zc.buildout", entry or "default", self.buildout
            )
        except (UserError, ImportError, pkg_resources.ResolutionError, ValueError) as error:
            raise UserError(
                f"{self._where('recipe')}: recipe = {text}: "
                f"{_why_no_recipe(package, entry or 'default', error)}"
            ) from error

    def _call(self, f: Any) -> Any:
        with failures_named(self.name):
            return super()._call(f)


@contextmanager
def failures_named(section: str) -> Iterator[None]:
    """Let what goes wrong in a recipe, and is no bug, be told in one line that names the part."""
    try:
        yield
    except UserError:
        raise
    except (SlapOSError, OSError) as error:
        raise UserError(f"[{section}] {error}") from error


def _why_no_recipe(package: str, entry: str, error: Exception) -> str:
    try:
        known = pkg_resources.get_entry_map(package, "zc.buildout")
    except (pkg_resources.ResolutionError, ValueError):
        return str(error).strip()
    if entry in known:
        return f"it cannot be loaded: {error}"
    return f"{package} has no recipe {entry!r}; it has: {', '.join(sorted(known)) or 'none'}"
