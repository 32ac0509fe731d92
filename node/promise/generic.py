"""What a release's promise is made of: `class RunPromise(GenericPromise)` with a method `sense`.

The names of the methods are the interface that the promises of the field are written against
(slap-node.md §5.5), and stay in its camelCase. Everything else here is as everywhere.
"""
# ruff: noqa: N802 - see above

import logging
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

from slapos.node.promise.history import FAILURE_LEVELS, History, Run, judge
from slapos.node.promise.log import RunLog, transaction_of
from slapos.node.promise.result import KINDS, Kind, shortened
from slapos.node.promise.state_file import DEFAULT_PERIODICITY, PromiseState
from slapos.system.clock import Clock, SystemClock

TRUE_WORDS = frozenset({"true", "yes", "1", "on"})
FALSE_WORDS = frozenset({"false", "no", "0", "off"})


class BaseResult:
    """What `test` and `anomaly` return: whether there is a problem, and what to say of it."""

    kind: ClassVar[str] = "Base Result"

    def __init__(
        self, problem: bool = False, message: str | None = None, date: datetime | None = None
    ) -> None:
        """`date` is in UTC, now when it is not given."""
        self._problem = problem
        self._message = None if message is None else shortened(message)
        self._date = date or SystemClock().now()

    def hasFailed(self) -> bool:
        """Whether there is a problem."""
        return self._problem

    @classmethod
    def type(cls) -> str:
        """Return what the result file calls this kind."""
        return cls.kind

    @property
    def message(self) -> str | None:
        """What to say, its end when it is long."""
        return self._message

    @property
    def date(self) -> datetime:
        """When it was found out."""
        return self._date


class TestResult(BaseResult):
    """What came of a test: it makes the processing of a partition succeed or fail."""

    __test__ = False  # no test case, whatever pytest thinks of its name
    kind: ClassVar[Kind] = KINDS["test"]


class AnomalyResult(BaseResult):
    """What came of looking for an anomaly: a failing one has the instance processed again."""

    kind: ClassVar[Kind] = KINDS["anomaly"]


class EmptyResult(BaseResult):
    """Nothing to say."""

    kind = "Empty Result"

    def __init__(self) -> None:
        super().__init__()


