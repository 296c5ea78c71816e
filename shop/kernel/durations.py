"""Durations as people write them in settings: `14d`, `36h`, `90m`, `20s`, `1d12h`, or ISO 8601 (`P14D`)."""

from __future__ import annotations

import re
from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured
from django.utils.dateparse import parse_duration as parse_iso_duration
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

_SHORT = re.compile(
    r"(?:(?P<weeks>\d+)w)?(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?"
)


def parse_duration(text: str) -> timedelta:
    """`text` as a positive duration; `ImproperlyConfigured` with a sentence otherwise."""
    text = text.strip()
    match = _SHORT.fullmatch(text)
    duration = None
    if match and text:
        duration = timedelta(**{unit: int(n) for unit, n in match.groupdict().items() if n})
    elif text.startswith("P"):
        duration = parse_iso_duration(text)
    if not duration or duration <= timedelta(0):
        raise ImproperlyConfigured(
            f"{text!r} is not a duration. Write 14d, 36h, 90m or 20s, or an ISO 8601 duration such as P14D."
        )
    return duration


def in_words(duration: timedelta) -> str:
    """`14 d`, `1 h 30 min` or `2.5 s`; fractions of seconds only below a minute."""
    exact = duration.total_seconds()
    if exact < 60:
        return _("%s s") % number_format(f"{round(exact, 1):g}")
    days, rest = divmod(round(exact), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    parts = (
        ngettext("%d d", "%d d", days) % days if days else "",
        _("%d h") % hours if hours else "",
        _("%d min") % minutes if minutes else "",
        _("%d s") % seconds if seconds else "",
    )
    return " ".join(filter(None, parts))


def roughly(duration: timedelta) -> timedelta:
    """An age as people tell it: in whole days, hours, minutes or seconds, whichever is the first to count."""
    for unit in (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)):
        if duration >= unit:
            return duration // unit * unit
    return timedelta(seconds=max(0, int(duration.total_seconds())))
