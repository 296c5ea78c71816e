"""What the elements of a camt message hold. Names are looked up in any namespace, so every version is one."""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import Protocol

from payments.statements.values import Unreadable, iso_date, money, shortened
from shop.kernel.money import Money


class Element(Protocol):
    """What is used of an lxml element (lxml has no types of its own)."""

    tag: str
    text: str | None
    sourceline: int | None

    def find(self, path: str) -> Element | None: ...
    def findall(self, path: str) -> list[Element]: ...
    def findtext(self, path: str) -> str | None: ...
    def get(self, attribute: str, default: str) -> str: ...
    def getparent(self) -> Element | None: ...
    def getprevious(self) -> Element | None: ...
    def clear(self, *, keep_tail: bool) -> None: ...
    def remove(self, child: Element) -> None: ...


@cache
def _path(names: str) -> str:
    return "/".join(f"{{*}}{name}" for name in names.split("/"))


def has(element: Element, names: str) -> bool:
    return element.find(_path(names)) is not None


def every(element: Element, names: str) -> list[Element]:
    return element.findall(_path(names))


def text(element: Element, *choices: str) -> str:
    """The text of the first of the paths that has one; else empty."""
    for names in choices:
        found = (element.findtext(_path(names)) or "").strip()
        if found:
            return found
    return ""


def amount(element: Element, names: str = "Amt") -> Money | None:
    """The amount, never negative; None where there is no such element."""
    found = element.find(_path(names))
    if found is None:
        return None
    return money((found.text or "").strip(), found.get("Ccy", ""), mark=".")


def is_debit(element: Element) -> bool | None:
    """What CdtDbtInd says; None where it is missing."""
    found = text(element, "CdtDbtInd")
    if found not in ("", "CRDT", "DBIT"):
        raise Unreadable(f"the direction (CdtDbtInd) is {shortened(found)}, neither CRDT nor DBIT.")
    return found == "DBIT" if found else None


def change(element: Element) -> Money:
    """The amount of an entry or a balance with its sign; both it and the direction must be there."""
    found, debit = amount(element), is_debit(element)
    if found is None or debit is None:
        raise Unreadable("the amount (Amt) or its direction (CdtDbtInd) is missing.")
    return -found if debit else found


def day(element: Element, name: str) -> date | None:
    """The day in a date, a date and time, or a choice of both; None where there is no such element."""
    found = text(element, f"{name}/Dt", f"{name}/DtTm", name)
    return iso_date(found) if found else None


def code(element: Element) -> str:
    """The bank transaction code: `domain/family/subfamily`, else the bank's own; empty where there is none."""
    domain = "BkTxCd/Domn"
    names = (f"{domain}/Cd", f"{domain}/Fmly/Cd", f"{domain}/Fmly/SubFmlyCd")
    return "/".join(filter(None, (text(element, name) for name in names))) or text(element, "BkTxCd/Prtry/Cd")
