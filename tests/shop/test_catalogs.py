"""The catalogs are whole: every text of the code is in them, translated, with what is put into it, and compiled."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from babel.messages import Message

from tests import messages

CATALOGS = [(app, language) for app in messages.SOURCES for language in messages.LANGUAGES]
each_catalog = pytest.mark.parametrize(("app", "language"), CATALOGS)
# `%(name)s`, `%s`, `%d`, `{name}`, `{name!r}`, `{:g}`; `%%` and `{{` are what they show.
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[#0 +-]*[\d.]*[sdifrgx]|(?<!\{)\{\w*(?:![rsa])?(?::[^{}]*)?\}(?!\})")


def texts(message: Message) -> list[tuple[str, str]]:
    """Each form of the text, with its translation; the plural ones of all numbers but one."""
    if isinstance(message.id, str):
        return [(message.id, str(message.string))]
    one, many = message.id
    strings: Any = message.string
    first, *others = strings
    return [(one, first), *((many, other) for other in others)]


def translations(app: str, language: str) -> Iterator[Message]:
    yield from (message for message in messages.catalog(app, language) if message.id)


def ids(of: object) -> set[tuple[object, object]]:
    return {(message.id, message.context) for message in of if message.id}  # type: ignore[attr-defined]


@each_catalog
def test_the_catalog_has_the_texts_of_the_code_and_no_others(app: str, language: str) -> None:
    """If this fails, run `make messages`."""
    collected, held = ids(messages.collected(app)), ids(messages.catalog(app, language))
    assert collected - held == set(), "not in the catalog: run make messages"
    assert held - collected == set(), "nowhere in the code any more: run make messages"
    assert list(messages.catalog(app, language).obsolete) == []


@each_catalog
def test_every_text_is_translated(app: str, language: str) -> None:
    missing = [message.id for message in translations(app, language) if not messages.is_translated(message)]
    assert missing == []
    assert [message.id for message in translations(app, language) if message.fuzzy] == []


@each_catalog
def test_a_translation_puts_in_what_the_text_does(app: str, language: str) -> None:
    """Another placeholder would be an error on the page, and one less a fact that is not told."""
    wrong = [
        (text, translation)
        for message in translations(app, language)
        for text, translation in texts(message)
        if translation and placeholders(text) != placeholders(translation)
    ]
    assert wrong == []


@each_catalog
def test_a_translation_keeps_the_markup_and_the_edges(app: str, language: str) -> None:
    """A text that ends with a space or is a part of a sentence goes on behind it."""
    wrong = [
        (text, translation)
        for message in translations(app, language)
        for text, translation in texts(message)
        if translation and (tags(text) != tags(translation) or edges(text) != edges(translation))
    ]
    assert wrong == []


@each_catalog
def test_the_compiled_catalog_is_that_of_the_texts(app: str, language: str) -> None:
    """If this fails, run `make messages`."""
    compiled = messages.path(app, language).with_suffix(".mo").read_bytes()
    assert compiled == messages.compiled(messages.catalog(app, language)), "run make messages"


def placeholders(text: str) -> Counter[str]:
    return Counter(PLACEHOLDER.findall(text.replace("%%", "")))


def tags(text: str) -> Counter[str]:
    return Counter(re.findall(r"</?[a-z][^>]*>", text))


def edges(text: str) -> tuple[bool, bool]:
    return text != text.lstrip(), text != text.rstrip()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("%(number)d orders wait for %(money)s.", ["%(number)d", "%(money)s"]),
        ("%s s, %d %%", ["%s", "%d"]),
        ("{text!r} is not one of {names}.", ["{text!r}", "{names}"]),
        ("No answer within {seconds:g} seconds.", ["{seconds:g}"]),
        ("19 % of it", []),
    ],
)
def test_placeholders_are_found(text: str, found: list[str]) -> None:
    assert placeholders(text) == Counter(found)
