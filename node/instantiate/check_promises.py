"""Check the promises of a partition."""

from pathlib import Path

from slapos.node.buildout_program import python_of
from slapos.node.doors import Doors
from slapos.node.promise.check import Mode, PromiseContext, PromiseResult, PromiseRun
from slapos.node.users import Account


def check_promises(
    reference: str,
    folder: Path,
    release: Path | None,
    account: Account,
    doors: Doors,
    *,
    mode: Mode,
    force: bool,
) -> PromiseRun:
    """Check all promises with the Python of the release."""
    settings = doors.settings
    certificates = settings.certificate_repository_path
    python = python_of(release / "bin" / "buildout") if release is not None else None
    context = PromiseContext(
        partition_directory=folder,
        partition=reference,
        node=settings.computer_id,
        master_url=settings.master_url,
        python=python or doors.python,
        user=account.user,
        limits=doors.isolation.process_limits(reference),
        timeout=settings.promise_timeout,
        key_file=certificates / f"{reference}.key" if certificates else None,
        certificate_file=certificates / f"{reference}.crt" if certificates else None,
        authority_file=settings.master_ca_file,
    )
    return doors.promises.check(context, mode=mode, force=force)


def failure_message(results: list[PromiseResult]) -> str:
    """Return what the master is told of the first promise that failed, empty when none did."""
    for result in results:
        if result.failed:
            return f"Promise '{result.title}' failed with output: {result.message}"
    return ""
