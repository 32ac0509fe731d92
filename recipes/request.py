"""`slapos:request`: ask the master for another instance, and wait for what it publishes.

Options (with `<= slap-connection`):
`software-url`: its release (default: this one's); `product.NAME` is the best of a product.
`software-type` (default `default`), `name` (its title; default: the section's name).
`config-NAME`: its parameters, any value; or `config`: all of them, a dictionary.
`sla-NAME`: where it may be placed; or `sla`: a dictionary.
`return`: names of what it has to publish. `shared`: `true` for a shared instance.
`state`: `started`, `stopped` or `destroyed` (default: as this instance).

Exported: `connection-NAME` for each name in `return`, empty until it is published;
`instance-guid`, `instance-state`, `requested-state`.

The buildout goes no further while something is missing: the node tries again. With
`slapos:requestoptional` it goes on, and says so. `….serialised` sends and reads JSON.
"""

import logging
from pathlib import Path
from typing import Any

from slapos.protocol.errors import (
    InvalidConfiguration,
    MalformedDocument,
    NotFound,
    NotReady,
    SlapOSError,
)
from slapos.protocol.instance_xml import unwrap_json, wrap_json
from slapos.protocol.messages import RequestedInstance
from slapos.protocol.prerequisite import waiting_sentence
from slapos.protocol.slap_client import Requester
from slapos.protocol.states import InstanceState
from slapos.recipes.connection import Connection, as_parameter, connect, plain
from slapos.recipes.section import is_true, words

PRODUCT = "product."
#: The node tells the master which instances this one asked for; it finds them in this file.
TRANSACTION = ".slapos-request-transaction-{partition}"


class Recipe:
    """One request."""

    def __init__(self, buildout: Any, name: str, options: Any) -> None:
        self._log = logging.getLogger(name)
        self._options = options
        self._connection = connect(buildout, options)
        self._title = options.get("name") or name
        self._wanted = words(options.get("return"))
        self._failure: SlapOSError | None = None
        options["requested-state"] = str(_state(buildout, options))
        _remember(Path(buildout["buildout"]["directory"]), self._connection, self._title)
        published: dict[str, Any] = {}
        try:
            instance = self._request(buildout)
            options["instance-guid"] = instance.guid
            options["instance-state"] = str(instance.state)
            published = self.published(instance)
        except SlapOSError as error:
            # What needs the result may be initialised all the same, so that it is known as a part.
            self._failure = error
        for wanted in self._wanted:
            options[f"connection-{wanted}"] = published.get(wanted, "")
        self._missing = [wanted for wanted in self._wanted if wanted not in published]

    def install(self) -> list[str]:
        """Let the buildout go on when there is all that was asked for."""
        if reason := self._waiting():
            if isinstance(self._failure, SlapOSError) and not isinstance(self._failure, NotReady):
                raise type(self._failure)(reason) from self._failure
            raise NotReady(reason)
        return []

    def update(self) -> list[str]:
        """Do the same."""
        return self.install()

    def parameters(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return parameters as they travel."""
        return {name: as_parameter(value) for name, value in values.items()}

    def published(self, instance: RequestedInstance) -> dict[str, Any]:
        """Return what an instance published; XML has no difference between empty and nothing."""
        values = instance.connection.items()
        return {name: "" if value is None else value for name, value in values}

    def _waiting(self) -> str:
        if isinstance(self._failure, NotReady):
            return waiting_sentence(self._title, f" ({self._failure})")
        if self._failure is not None:
            return f"the request for {self._title} failed: {self._failure}"
        if self._missing:
            missing = ", ".join(self._missing)
            return waiting_sentence(self._title, f", it has not published {missing}")
        return ""

    def _request(self, buildout: Any) -> RequestedInstance:
        options = self._options
        return self._connection.client.request(
            software_url=self._release(buildout),
            title=self._title,
            software_type=options.get("software-type") or "default",
            parameters=self.parameters(_named("config", options)),
            filters={key: as_parameter(value) for key, value in _named("sla", options).items()},
            state=InstanceState(options["requested-state"]),
            shared=is_true(options.get("shared")),
            requester=Requester(*self._connection.requester, self._connection.identity),
        )

    def _release(self, buildout: Any) -> str:
        url: str = self._options.get("software-url") or self._options.get(
            "software-release-url", ""
        )
        if not url:
            url = (buildout.get("slap-connection") or {}).get("software-release-url", "")
        if not url:
            raise InvalidConfiguration("the option software-url is missing")
        if url.startswith(PRODUCT):
            product = url.removeprefix(PRODUCT)
            releases = self._connection.client.product_releases(product)
            if not releases:
                raise NotFound(f"the master knows no release of the product {product}")
            return releases[0]
        return url


class Serialised(Recipe):
    """The same, with parameters and results in JSON."""

    def parameters(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return parameters as one JSON document."""
        return dict(wrap_json(plain(values)))

    def published(self, instance: RequestedInstance) -> dict[str, Any]:
        """Return what the JSON document says."""
        values = unwrap_json(instance.connection)
        if not isinstance(values, dict):
            raise MalformedDocument(
                f"{self._title} published {values!r}, and not names with values"
            )
        return values


class Optional(Recipe):
    """The same, but nobody waits for it."""

    def install(self) -> list[str]:
        """Say what is missing."""
        if reason := self._waiting():
            self._log.warning("%s", reason)
        return []


class OptionalSerialised(Serialised, Optional):
    """The same in JSON."""


def _named(prefix: str, options: Any) -> dict[str, Any]:
    """Return the options PREFIX-NAME, on top of those in a dictionary PREFIX."""
    whole = options.get(prefix) or {}
    if isinstance(whole, str):
        # An older style lists the names here; the values are in the options of these names.
        names = whole.split()
        return {name: options[f"{prefix}-{name}"] for name in names}
    if not isinstance(whole, dict):
        raise InvalidConfiguration(f"{prefix} = {whole!r}: it is no dictionary")
    start = f"{prefix}-"
    return whole | {
        option.removeprefix(start): value
        for option, value in options.items()
        if option.startswith(start) and (value or prefix == "config")
    }


def _state(buildout: Any, options: Any) -> InstanceState:
    given = options.get("state")
    try:
        if given:
            return InstanceState(given)
    except ValueError as error:
        known = ", ".join(InstanceState)
        raise InvalidConfiguration(f"state = {given}: there are {known}") from error
    own = (buildout.get("slap-connection") or {}).get("requested-state")
    # A destroyed instance's children are destroyed by the master, not by what a profile asks.
    return InstanceState.STOPPED if own == "stopped" else InstanceState.STARTED


def _remember(directory: Path, connection: Connection, title: str) -> None:
    path = directory / TRANSACTION.format(partition=connection.partition)
    with path.open("a+") as stream:
        stream.seek(0)
        if title not in stream.read().splitlines():
            stream.write(f"{title}\n")
