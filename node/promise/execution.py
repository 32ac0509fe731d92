"""Running one plugin, in a process of its own (process.py): foreign code is run only here."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from slapos.node.promise.history import LogLine, Run
from slapos.node.promise.result import KINDS, Kind, Mode, shortened
from slapos.node.promise.state_file import DEFAULT_PERIODICITY, Schedule
from slapos.protocol.errors import MalformedDocument, SlapOSError
from slapos.system.clock import Clock


class BrokenPlugin(SlapOSError):
    """A plugin cannot be loaded, or does not keep to the interface."""

    code = "broken_plugin"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one run: with `kind` None, the promise had nothing to do in this mode.

    `lines` is what it logged. `schedule` is None when the promise itself never came to word.
    """

    kind: Kind | None
    failed: bool = False
    message: str = ""
    may_bang: bool = False
    lines: tuple[LogLine, ...] = ()
    schedule: Schedule | None = None

    def to_json(self) -> str:
        """Return it as it travels to the launcher."""
        return json.dumps(asdict(self))


def outcome_from_json(text: bytes) -> Outcome:
    """Read what `Outcome.to_json` wrote. Raises MalformedDocument."""
    try:
        values = json.loads(text)
        values["lines"] = tuple(LogLine(**line) for line in values["lines"])
        values["schedule"] = values["schedule"] and Schedule(**values["schedule"])
        return Outcome(**values)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MalformedDocument(f"this is no outcome of a promise: {error!r}") from error


def run_plugin(path: Path, config: dict[str, Any], mode: Mode, clock: Clock) -> Outcome:
    """Load the plugin `path`, run its promise, and return what came of it.

    Whatever goes wrong in the plugin's code is a failed outcome.
    """
    module = _own_module(path)
    try:
        return outcome_of(_load_promise(path, module, config), mode)
    except BrokenPlugin as error:
        message = shortened(str(error))
        line = LogLine(clock.now().timestamp(), "ERROR", message)
        return Outcome(kind=KINDS[mode], failed=True, message=message, lines=(line,))
    finally:
        sys.modules.pop(module.__name__, None)


def _sense(promise: Any) -> None:
    try:
        promise.sense()
    except BaseException as error:  # noqa: BLE001 - the plugin's code may raise anything
        promise.logger.error("%s", _shown(error, Path(promise.getPromiseFile())))


def outcome_of(promise: Any, mode: Mode, sense: Callable[[Any], None] = _sense) -> Outcome:
    """Have a promise sense, and return what came of it."""
    schedule = Schedule(
        periodicity=float(_asked(promise, "getPeriodicity", DEFAULT_PERIODICITY)),
        is_tested=bool(_asked(promise, "isTested", True)),
        is_anomaly_detected=bool(_asked(promise, "isAnomalyDetected", True)),
    )
    result: dict[str, Any] = {"kind": None}
    if not (schedule.is_tested or schedule.is_anomaly_detected):
        result = _failed(mode, "neither test nor anomaly is left to it: it may disable only one")
    elif schedule.takes_part(mode):
        sense(promise)
        result = _conclude(promise, mode)
    return Outcome(
        **result,
        # slapos.core's promises have no method for it, but keep it where ours do.
        may_bang=bool(getattr(promise, "_GenericPromise__allow_bang", True)),
        lines=_current_run(promise).lines,
        schedule=schedule,
    )


def _load_promise(path: Path, module: ModuleType, config: dict[str, Any]) -> Any:
    """Return the promise of a plugin. Raises BrokenPlugin with a cause for the release's author."""
    try:
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
        extra = getattr(module, "extra_config_dict", {})
        check_options(extra, config)
        return module.RunPromise(config | extra)
    except BrokenPlugin:
        raise
    except SyntaxError as error:
        cause = f"line {error.lineno}: {error.msg}"
    except ImportError as error:
        cause = f"{error}; are the eggs in its sys.path[0:0] still there?"
    except AttributeError as error:
        cause = "it has no class RunPromise" if error.obj is module else _shown(error, path)
    except BaseException as error:  # noqa: BLE001 - the plugin's code may raise anything
        cause = _shown(error, path)
    raise BrokenPlugin(f"{path} cannot be loaded: {cause}")


def _own_module(path: Path) -> ModuleType:
    """Return an empty module under a name that no import statement can say.

    So a promise called `http.py` hides no module, and one called `slapos_x.py` is not taken for a
    part of ours.
    """
    module = ModuleType(f"promise plugin {path.name}")
    module.__file__ = str(path)
    # Dataclasses and pickle look a class's module up here.
    sys.modules[module.__name__] = module
    return module


def check_options(extra: Any, config: dict[str, Any]) -> None:
    """Raise BrokenPlugin when the options of a plugin are none, or take what is the launcher's."""
    if not isinstance(extra, dict):
        raise BrokenPlugin(f"extra_config_dict is a {type(extra).__name__}, not a dict")
    taken = sorted(str(key) for key in extra if key in config)
    if taken:
        raise BrokenPlugin(
            f"extra_config_dict has {', '.join(taken)}, which the launcher itself sets; "
            "give it another name"
        )


def _conclude(promise: Any, mode: Mode) -> dict[str, Any]:
    ask: Callable[[], Any] = promise.test if mode == "test" else promise.anomaly
    try:
        found = ask()
        if not callable(getattr(found, "hasFailed", None)):
            return _failed(mode, f"its method {mode} returned {found!r}, which is no result")
        kind = found.type()
        return {
            "kind": cast(Kind, kind) if kind in KINDS.values() else None,
            "failed": bool(found.hasFailed()),
            "message": str(found.message or ""),
        }
    except BaseException as error:  # noqa: BLE001 - the plugin's code may raise anything
        return _failed(mode, _shown(error, Path(promise.getPromiseFile())))


def _failed(mode: Mode, message: str) -> dict[str, Any]:
    return {"kind": KINDS[mode], "failed": True, "message": shortened(message)}


def _asked(promise: Any, method: str, default: Any) -> Any:
    return getattr(promise, method)() if hasattr(promise, method) else default


def _current_run(promise: Any) -> Run:
    return cast(Run, promise.current_run()) if hasattr(promise, "current_run") else Run(0.0)


def _shown(error: BaseException, path: Path) -> str:
    """Return an error with the line of the plugin that it passed through, else its last one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == str(path)] or frames[-1:]
    place = f" ({os.path.basename(own[-1].filename)}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"
