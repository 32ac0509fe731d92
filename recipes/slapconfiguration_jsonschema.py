"""`slapos:slapconfiguration.jsonschema`: parameters, checked against what the release says of them.

Options, besides those of `slapos:slapconfiguration`:
`jsonschema`: the path of `software.cfg.json`, which names the schemas beside it.
Each of these is `main` (the instance's own parameters), `shared` (those of shared instances),
`all` or `none`:
`validate-parameters` (default `all`): check them.
`set-default` (default `none`): add the schema's defaults.
`unstringify` (default `none`): make "3" the number 3 where the schema wants a number.
`report-error` (default `all`): tell the master what is wrong, and at which field.

Exported besides: `valid-shared-instance-list`, `invalid-shared-instance-list`, lists of
`{reference, parameters, errors}`, in place of `slave-instance-list` when shared ones are checked.
"""

from pathlib import Path
from typing import Any

from slapos.protocol.descriptor import (
    DEFAULT_TYPE,
    OLD_DEFAULT_TYPE,
    BrokenDescriptor,
    ReleaseDescriptor,
    Serialisation,
    SoftwareType,
    fetch_document,
    read_json,
)
from slapos.protocol.errors import InvalidConfiguration, InvalidRequest, SlapOSError
from slapos.protocol.instance_xml import JSON_KEY, unwrap_json
from slapos.protocol.parameter_defaults import ParameterDefaults
from slapos.protocol.parameter_schema import ParameterSchema
from slapos.recipes.slapconfiguration import Recipe as Unchecked

CHOICES = {
    "none": frozenset[str](),
    "main": frozenset({"main"}),
    "shared": frozenset({"shared"}),
    "all": frozenset({"main", "shared"}),
}
#: What the master says of a shared instance besides its parameters.
ABOUT_SHARED = ("slave_reference", "slave_title", "slap_software_type", "timestamp")


class Recipe(Unchecked):
    """What is known of this instance, with parameters that are as the release wants them."""

    def configuration(self, parameters: dict[str, Any], options: Any) -> Any:
        """Return the parameters, checked; raises InvalidRequest naming the fields."""
        url = Path(options["jsonschema"].removeprefix("file://")).absolute().as_uri()
        descriptor = ReleaseDescriptor.from_json(url, read_json(url, fetch_document))
        wanted = options["slap-software-type"]
        if wanted == OLD_DEFAULT_TYPE:
            wanted = DEFAULT_TYPE  # which finds a type of the old name, too
        own = descriptor.find_type(wanted)
        is_json = own.serialisation is Serialisation.JSON_IN_XML
        checks = _Checks(options)
        values = unwrap_json(parameters) if is_json else parameters
        try:
            values = checks.completed("main", own, values)
        except InvalidRequest as error:
            if "main" in checks.reported:
                self._report(str(error))
            raise
        if "shared" in checks.validated:
            self._check_shared(checks, descriptor, wanted, options)
        elif is_json:
            options["slave-instance-list"] = [
                {**_shared_parameters(item), **{k: item[k] for k in item if k != JSON_KEY}}
                for item in options["slave-instance-list"]
            ]
        return values

    def _check_shared(
        self, checks: "_Checks", descriptor: ReleaseDescriptor, wanted: str, options: Any
    ) -> None:
        instances = options["slave-instance-list"]
        valid, invalid = [], []
        kind = descriptor.find_type(wanted, shared=True) if instances else None
        for item in instances:
            reference = item.get("slave_reference", "")
            shown: dict[str, Any] = {"reference": reference}
            try:
                shown["parameters"] = _shared_parameters(item)
                shown["parameters"] = checks.completed("shared", kind, shown["parameters"])
                valid.append(shown)
            except InvalidRequest as error:
                shown["errors"] = str(error)
                invalid.append(shown)
                if "shared" in checks.reported:
                    self._report(str(error), reference)
        options["valid-shared-instance-list"] = valid
        options["invalid-shared-instance-list"] = invalid
        del options["slave-instance-list"]

    def _report(self, message: str, shared_reference: str | None = None) -> None:
        connection = self.connection
        connection.client.report_instance_error(*connection.requester, message, shared_reference)


class _Checks:
    """What is to be done to which parameters."""

    def __init__(self, options: Any) -> None:
        self.validated = _choice(options, "validate-parameters", "all")
        self.reported = _choice(options, "report-error", "all")
        self._defaults = _choice(options, "set-default", "none")
        self._types = _choice(options, "unstringify", "none")

    def completed(self, whose: str, kind: SoftwareType | None, values: Any) -> Any:
        """Return parameters with what the schema adds; InvalidRequest when it forbids them."""
        if kind is None or kind.request_schema is None:
            if whose in self.validated:
                name = kind.name if kind else ""
                raise BrokenDescriptor(f"software.cfg.json names no schema for the type {name!r}")
            return values
        defaults = ParameterDefaults(kind.request_schema, fetch_document)
        if whose in self._types:
            values = defaults.with_types(values)
        if whose in self._defaults:
            values = defaults.with_defaults(values)
        if whose in self.validated:
            problems = ParameterSchema(kind.request_schema, fetch_document).problems(values)
            if problems:
                told = "".join(f"\n  {problem}" for problem in problems)
                raise InvalidRequest(f"the parameters are not what the release takes:{told}")
        return values


def _shared_parameters(item: dict[str, Any]) -> Any:
    try:
        return unwrap_json({key: item[key] for key in item if key not in ABOUT_SHARED})
    except SlapOSError as error:
        raise InvalidRequest(str(error)) from error


def _choice(options: Any, name: str, default: str) -> frozenset[str]:
    word = options.get(name, default)
    if word not in CHOICES:
        raise InvalidConfiguration(f"{name} = {word}: there are {', '.join(CHOICES)}")
    return CHOICES[word]
