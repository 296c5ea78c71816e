"""Log lines that can be followed: which order, which workflow, which request; and nobody's personal data.

Only the fields named here get into a line. What a message or a traceback may bring along from elsewhere (a mail
server's answer, the row in a database error) is masked.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from pythonjsonlogger.core import LogData
from pythonjsonlogger.json import JsonFormatter
from temporalio import activity, workflow

from shop.kernel.search_attributes import ORDER_NUMBER

FACTS = ("order_number", "workflow_id", "request_id", "activity", "attempt", "method", "path", "status", "ms")

_about: ContextVar[Mapping[str, Any]] = ContextVar("log_facts", default=MappingProxyType({}))

_MASKS = (
    # PostgreSQL's: the values of the row.
    (re.compile(r"DETAIL: .*"), "DETAIL: (left out)"),
    (re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)*"), "(mail address)"),
    # An IBAN, and not the RF reference of a payment, which is ours.
    (re.compile(r"\b(?!RF)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), "(IBAN)"),
)


@contextlib.contextmanager
def about(**facts: Any) -> Iterator[None]:
    """Say of every line written inside what it is about; names are those of `FACTS`, and empty values say nothing."""
    token = _about.set({**_about.get(), **{name: value for name, value in facts.items() if value}})
    try:
        yield
    finally:
        _about.reset(token)


def masked(text: str) -> str:
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return text


def facts(record: logging.LogRecord) -> dict[str, Any]:
    """What the line is about: by its own `extra`, by `about`, and by the activity or workflow that writes it."""
    found = {**_of_temporal(), **_about.get()}
    found |= {name: value for name in FACTS if (value := record.__dict__.get(name)) is not None}
    return {name: found[name] for name in FACTS if name in found}


def _of_temporal() -> dict[str, Any]:
    if activity.in_activity():
        info = activity.info()
        return {"workflow_id": info.workflow_id, "activity": info.activity_type, "attempt": info.attempt}
    if workflow.in_workflow():
        number = workflow.info().typed_search_attributes.get(ORDER_NUMBER)
        return {"workflow_id": workflow.info().workflow_id} | ({"order_number": number} if number else {})
    return {}


class LineFormatter(logging.Formatter):
    """For people: LOG_FORMAT=line."""

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


class JSONLines(JsonFormatter):
    """For machines: LOG_FORMAT=json, one object a line."""

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["level"], log_data["logger"] = record.levelname, record.name
        log_data["message"] = record.message
        log_data |= facts(record)
        for name in ("exc_info", "stack_info"):
            if name in message_dict:
                log_data[name] = message_dict[name]

    def process_log_record(self, log_data: LogData) -> LogData:
        return {name: masked(v) if isinstance(v, str) else v for name, v in log_data.items()}
