"""Counters and gauges, and the text that Prometheus reads."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from slapos.node.monitor.address import read_address
from slapos.node.monitor.metrics import (
    BUILDS,
    REPORTS_WAITING,
    RESTARTS,
    Metric,
    Metrics,
)

AREA = Metric("gauge", "area", 'said with "quotes" \\ and\nlines', ("name", "kind"))


def read(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return what Prometheus' own parser makes of the text."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
    }


def test_counters_grow_and_gauges_show_the_last() -> None:
    metrics = Metrics()
    metrics.count(BUILDS, "done")
    metrics.count(BUILDS, "done", by=2)
    metrics.count(BUILDS, "failed")
    metrics.count(RESTARTS)
    metrics.measure(REPORTS_WAITING, 7)
    metrics.measure(REPORTS_WAITING, 0.5)
    assert metrics.value(BUILDS, "done") == 3
    assert metrics.value(BUILDS, "none") is None
    assert read(metrics) == {
        ("slapos_release_builds_total", "done"): 3,
        ("slapos_release_builds_total", "failed"): 1,
        ("slapos_service_restarts_total",): 1,
        ("slapos_reports_waiting",): 0.5,
    }


def test_what_is_replaced_forgets_what_is_gone() -> None:
    metrics = Metrics()
    metrics.replace(AREA, {("a", "b"): 1, ("c", "d"): 2})
    metrics.replace(AREA, {("c", "d"): 3})
    assert read(metrics) == {("area", "c", "d"): 3}


def test_any_label_can_be_read_again() -> None:
    metrics = Metrics()
    odd = 'with "quotes", \\ and\nlines'
    metrics.measure(AREA, 1e300, odd, "")
    assert read(metrics) == {("area", odd, ""): 1e300}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ("127.0.0.1:9420", ("127.0.0.1", 9420)),
        ("localhost:9420", ("127.0.0.1", 9420)),
        ("[::1]:9420", ("::1", 9420)),
    ],
)
def test_where_to_listen(text: str, address: object) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    "text", ["9420", "0.0.0.0:9420", "[::]:1", "127.0.0.1:0", "127.0.0.1:99999", "x:1", "a.sock"]
)
def test_where_not_to_listen(text: str) -> None:
    with pytest.raises(ValueError, match=r"127\.0\.0\.1|port"):
        read_address(text)