class GenericPromise(ABC):
    """A promise. `config` has what the launcher knows, and the release's `extra_config_dict`."""

    def __init__(self, config: dict[str, Any], *, clock: Clock | None = None) -> None:
        """Take `name`, `path` and `partition-folder`; all other keys of `config` are optional.

        Raises ValueError for a config that cannot be.
        """
        self.__config = config
        self.__clock = clock or SystemClock()
        self.__name = str(_needed(config, "name"))
        self.__path = str(_needed(config, "path"))
        self.__partition_folder = str(_needed(config, "partition-folder"))
        self.__title = str(config.pop("promise-title", None) or os.path.splitext(self.__name)[0])
        self.__log_folder: str | None = config.pop("log-folder", None)
        self.__log_file = (
            os.path.join(self.__log_folder, f"{self.__title}.log") if self.__log_folder else None
        )
        self.setPeriodicity(config.pop("periodicity", DEFAULT_PERIODICITY))
        self.__allow_bang = _as_bool(config.pop("bang-on-failure", None) or True)
        self.__is_tested = True
        self.__is_anomaly_detected = True
        self.__begun = self.__clock.now()
        self.__history = History(PromiseState(self.__partition_folder).history_path(self.__title))
        self.__run_log = RunLog(
            self.__log_file,
            config.pop("promise-transaction", None) or transaction_of(self.__begun),
        )
        #: What the promise finds is what it logs here: at ERROR or CRITICAL it is a failure.
        # A logger outside the tree of loggers: libraries log there too, and are no findings.
        self.logger = logging.Logger(self.__name)
        self.logger.setLevel(logging.DEBUG if config.pop("debug", True) else logging.INFO)
        self.logger.addHandler(self.__run_log)

    # What it was given.

    def getConfig(self, key: str, default: Any = None) -> Any:
        """Return an option."""
        return self.__config.get(key, default)

    def setConfig(self, key: str, value: Any) -> None:
        """Set an option."""
        self.__config[key] = value

    def getTitle(self) -> str:
        """Return what its results and logs are called: the file name without `.py`."""
        return self.__title

    def getName(self) -> str:
        """Return its file name."""
        return self.__name

    def getPromiseFile(self) -> str:
        """Return the path of its file."""
        return self.__path

    def getPartitionFolder(self) -> str:
        """Return the directory of its partition."""
        return self.__partition_folder

    def getLogFolder(self) -> str | None:
        """Return the directory of its log, None when it has none."""
        return self.__log_folder

    def getLogFile(self) -> str | None:
        """Return the path of its log, None when it has none."""
        return self.__log_file

    # How it is to be run.

    def setPeriodicity(self, minute: float | str) -> None:
        """Run every `minute` minutes, fractions allowed. Raises ValueError unless more than 0."""
        periodicity = float(minute)
        if not 0 < periodicity < math.inf:
            raise ValueError(f"a promise cannot run every {minute} minutes: more than 0 is needed")
        self.__periodicity = periodicity

    def getPeriodicity(self) -> float:
        """Return every how many minutes it runs."""
        return self.__periodicity

    def setTestLess(self) -> None:
        """Take no part in deciding whether a partition was processed well."""
        self.__is_tested = False

    def isTested(self) -> bool:
        """Whether it takes part in that."""
        return self.__is_tested

    def setAnomalyLess(self) -> None:
        """Take no part in looking for anomalies of a running instance."""
        self.__is_anomaly_detected = False

    def isAnomalyDetected(self) -> bool:
        """Whether it takes part in that."""
        return self.__is_anomaly_detected

    def allowBang(self, allow: bool = True) -> None:
        """Say whether an anomaly has the instance processed again."""
        self.__allow_bang = allow

    # What it is about.

    @abstractmethod
    def sense(self) -> None:
        """Look, and log what is found."""

    def test(self) -> BaseResult:
        """Say whether the partition was processed well; by default as the last run went."""
        return self._test()

    def anomaly(self) -> BaseResult:
        """Say whether something is wrong; by default as the last run went."""
        return self._anomaly()

    def _test(
        self, result_count: int = 1, failure_amount: int = 1, latest_minute: float = 0
    ) -> TestResult:
        """Count failures (`history.judge` has the rule) for a TestResult."""
        return TestResult(*self.__judged(result_count, failure_amount, latest_minute))

    def _anomaly(
        self, result_count: int = 1, failure_amount: int = 1, latest_minute: float = 0
    ) -> AnomalyResult:
        """Count failures (`history.judge` has the rule) for an AnomalyResult."""
        return AnomalyResult(*self.__judged(result_count, failure_amount, latest_minute))

    def getLastPromiseResultList(
        self, latest_minute: float = 0, result_count: int = 1, only_failure: bool = False
    ) -> list[list[dict[str, Any]]]:
        """Return what the last runs logged, the newest first, this one included once it logged.

        Each run is a list of `{"date": local time without zone, "status": level, "message": text}`.
        """
        current = self.current_run()
        runs = [*([current] if current.lines else []), *self.__history.newest_first()]
        oldest = self.__clock.now().timestamp() - (latest_minute * 60 or math.inf)
        return [
            [
                {"date": _local(line.date), "status": line.level, "message": line.message}
                for line in run.lines
                if not only_failure or line.level in FAILURE_LEVELS
            ]
            for run in runs[:result_count]
            if run.date > oldest
        ]

    def current_run(self) -> Run:
        """Return what this run logged so far."""
        return self.__run_log.run(self.__begun.timestamp())

    def __judged(
        self, result_count: int, failure_amount: int, latest_minute: float
    ) -> tuple[bool, str, datetime]:
        now = self.__clock.now()
        verdict = judge(
            self.__runs(),
            now=now.timestamp(),
            result_count=result_count,
            failure_amount=failure_amount,
            latest_minute=latest_minute,
        )
        return verdict.problem, verdict.message, now

    def __runs(self) -> Iterator[Run]:
        yield self.current_run()
        yield from self.__history.newest_first()


def _needed(config: dict[str, Any], key: str) -> Any:
    value = config.pop(key, None)
    if value is None:
        raise ValueError(f"the config of a promise needs {key!r}")
    return value


def _as_bool(value: Any) -> bool:
    word = str(value).lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError(f"bang-on-failure is true or false, not {value!r}")
    return word in TRUE_WORDS


def _local(date: float) -> datetime:
    """Return a moment as promises of the field compare it: local, without zone."""
    return datetime.fromtimestamp(date, UTC).astimezone().replace(tzinfo=None)
