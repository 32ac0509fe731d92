"""How the findings of a doctor are shown, and what its exit status is."""

import json
from collections.abc import Iterable
from dataclasses import asdict

from slapos.system.finding import Finding, Level


def show_findings(
    findings: Iterable[tuple[str, Finding]], *, as_json: bool = False, quiet: bool = False
) -> int:
    """Show what each check found as soon as it has; return 1 when there is a problem, else 0."""
    kept = []
    for check, finding in findings:
        kept.append((check, finding))
        if not as_json and not (quiet and finding.level is Level.OK):
            print(_shown(check, finding), flush=True)
    levels = [finding.level for _, finding in kept]
    if as_json:
        print(json.dumps([{"check": name, **asdict(one)} for name, one in kept], indent=2))
    else:
        problems, warnings = levels.count(Level.PROBLEM), levels.count(Level.WARNING)
        print(f"\nproblems: {problems}, warnings: {warnings}")
    return 1 if Level.PROBLEM in levels else 0


def _shown(check: str, finding: Finding) -> str:
    line = f"{finding.level:<8} {check:<14} {finding.found}"
    return f"{line}\n{'':<24}→ {finding.remedy}" if finding.remedy else line
