"""Somebody of the shop's staff in front of the admin: logs in, looks at pages, fills in their forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx2
from lxml import html  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Page:
    """A page that was answered. `text` is what it says, without its markup."""

    url: str
    tree: Any

    @property
    def text(self) -> str:
        return " ".join(self.tree.text_content().split())

    def form_with(self, *names: str) -> Any:
        """The form that has these fields."""
        forms = [form for form in self.tree.forms if set(names) <= set(form.fields.keys())]
        if len(forms) != 1:
            raise LookupError(f"{self.url} has {len(forms)} forms with {', '.join(names)}: {self.text[:500]}")
        return forms[0]

    def boxes(self, name: str) -> list[Any]:
        """The checkboxes of that name."""
        found: list[Any] = self.tree.xpath(f"//input[@type='checkbox'][@name='{name}']")
        return found


class Staff:
    def __init__(self, web: str, name: str, password: str) -> None:
        self._http = httpx2.Client(
            base_url=web, timeout=60, trust_env=False, verify=False, follow_redirects=True
        )
        self.fill_in(self.look("/admin/login/?next=/admin/"), username=name, password=password)

    def look(self, path: str) -> Page:
        return _page(self._http.get(path))

    def fill_in(self, page: Page, **typed: str) -> Page:
        """Type into the form that has these fields, leave the others as they are, and press its button."""
        form = page.form_with(*typed)
        for name, text in typed.items():
            form.fields[name] = text
        data: dict[str, list[str]] = {}
        for name, value in form.form_values():
            data.setdefault(name, []).append(value)
        answered = _page(self._http.post(httpx2.URL(page.url).join(form.get("action") or ""), data=data))
        if answered.tree.xpath("//*[contains(@class, 'errornote')]"):
            raise RuntimeError(f"The form of {page.url} was refused: {answered.text[:500]}")
        return answered


def _page(answer: httpx2.Response) -> Page:
    answer.raise_for_status()
    return Page(str(answer.url), html.fromstring(answer.text))
