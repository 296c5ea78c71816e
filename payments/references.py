"""Creditor references (ISO 11649) for merchant references, and the search for both in what payers write.

A payer's text proves a reference when the check digits fit, or when it names an order number by its prefix
and only one reading is possible. Everything else is a proposal for staff, with the reason: never a guess.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from django.utils.translation import gettext_noop
from stdnum import iso11649

PREFIX = "ORD"
"""What the order numbers of this shop begin with. `find` looks for these only."""

_MERCHANT_REFERENCE = re.compile(r"([A-Z]{1,8})-(\d{1,15})", re.ASCII)
_BODY = re.compile(r"([A-Z]{1,8})(\d{1,15})(?:X([1-9]\d{0,3}))?", re.ASCII)
_SHORTEST = 6
"""Digits of the shop's order numbers at least: the sequence starts at 100001. Shorter ones are found only where
nothing else can be meant."""


def creditor_reference(merchant_reference: str, attempt: int) -> str:
    """The reference that a payer is asked to write: `ORD-100001` gives RFkkORD100001, its second attempt …X2.

    `attempt` counts from 1. Raises ValueError for a merchant reference of another form than letters, a
    dash and digits, and for one too long for the 21 characters that ISO 11649 leaves.
    """
    match = _MERCHANT_REFERENCE.fullmatch(merchant_reference)
    if match is None or not 1 <= attempt <= 9999:
        raise ValueError(
            f"{merchant_reference!r}, attempt {attempt}, cannot be written as a creditor reference: that takes "
            "up to 8 capital letters, a dash and up to 15 digits, and an attempt from 1 to 9999."
        )
    body = match[1] + match[2] + (f"X{attempt}" if attempt > 1 else "")
    if len(body) > 21:
        raise ValueError(f"{merchant_reference!r} is too long for a creditor reference (ISO 11649).")
    return f"RF{_check_digits(body)}{body}"


def parse_creditor_reference(text: str) -> tuple[str, int] | None:
    """Merchant reference and attempt of a creditor reference, spaces and case aside; None if it is not ours."""
    compact = iso11649.compact(text)
    match = _BODY.fullmatch(compact[4:])
    if match is None or not iso11649.is_valid(compact):
        return None
    parsed = f"{match[1]}-{match[2]}", int(match[3] or 1)
    # Only what `creditor_reference` writes: the check digits 00 and 01 also "fit", and X1 is not written.
    return parsed if creditor_reference(*parsed) == compact else None


def format_creditor_reference(reference: str) -> str:
    """In groups of four, as people read it (ISO 11649, paper form)."""
    return iso11649.format(reference)


# --- what payers write -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """`certain`: merchant reference and attempt, None where only the order number was named."""

    certain: frozenset[tuple[str, int | None]]
    proposals: tuple[tuple[str, str], ...]
    """Merchant reference and why it may be meant, the likeliest first."""


_GAPS = frozenset("-‐‑‒–—−./_\u00ad\u200b")
"""With white space: what payers, their phones and their banks put between the characters of a reference."""

_ORDER = re.compile(rf"(?P<prefix>{PREFIX.replace('O', '[O0]')})[:#]*(?=[0-9O])", re.ASCII)
_CHECK_DIGITS = re.compile(r"RF[:#]*([0-9O]{1,2})$", re.ASCII)
"""Before an order number."""
_NUMBER = re.compile(r"[0-9]*", re.ASCII)
_CONFUSED_NUMBER = re.compile(rf"(?:[0-9]|O(?!{PREFIX[1:]}))*", re.ASCII)
_ATTEMPT = re.compile(r"X(?=[0-9])", re.ASCII)
_WORD = re.compile(
    r"(?P<word>ORDER|BESTELL|AUFTRAG|RECHNUNG|INVOICE|ORDN)[A-ZÄÖÜäöü]{0,12}[:#°]*(?=[0-9])", re.ASCII
)
_LONGEST = 15
"""Digits."""


class _Text:
    """A text in capitals, without gaps; `starts` tells before which characters there was one."""

    def __init__(self, text: str) -> None:
        characters: list[str] = []
        self.starts: set[int] = {0}
        for character in text:
            if character.isspace() or character in _GAPS:
                self.starts.add(len(characters))
            else:
                characters.append(character.upper() if character.isascii() else character)
        self.starts.add(len(characters))
        self.text = "".join(characters)

    def touches_letter(self, place: int) -> bool:
        """Whether the character before `place` is a letter that touches it."""
        return place not in self.starts and self.text[place - 1].isalpha()

    def ends(self, first: int, last: int) -> list[int]:
        """Where a number that begins at `first`, in digits that go on to `last`, may end."""
        whole = [last] if last - first <= _LONGEST else []
        inner = range(first + 1, min(last, first + _LONGEST + 1))
        return [place for place in inner if place in self.starts] + whole

    def may_go_on_with_zero(self, place: int) -> bool:
        """Whether at `place` there is an O, or several, that could be zeros: that begin no word."""
        after = place
        while self.text[after : after + 1] == "O":
            after += 1
            if after in self.starts or not self.text[after : after + 1].isalpha():
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one place of a text may mean. Several are one doubt; a single certain one is none."""

    references: tuple[tuple[str, int | None], ...]
    certain: bool
    why: str = ""


