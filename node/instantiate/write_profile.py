"""Write the partition's buildout.cfg: the release's instance profile, and what the node knows."""

from pathlib import Path

from slapos.node.beneath import UnsafePath, read_beneath
from slapos.node.doors import Doors
from slapos.node.instantiate.step import StepFailed, Work
from slapos.system.files import write_if_changed

TEMPLATES = ("instance.cfg", "template.cfg")
#: Bytes that are read of one.
LARGEST = 10_000_000


def write_profile(work: Work, doors: Doors) -> None:
    """Write it, readable for the partition's user and nobody else. Raises StepFailed."""
    software = work.software()
    text = _template(software).rstrip("\n") + "\n\n" + _render(_tail(work, doors))
    # As root, the file stays root's: the instance reads it through its group.
    owner = (0, work.account.gid) if work.account.user is not None else None
    write_if_changed(work.folder / "buildout.cfg", text, mode=0o640, owner=owner)


def _template(software: Path) -> str:
    for name in TEMPLATES:
        try:
            # Not through a link: a release must not get what only root may read.
            content = read_beneath(software, name, LARGEST)
            if content is not None:
                return content.decode()
        except (UnsafePath, UnicodeDecodeError) as error:
            raise StepFailed(f"{software / name} cannot be read: {error}") from error
    raise StepFailed(
        f"its release has neither {' nor '.join(TEMPLATES)} in {software}",
        remedy="the release's software.cfg has to make one (its author), then 'slapos node "
        "software --force'",
    )


def _tail(work: Work, doors: Doors) -> dict[str, dict[str, str]]:
    settings = doors.settings
    certificates = settings.certificate_repository_path
    connection = {
        "computer-id": settings.computer_id,
        "partition-id": work.reference,
        "server-url": settings.master_url,
        "software-release-url": work.wanted.software_url or "",
        "key-file": str(certificates / f"{work.reference}.key") if certificates else "",
        "cert-file": str(certificates / f"{work.reference}.crt") if certificates else "",
    }
    authority = {"ca-file": str(settings.master_ca_file or "")}
    parts = {
        "shared-part-list": _lines(settings.shared_part_list),
        "build-time-part-list": _lines(settings.build_time_part_list),
    }
    state = {"requested-state": str(work.wanted.state)}
    return {
        "buildout": {"bin-directory": "${buildout:directory}/sbin", "offline": "true"},
        "slap-connection": connection | authority | parts | state,
        "slap_connection": {name.replace("-", "_"): text for name, text in connection.items()},
        "storage-configuration": {"storage-home": settings.instance_storage_home},
        "network-information": {"global-ipv4-network": settings.ipv4_global_network},
    }


def _lines(paths: tuple[Path, ...]) -> str:
    return "".join(f"\n  {path}" for path in paths)


def _render(sections: dict[str, dict[str, str]]) -> str:
    text = ""
    for section, options in sections.items():
        text += f"[{section}]\n"
        for name, value in options.items():
            _check(name, value)
            text += f"{name} = {value}".rstrip(" ") + "\n"
        text += "\n"
    return text


def _check(name: str, value: str) -> None:
    """See that a value cannot become another option or section."""
    if any(ord(character) < 32 for character in value.replace("\n  /", "")):
        raise StepFailed(f"the value of {name} has control characters: {value!r}")
