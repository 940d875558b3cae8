"""An error of the child arrives with its class, its words and where it came from."""

from __future__ import annotations

import inspect

import msgspec
import pytest

from headrace import errors
from headrace.engine.remote.errors_on_wire import ErrorReport, RemoteCause, last_report, rebuilt, report
from headrace.errors import EngineDead, HeadraceError, InvalidParameter, ModelNotSupported

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HeadraceError)]


def _sent(given: ErrorReport) -> HeadraceError:
    return rebuilt(msgspec.msgpack.decode(msgspec.msgpack.encode(given), type=ErrorReport))


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_of_the_tree_keeps_class_message_and_code(kind: type[HeadraceError]) -> None:
    error: HeadraceError = kind.__new__(kind, "17 of 12")
    received = _sent(report(error))
    assert type(received) is kind
    assert (str(received), received.code, received.http_status) == ("17 of 12", kind.code, kind.http_status)
    assert received.__cause__ is None


def test_an_error_made_of_parts_keeps_them() -> None:
    received = _sent(report(InvalidParameter("top_p", 3.0, "at most 1")))
    assert isinstance(received, InvalidParameter)
    assert (received.name, received.value, received.allowed) == ("top_p", 3.0, "at most 1")
    assert str(received) == "top_p=3.0 is not allowed: at most 1"


def test_the_cause_and_the_traceback_come_as_text() -> None:
    try:
        try:
            raise KeyError("q_proj")
        except KeyError as cause:
            raise ModelNotSupported("it has no queries") from cause
    except ModelNotSupported as error:
        received = _sent(last_report(error, "loading"))
    assert isinstance(received, ModelNotSupported)
    assert isinstance(received.__cause__, RemoteCause)
    assert str(received.__cause__) == "KeyError: 'q_proj'"
    assert "raise KeyError" in (received.__cause__.traceback or "")
    again = _sent(report(received))  # a process between passes it on
    assert str(again.__cause__) == "KeyError: 'q_proj'"


def test_an_error_of_another_family_says_what_was_being_done() -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        received = _sent(last_report(error, "the engine could not be started"))
    assert isinstance(received, EngineDead)
    assert str(received) == "the engine could not be started: ZeroDivisionError: division by zero"
    assert "1 / 0" in (received.__cause__.traceback or "")


def test_a_class_that_is_not_known_here_is_the_root() -> None:
    assert type(rebuilt(ErrorReport("FromTheFuture", "words"))) is HeadraceError
    assert type(rebuilt(ErrorReport("annotations", "words"))) is HeadraceError