def find(texts: Iterable[str], known: Callable[[str], bool] | None = None) -> Found:
    """The references and order numbers that a payment names. Give each field of it as one text.

    Spaces, dashes, dots, slashes and line breaks anywhere, lower case and a lost zero of the check digits
    (RF5 for RF05) are read through. The letter O for the digit 0, wrong check digits, numbers under another
    word than the prefix, and numbers that may end in two places (`ORD-100001 5`) give proposals. For the
    last, `known` may tell which merchant references exist; the only one that does is certain then.
    """
    certain: set[tuple[str, int | None]] = set()
    proposals: dict[str, str] = {}
    for text in texts:
        for reading in _readings(_Text(text)):
            references = reading.references
            if not reading.certain and known is not None and reading.why == _WHERE_IT_ENDS:
                existing = tuple(reference for reference in references if known(reference[0]))
                if len(existing) == 1:
                    certain.update(existing)
                    continue
            if reading.certain:
                certain.update(references)
            else:
                for merchant_reference, _ in references:
                    proposals.setdefault(merchant_reference, reading.why)
    with_attempt = {merchant_reference for merchant_reference, attempt in certain if attempt is not None}
    certain -= {(merchant_reference, None) for merchant_reference in with_attempt}
    named = {merchant_reference for merchant_reference, _ in certain}
    return Found(
        frozenset(certain),
        tuple((reference, why) for reference, why in proposals.items() if reference not in named),
    )


_WHERE_IT_ENDS = gettext_noop("It is not clear where the order number ends.")
_CONFUSED = gettext_noop("The letter O and the digit 0 are confused in it.")
_WRONG_CHECK_DIGITS = gettext_noop(
    "The check digits of its creditor reference do not fit: a character is wrong."
)
_MORE_DIGITS = gettext_noop("The check digits fit, but further digits touch it.")
_TOUCHES_A_WORD = gettext_noop("The order number touches the word before it.")
_BEHIND_ANOTHER = gettext_noop("The number stands behind an order number.")
_NOTHING_ELSE = gettext_noop("The text is nothing but this number.")


def _readings(text: _Text) -> Iterator[_Reading]:
    for match in _ORDER.finditer(text.text):
        check = _CHECK_DIGITS.search(text.text, max(0, match.start() - 8), match.start())
        if check:
            yield from _creditor_reference(text, check[1], match)
        else:
            yield from _order_number(text, match)
    for match in _WORD.finditer(text.text):
        why = f"The number stands behind “{match['word'].capitalize()}…”."
        yield from _proposed(text, match.end(), _digits_end(text, match.end()), why)
    if re.fullmatch(r"[0-9]{6,9}", text.text, re.ASCII):
        yield from _proposed(text, 0, len(text.text), _NOTHING_ELSE)


def _order_number(text: _Text, match: re.Match[str]) -> Iterator[_Reading]:
    first = match.end()
    last = _digits_end(text, first)
    if "0" in match["prefix"] or last == first or text.may_go_on_with_zero(last):
        yield from _confused(text, first, "")
        return
    ends = text.ends(first, last)
    full = [end for end in ends if end - first >= _SHORTEST]
    if text.touches_letter(match.start()):
        yield from _proposed(text, first, last, _TOUCHES_A_WORD)
    elif len(full or ends) == 1:
        yield _Reading((_reference(text, first, (full or ends)[0]),), certain=True)
    elif ends:
        yield _Reading(tuple(_reference(text, first, end) for end in full or ends), False, _WHERE_IT_ENDS)
    for start, end in pairwise(ends):
        if end - start >= _SHORTEST:
            yield _Reading((_reference(text, start, end),), False, _BEHIND_ANOTHER)


