"""What a customer looks up at a master: services and nodes, through hateoas (slap-master.md §3).

Works against our master, slapproxy and ERP5's master.
"""

from dataclasses import dataclass, field
from typing import Any

from uritemplate import expand

from slapos.protocol.errors import MasterFailed, NotFound
from slapos.protocol.instance_xml import JSON_KEY, from_instance_xml
from slapos.protocol.json_reader import load_json
from slapos.protocol.slap_client import SlapClient

VIEW = "slaposjs_view"
#: ERP5 gives 40 rows unless asked for more; slapproxy gives all.
MAXIMUM_ROWS = 100_000


@dataclass(frozen=True, kw_only=True)
class ServiceDescription:
    """A service (an instance tree) as its owner sees it.

    In `parameters` and `connection`, what the parameter `_` holds is read as JSON. `status` is
    none, green, orange or red; unsupported where the master does not tell.
    """

    title: str
    software_url: str
    software_type: str
    shared: bool
    requested_state: str
    status: str = "unsupported"
    parameters: dict[str, Any] = field(default_factory=dict)
    connection: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NodeDescription:
    """A node as its owner sees it."""

    reference: str
    title: str


class HateoasClient:
    """One master's hateoas. `root_url` is where it begins; the master is asked when it is None."""

    def __init__(self, client: SlapClient, root_url: str | None = None) -> None:
        self._client = client
        self._http = client.http
        self._root_url = root_url
        self._links: dict[str, Any] | None = None

    def services(self) -> dict[str, str]:
        """Return the release URL of each service, by title."""
        rows = self._search(_query("Instance Tree"), ["title", "url_string"])
        return {str(row["title"]): str(row.get("url_string", "")) for row in rows}

    def service(self, title: str) -> ServiceDescription:
        """Return one service; raises NotFound."""
        row = self._one(_query("Instance Tree", title=title), "title", title)
        if row is None:
            raise NotFound(f"there is no service {title!r}: `slapos service list` shows them")
        view = self._view(str(row["relative_url"]))
        return ServiceDescription(
            title=title,
            software_url=str(view.get("my_url_string", "")),
            software_type=str(view.get("my_source_reference", "")),
            shared=bool(int(view.get("my_root_slave") or 0)),
            requested_state=str(view.get("my_slap_state", "")),
            status=_status(view.get("my_news")),
            parameters=readable(from_instance_xml(view.get("my_text_content"))),
            connection=readable(_connection(view.get("my_connection_parameter_list"))),
        )

    def place(self, title: str) -> tuple[str, str] | None:
        """Return the node and partition of a service where the master says it (slapproxy does)."""
        row = self._one(_query("Instance Tree", title=title), "title", title) or {}
        node, partition = row.get("computer_reference"), row.get("reference")
        return (str(node), str(partition)) if node and partition else None

    def nodes(self) -> list[NodeDescription]:
        """Return the nodes, by reference."""
        rows = self._search(_query("Compute Node"), ["title", "reference"])
        return sorted(
            (
                NodeDescription(
                    reference=str(row.get("reference", "")), title=str(row.get("title", ""))
                )
                for row in rows
            ),
            key=lambda node: node.reference,
        )

    def node(self, reference: str) -> NodeDescription:
        """Return one node; raises NotFound."""
        row = self._one(_query("Compute Node", reference=reference), "reference", reference)
        if row is None:
            raise NotFound(f"there is no node {reference!r}: `slapos computer list` shows them")
        view = self._view(str(row["relative_url"]))
        return NodeDescription(
            reference=str(view.get("my_reference", reference)),
            title=str(view.get("my_title") or row.get("title") or reference),
        )

    def _one(self, query: str, key: str, value: str) -> dict[str, Any] | None:
        rows = self._search(query, [key, "relative_url"])
        return next((row for row in rows if row.get(key) == value), None)

    def _search(self, query: str, columns: list[str]) -> list[dict[str, Any]]:
        body = self._get(
            expand(self._link("raw_search"), query=query, select_list=columns, limit=MAXIMUM_ROWS)
        )
        try:
            return list(body["_embedded"]["contents"])
        except (KeyError, TypeError) as error:
            raise MasterFailed(f"the master's answer to a search has no {error}") from error

    def _view(self, relative_url: str) -> dict[str, Any]:
        body = self._get(expand(self._link("traverse"), relative_url=relative_url, view=VIEW))
        try:
            fields = body["_embedded"]["_view"]
            return {
                name: value["default"]
                for name, value in fields.items()
                if isinstance(value, dict) and "default" in value
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise MasterFailed(f"the master shows no form of {relative_url}: {error}") from error

    def _link(self, name: str) -> str:
        if self._links is None:
            if self._root_url is None:
                self._root_url = self._find_root()
            self._links = self._get(self._root_url).get("_links", {})
        try:
            return str(self._links[name]["href"])
        except (KeyError, TypeError) as error:
            raise MasterFailed(f"{self._root_url} has no link {name!r}") from error

    def _find_root(self) -> str:
        try:
            return self._client.hateoas_url()
        except NotFound:  # slapproxy
            return f"{self._http.base_url}hateoas/"

    def _get(self, url: str) -> dict[str, Any]:
        response = self._http.request("GET", url, headers={"Accept": "application/json"})
        where = url.partition("?")[0]
        try:
            body = load_json(response.content)
        except ValueError as error:
            raise MasterFailed(f"{where} does not answer in JSON") from error
        if not isinstance(body, dict):
            raise MasterFailed(f"{where} answers with something else than an object")
        return body


def readable(values: dict[str, Any]) -> dict[str, Any]:
    """Return parameters with what `_` holds read as JSON, when it is JSON."""
    if isinstance(values.get(JSON_KEY), str):
        try:
            return {**values, JSON_KEY: load_json(values[JSON_KEY])}
        except ValueError:
            return values
    return values


def _query(portal_type: str, **conditions: str) -> str:
    """Return a query of the catalog, its values quoted so that none ends before its end."""
    parts = [f'portal_type:"{portal_type}"', "validation_state:validated"]
    for name, value in conditions.items():
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'{name}:="{quoted}"')
    return " AND ".join(parts)


def _connection(value: Any) -> dict[str, Any]:
    """Read connection values: a list of keys and values, or (slapproxy) instance XML."""
    if isinstance(value, list):
        return {
            str(item["connection_key"]): item.get("connection_value")
            for item in value
            if isinstance(item, dict) and "connection_key" in item
        }
    return dict(from_instance_xml(value)) if isinstance(value, str) else {}


def _status(news: Any) -> str:
    """Return a colour from what the instances said last: `#access …` is well, `#error …` is not."""
    if not isinstance(news, dict):
        return "unsupported"
    texts = [str(item.get("text", "")) for item in news.get("instance", ()) if item]
    well = any(text.startswith("#access") for text in texts)
    ill = any(text.startswith("#error") for text in texts)
    colours = {(0, 0): "none", (1, 0): "green", (0, 1): "red", (1, 1): "orange"}
    return colours[int(well), int(ill)]
