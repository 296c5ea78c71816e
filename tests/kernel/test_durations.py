from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import override

from shop.kernel.durations import in_words, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("14d", timedelta(days=14)),
        ("20s", timedelta(seconds=20)),
        ("36h", timedelta(hours=36)),
        ("90m", timedelta(minutes=90)),
        ("2w", timedelta(weeks=2)),
        ("1d12h", timedelta(hours=36)),
        (" 1h ", timedelta(hours=1)),
        ("P14D", timedelta(days=14)),
        ("PT36H", timedelta(hours=36)),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "14", "d", "0s", "-1d", "14 days", "1h1d", "P", "PT0S", "-P1D", "1.5h"])
def test_what_is_not_a_duration_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("length", "english", "german"),
    [
        (timedelta(days=1), "1 d", "1 Tag"),
        (timedelta(days=14, hours=2, minutes=5), "14 d 2 h 5 min", "14 Tage 2 h 5 min"),
        (timedelta(seconds=2.5), "2.5 s", "2,5 s"),
        (timedelta(seconds=61), "1 min 1 s", "1 min 1 s"),
        (timedelta(0), "0 s", "0 s"),
    ],
)
def test_durations_are_told_in_the_readers_language(length: timedelta, english: str, german: str) -> None:
    assert in_words(length) == english
    with override("de"):
        assert in_words(length) == german