def _creditor_reference(text: _Text, check: str, match: re.Match[str]) -> Iterator[_Reading]:
    first = match.end()
    last = _digits_end(text, first)
    touching_zero = last not in text.starts and text.may_go_on_with_zero(last)
    if "O" in check or "0" in match["prefix"] or last == first or touching_zero:
        yield from _confused(text, first, check)
        return
    ends = text.ends(first, last)
    proven: list[tuple[str, int | None]] = []
    touched: list[tuple[str, int | None]] = []
    for end in range(first + 1, min(last, first + _LONGEST) + 1):
        for number, attempt, clear in _attempts(text, first, end, last):
            if _check_digits(f"{PREFIX}{number}{f'X{attempt}' if attempt > 1 else ''}") == check.zfill(2):
                # Check digits fit one text in 97: a part of the digits proves nothing if it may be a stump.
                whole = clear and end in ends and (end == last or end - first >= _SHORTEST)
                (proven if whole else touched).append((f"{PREFIX}-{number}", attempt))
    if len({merchant_reference for merchant_reference, _ in proven}) == 1:
        yield _Reading((proven[-1],), certain=True)
    elif proven:
        yield _Reading(tuple(proven), False, _WHERE_IT_ENDS)
    elif touched:
        yield _Reading(tuple(touched), False, _MORE_DIGITS)
    else:
        full = [end for end in ends if end - first >= _SHORTEST] or ends
        yield _Reading(tuple(_reference(text, first, end) for end in full), False, _WRONG_CHECK_DIGITS)


def _attempts(text: _Text, first: int, end: int, last: int) -> Iterator[tuple[str, int, bool]]:
    """The number up to `end` alone and with each attempt behind it, and whether it is clear that it ends there."""
    number = text.text[first:end]
    mark = _ATTEMPT.match(text.text, last) if end == last else None
    yield number, 1, mark is None or last in text.starts
    if mark:
        begin, stop = mark.end(), _digits_end(text, mark.end())
        clear = text.ends(begin, stop)
        for place in range(begin + 1, min(stop, begin + 4) + 1):
            attempt = text.text[begin:place]
            if attempt[0] != "0" and attempt != "1":
                yield number, int(attempt), place in clear


def _confused(text: _Text, first: int, check: str) -> Iterator[_Reading]:
    """Zeros for the letters O: never more than a proposal, whatever the check digits say."""
    match = _CONFUSED_NUMBER.match(text.text, first)
    last = match.end() if match else first
    while last > first and text.text[last - 1] == "O" and not text.may_go_on_with_zero(last - 1):
        last -= 1
    number = text.text[first:last].replace("O", "0")
    if _SHORTEST <= len(number) <= _LONGEST:
        fits = not check or _check_digits(PREFIX + number) == check.replace("O", "0").zfill(2)
        why = _CONFUSED if fits else f"{_CONFUSED} {_WRONG_CHECK_DIGITS}"
        yield _Reading(((f"{PREFIX}-{number}", None),), False, why)


def _proposed(text: _Text, first: int, last: int, why: str) -> Iterator[_Reading]:
    for end in text.ends(first, last):
        if end - first >= _SHORTEST:
            yield _Reading((_reference(text, first, end),), False, why)


def _reference(text: _Text, first: int, last: int) -> tuple[str, int | None]:
    return f"{PREFIX}-{text.text[first:last]}", None


def _digits_end(text: _Text, first: int) -> int:
    match = _NUMBER.match(text.text, first)
    return match.end() if match else first


_LETTERS = {ord(letter): str(ord(letter) - ord("A") + 10) for letter in string.ascii_uppercase}


def _check_digits(body: str) -> str:
    """ISO 7064 mod 97-10, as `stdnum` has it and ten times as fast: a statement asks for very many."""
    return f"{98 - 100 * int(f'{body}RF'.translate(_LETTERS)) % 97:02}"
