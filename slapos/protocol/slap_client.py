"""The SLAP calls, as methods: what nodes, recipes and commands ask of a master (slap-master.md §1).

Works against our master, slapproxy and ERP5's master.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from slapos.protocol.errors import MalformedDocument, MasterFailed, NotFound
from slapos.protocol.http_client import HttpClient
from slapos.protocol.json_reader import load_json
from slapos.protocol.marshal import dumps, loads
from slapos.protocol.messages import NodeInformation, PartitionInformation, RequestedInstance
from slapos.protocol.states import InstallationState, InstanceState

Read = TypeVar("Read")

NOT_MODIFIED = 304


@dataclass(frozen=True)
class ReportsAnswer:
    """What became of reports: the ids of those taken, and why others are refused, by their id."""

    taken: frozenset[str]
    refused: Mapping[str, str]


@dataclass(frozen=True)
class Requester:
    """A partition that asks, and which instance it is (`PartitionInformation.identity`)."""

    node: str
    partition: str
    identity: Mapping[str, str] = field(default_factory=dict)


class SlapClient:
    """One master's `slap_tool`."""

    def __init__(self, http: HttpClient) -> None:
        self.http = http
        #: By node: the entity tag and the meaning of the last full answer.
        self._seen: dict[str, tuple[str, NodeInformation]] = {}

    # What a node asks.

    def node_information(self, node: str) -> NodeInformation:
        """Return everything that `node` has to build and run.

        Where the master gives entity tags, an unchanged answer is neither sent nor read again.
        """
        tag, known = self._seen.get(node, ("", None))
        found = self.node_document(node, etag=tag)
        if found is None:
            assert known is not None
            return known
        document, tag = found
        information = read_node_document(document)
        if tag:
            self._seen[node] = (tag, information)
        return information

    def node_document(self, node: str, *, etag: str = "") -> tuple[str, str] | None:
        """Return what the master says of `node`, as it is, and the entity tag of that, if any.

        None when it is still what it was for `etag`.
        """
        query = {"computer_id": node}
        headers = {"If-None-Match": etag} if etag else None
        try:
            response = self.http.request(
                "GET", "getFullComputerInformation", query=query, headers=headers
            )
        except NotFound:
            response = self.http.request("GET", "getComputerInformation", query=query)
        if response.status_code == NOT_MODIFIED and etag:
            return None
        try:
            return response.content.decode(), response.headers.get("ETag", "")
        except UnicodeDecodeError as error:
            raise MasterFailed(f"the master's answer makes no sense: {error}") from error

    def partition_information(self, node: str, partition: str) -> PartitionInformation:
        """Return one partition."""
        value = self._get(
            "registerComputerPartition",
            computer_reference=node,
            computer_partition_reference=partition,
        )
        return _understood(PartitionInformation.from_marshalled, value)

    def post_node_configuration(self, configuration: Mapping[str, Any]) -> None:
        """Tell what a node has: `reference`, addresses and `partition_list`."""
        self._post("loadComputerConfigurationFromXML", xml=dumps(dict(configuration)).decode())

    def report_building(self, node: str, url: str) -> None:
        """Say that a release is being built; a master that does not know it does not mind."""
        self._post_ignoring_absence("buildingSoftwareRelease", url=url, computer_id=node)

    def report_available(self, node: str, url: str) -> None:
        """Say that a release is built."""
        self._post("availableSoftwareRelease", url=url, computer_id=node)

    def report_removed(self, node: str, url: str) -> None:
        """Say that a release is gone."""
        self._post_ignoring_absence("destroyedSoftwareRelease", url=url, computer_id=node)

    def report_build_error(self, node: str, url: str, message: str) -> None:
        """Say that a build failed."""
        self._post("softwareReleaseError", url=url, computer_id=node, error_log=message)

    def report_state(
        self, node: str, partition: str, state: InstanceState, *, timestamp: str | None = None
    ) -> None:
        """Say that a partition is started, stopped or destroyed.

        `timestamp` is that of what was brought about: so our master knows whether it is the latest.
        """
        fields = _optional(timestamp=timestamp)
        self._post_partition(f"{state}ComputerPartition", node, partition, **fields)

    def report_instance_error(
        self,
        node: str,
        partition: str,
        message: str,
        shared_reference: str | None = None,
        *,
        timestamp: str | None = None,
    ) -> None:
        """Say that an instance, or one shared instance on it, failed, with which timestamp."""
        self._post_partition(
            "softwareInstanceError",
            node,
            partition,
            error_log=message,
            **_optional(slave_reference=shared_reference, timestamp=timestamp),
        )

    def report_related_instances(self, node: str, partition: str, titles: list[str]) -> None:
        """Say which instances a partition's last pass requested; older masters do not know it."""
        self._post_ignoring_absence(
            "updateComputerPartitionRelatedInstanceList",
            computer_id=node,
            computer_partition_id=partition,
            instance_reference_xml=dumps(titles).decode(),
        )

    def report_usage(self, node: str, usage_xml: str) -> None:
        """Send a consumption document."""
        self._post("useComputer", computer_id=node, use_string=usage_xml)

    def send_reports(self, node: str, reports: Sequence[Mapping[str, Any]]) -> ReportsAnswer:
        """Send reports, each with an id that the master counts once.

        Raises NotFound where the master has no such call: the calls above say the same.
        """
        path = f"v1/nodes/{quote(node, safe='')}/reports"
        response = self.http.request("POST", path, json={"reports": list(reports)})
        try:
            answer = load_json(response.content)
            return ReportsAnswer(
                taken=frozenset(str(each) for each in answer["taken"]),
                refused={
                    str(each["id"]): f"{each.get('message') or each.get('code')}"
                    for each in answer.get("refused", ())
                },
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise MasterFailed(
                f"the master's answer to reports makes no sense: {error!r}"
            ) from error

    def bang_node(self, node: str, message: str) -> None:
        """Have every instance of a node processed again."""
        self._post("computerBang", computer_id=node, message=message)

    def bang_instance(self, node: str, partition: str, message: str) -> None:
        """Have an instance and its tree processed again."""
        self._post_partition("softwareInstanceBang", node, partition, message=message)

    def partition_certificate(self, node: str, partition: str) -> tuple[str, str]:
        """Return a partition's key and certificate, both empty where the master has none."""
        value = self._get(
            "getComputerPartitionCertificate", computer_id=node, computer_partition_id=partition
        )
        if not isinstance(value, dict):
            raise MasterFailed("the master sent a certificate that is no key and certificate")
        return str(value.get("key") or ""), str(value.get("certificate") or "")

    # What a customer or an instance asks.

    def supply(
        self, url: str, node: str, state: InstallationState = InstallationState.AVAILABLE
    ) -> None:
        """Have a release built on a node, or removed from it."""
        self._post("supplySupply", url=url, computer_id=node, state=str(state))

    def request(
        self,
        *,
        software_url: str,
        title: str,
        software_type: str = "default",
        parameters: Mapping[str, Any] | None = None,
        filters: Mapping[str, Any] | None = None,
        state: InstanceState = InstanceState.STARTED,
        shared: bool = False,
        requester: Requester | None = None,
    ) -> RequestedInstance:
        """Ask for an instance, or for a change of it, in the name of a parent if there is one.

        Raises NotReady while it has no partition yet, and also once it is destroyed.
        """
        form = {
            "software_release": software_url,
            "software_type": software_type,
            "partition_reference": title,
            "shared_xml": dumps(shared).decode(),
            "partition_parameter_xml": dumps(dict(parameters or {})).decode(),
            "filter_xml": dumps(dict(filters or {})).decode(),
            "state": dumps(str(state)).decode(),
        }
        headers = None
        if requester is not None:
            node, partition = requester.node, requester.partition
            form |= {"computer_id": node, "computer_partition_id": partition}
            # A master of ours then refuses when the partition is free: the parent is gone, and
            # what a late buildout of it asks for must not become a service of its own.
            form["requester_is_instance"] = "true"
            form |= requester.identity
            headers = _partition_header(node, partition)
        response = self.http.request("POST", "requestComputerPartition", form=form, headers=headers)
        return _understood(RequestedInstance.from_marshalled, self._value(response.content))

    def instance_status(self, node: str, partition: str) -> Mapping[str, Any] | None:
        """Return what was said last of the instance in a partition (slap-master.md §1.2).

        None where the master does not tell that: slapproxy answers with a text.
        """
        value = self._get(
            "getComputerPartitionStatus", computer_id=node, computer_partition_id=partition
        )
        return value if isinstance(value, dict) else None

    def publish(
        self,
        node: str,
        partition: str,
        connection: Mapping[str, Any],
        shared_reference: str | None = None,
        identity: Mapping[str, str] | None = None,
    ) -> None:
        """Publish an instance's connection values, or those of one shared instance on it."""
        self._post_partition(
            "setComputerPartitionConnectionXml",
            node,
            partition,
            connection_xml=dumps(dict(connection)).decode(),
            **_optional(slave_reference=shared_reference),
            **(identity or {}),
        )

    def rename(
        self, node: str, partition: str, title: str, shared_reference: str | None = None
    ) -> None:
        """Give an instance another title."""
        self._post_partition(
            "softwareInstanceRename",
            node,
            partition,
            new_name=title,
            **_optional(slave_reference=shared_reference),
        )

    def tree_addresses(self, node: str, partition: str) -> list[str]:
        """Return the addresses of all instances of a partition's tree, wherever they are."""
        value = self._get(
            "getHostingSubscriptionIpList", computer_id=node, computer_partition_id=partition
        )
        return _understood(_addresses, value)

    def product_releases(self, product: str) -> list[str]:
        """Return the release URLs of a software product, the best first."""
        value = self._get(
            "getSoftwareReleaseListFromSoftwareProduct", software_product_reference=product
        )
        return [str(url) for url in value] if isinstance(value, list) else []

    def hateoas_url(self) -> str:
        """Return where the master's hateoas answers begin; raises NotFound where it has none."""
        return self.http.request("GET", "getHateoasUrl").text.strip()

    # How.

    def _get(self, call: str, **query: str) -> Any:
        return self._value(self.http.request("GET", call, query=query).content)

    def _post(self, call: str, **form: str) -> None:
        self.http.request("POST", call, form=form)

    def _post_partition(self, call: str, node: str, partition: str, **form: str) -> None:
        fields = {"computer_id": node, "computer_partition_id": partition, **form}
        headers = _partition_header(node, partition)
        self.http.request("POST", call, form=fields, headers=headers)

    def _post_ignoring_absence(self, call: str, **form: str) -> None:
        try:
            self._post(call, **form)
        except NotFound:
            return

    def _value(self, content: bytes) -> Any:
        return _understood(loads, content)


def read_node_document(document: str) -> NodeInformation:
    """Return what a master says of a node. Raises MasterFailed when it makes no sense."""
    return _understood(NodeInformation.from_marshalled, _understood(loads, document.encode()))


def _understood(read: Callable[[Any], Read], value: Any) -> Read:
    """Read what the master sent; what cannot be read is the master's failure, not the caller's."""
    try:
        return read(value)
    except MalformedDocument as error:
        raise MasterFailed(f"the master's answer makes no sense: {error}") from error


def _addresses(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, tuple | list) for v in value):
        raise MalformedDocument("a list of interfaces with addresses was expected")
    return [str(pair[1]) for pair in value if len(pair) > 1]


def _partition_header(node: str, partition: str) -> dict[str, str]:
    return {
        "Authorization": f"X-SlapPartition computer_id={node}, computer_partition_id={partition}"
    }


def _optional(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}
