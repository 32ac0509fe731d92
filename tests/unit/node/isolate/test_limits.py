import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from slapos.node.isolate.limits import (
    NO_LIMITS,
    InvalidLimit,
    PartitionLimits,
    limits_for,
    parse_limit,
)

MIB = 1024**2


@dataclass(frozen=True)
class Settings:
    partition_limits: PartitionLimits = NO_LIMITS
    partition_maximum: PartitionLimits = NO_LIMITS


def release_with(folder: Path, content: object) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "limits.json").write_text(text)
    return folder


def test_without_any_word_there_are_no_limits(tmp_path: Path) -> None:
    assert limits_for(Settings(), tmp_path, {}) == NO_LIMITS
    assert limits_for(Settings(), tmp_path / "not-built", {}) == NO_LIMITS
    assert limits_for(Settings(), None, {}) == NO_LIMITS


def test_the_release_goes_over_the_node_and_the_order_over_both(tmp_path: Path) -> None:
    settings = Settings(
        PartitionLimits(memory=100 * MIB, cpu=1.0, processes=50, open_files=1000),
    )
    release = release_with(tmp_path, {"memory": "512M", "cpu": 2, "processes": 60})
    order = {"partition_memory": "64M", "partition_cpu": "0.5", "retention_delay": "7.0"}
    assert limits_for(settings, release, order) == PartitionLimits(
        memory=64 * MIB, cpu=0.5, processes=60, open_files=1000
    )


def test_none_lifts_a_limit(tmp_path: Path) -> None:
    settings = Settings(PartitionLimits(memory=100 * MIB, processes=50))
    release = release_with(tmp_path, {"memory": None})
    assert limits_for(settings, release, {"partition_processes": "none"}) == NO_LIMITS


def test_no_limit_is_the_maximum_and_more_is_refused(tmp_path: Path) -> None:
    settings = Settings(partition_maximum=PartitionLimits(memory=256 * MIB, cpu=2.0))
    assert limits_for(settings, None, {}) == PartitionLimits(memory=256 * MIB, cpu=2.0)
    assert limits_for(settings, None, {"partition_cpu": "none"}).cpu == 2.0
    release = release_with(tmp_path, {"memory": "1G"})
    assert limits_for(settings, release, {"partition_memory": "200M"}).memory == 200 * MIB
    with pytest.raises(InvalidLimit, match=r"memory = 1073741824 in .*limits\.json is more than"):
        limits_for(settings, release, {})
    with pytest.raises(InvalidLimit, match=r"cpu = 3\.0 in its order .*at most 2\.0"):
        limits_for(settings, None, {"partition_cpu": "3"})


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"partition_memory": "much"}, "partition_memory = 'much' in its order: it must be a size"),
        ({"partition_memory": "-1"}, "must be a size"),
        ({"partition_memory": "1k"}, "must be 8388608 or more"),
        ({"partition_memory": "999999999Y"}, "or more, and possible"),
        ({"partition_memory": ["512M"]}, "must be a size"),
        ({"partition_cpu": "nan"}, "partition_cpu = 'nan' in its order: it must be a number of"),
        ({"partition_cpu": "0"}, r"must be 0\.01 or more"),
        ({"partition_cpu": "1e400"}, "must be a number of cores"),
        ({"partition_processes": "1.5"}, "must be a whole number"),
        ({"partition_processes": True}, "must be a whole number"),
        ({"partition_open_files": "3"}, "must be 32 or more"),
        ({"partition_open_files": ""}, "must be a whole number"),
    ],
)
def test_nonsense_in_an_order_is_refused_with_its_key(
    order: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidLimit, match=message):
        limits_for(Settings(), None, order)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[1]", "is no JSON object"),
        ({"memroy": "1G"}, "'memroy' in .* is no limit: there are memory, cpu"),
        ({"memory": {}}, r"memory = \{\} in .*limits.json: it must be a size"),
    ],
)
def test_nonsense_in_a_release_is_refused_with_its_file(
    tmp_path: Path, content: object, message: str
) -> None:
    with pytest.raises(InvalidLimit, match=message):
        limits_for(Settings(), release_with(tmp_path, content), {})


def test_a_link_in_a_release_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"memory": "512M"}')
    (tmp_path / "limits.json").symlink_to(secret)
    with pytest.raises(InvalidLimit, match="cannot be read"):
        limits_for(Settings(), tmp_path, {})


def test_numbers_may_be_written_as_numbers() -> None:
    assert parse_limit("memory", 512 * MIB) == 512 * MIB
    assert parse_limit("cpu", 1) == 1.0
    assert parse_limit("open_files", 4096) == 4096
