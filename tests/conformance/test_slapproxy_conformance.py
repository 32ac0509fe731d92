"""slapos.core's own tests of slapproxy, asked of our master (or another) over HTTP.

`SLAPOS_CONFORMANCE_PEER=slapproxy` asks the real slapproxy: the control of this harness.
"""

import os
from pathlib import Path

import pytest

from tests.conformance.inner_run import Outcome, left_out, master_named, run_inner_tests

pytestmark = pytest.mark.conformance

MASTER = os.environ.get("SLAPOS_CONFORMANCE_PEER", "ours")
#: Classes of the peer's tests and how many tests each has in the locked version.
GROUPS = {
    "TestLoadComputerConfiguration": 2,
    "TestInformation": 10,
    "TestSoftwareInstallation": 3,
    "TestRequest": 19,
    "TestSlaveRequest": 10,
    "TestCliInformation": 8,
    "TestMultiNodeSupport": 10,
    "TestMultiMasterSupport": 10,
    "TestMultiMasterConnectionError": 3,
    "TestLocalSoftwareReleaseRootPathMigration": 15,
    "JsonRpcTestCase": 53,
    "JsonRpcConnectionErrorTestCase": 3,
    "JsonRpcExperimentalTestCase": 1,
    "PanelTestCase": 5,
    "HttpProxyTestCase": 2,
}


def not_tried(reasons: dict[str, str]) -> list[str]:
    return [name.removesuffix("::*") for name in reasons if name.endswith("::*")]


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    return run_inner_tests(
        master_named(MASTER),
        tmp_path_factory.mktemp("conformance"),
        not_tried=not_tried(left_out(MASTER)),
    )


@pytest.mark.parametrize("group", GROUPS)
def test_the_master_passes(group: str, outcomes: dict[str, Outcome]) -> None:
    reasons = left_out(MASTER)
    ran = [outcome for outcome in outcomes.values() if outcome.group == group]
    assert len(ran) == GROUPS[group]
    failed = [outcome for outcome in ran if outcome.failure and outcome.id not in reasons]
    better = [outcome for outcome in ran if not outcome.failure and outcome.id in reasons]
    lines = [f"{outcome.id} failed: {outcome.failure}" for outcome in failed]
    lines += [f"{outcome.id} passes: strike it off left_out.cfg" for outcome in better]
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


def test_every_test_is_accounted_for(outcomes: dict[str, Outcome]) -> None:
    assert {outcome.group for outcome in outcomes.values()} == set(GROUPS)
    single = {name for name in left_out(MASTER) if not name.endswith("::*")}
    assert single <= set(outcomes), "left_out.cfg names a test that is not there"


def test_a_master_that_answers_nonsense_passes_nothing(tmp_path: Path) -> None:
    """Nothing but the process is asked: else slapproxy inside the test's process would answer."""
    modules = [f"slapos.tests.test_slapproxy{part}" for part in ("_json_rpc", "_panel")]
    outcomes = run_inner_tests(master_named("nonsense"), tmp_path, modules=modules)
    passed = [outcome.id for outcome in outcomes.values() if outcome.failure is None]
    assert len(outcomes) == 62
    assert passed == []
