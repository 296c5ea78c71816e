"""The catalogs of translations: `make messages` collects what is to be translated and compiles what is.

Babel does the work, so nothing beyond the locked requirements is needed. Each app has a catalog of its own
(`orders/locale/de/LC_MESSAGES/django.po`), which also holds the texts of the templates that show the app.
The compiled catalogs are committed, as Django's own are: a shop starts without a build.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from babel.messages import Catalog, Message
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT = Path(__file__).parents[1]
LANGUAGES = ("de",)
# Where an app's texts stand. A template belongs to the last that names a folder around it.
SOURCES = {
    "shop": ["shop", "templates"],
    "orders": ["orders", "templates/admin/orders", "templates/admin/ops", "templates/mail"],
    "payments": ["payments", "templates/admin/payments"],
}
KEYWORDS: dict[str, Any] = {
    name + lazy: places
    for lazy in ("", "_lazy")
    for name, places in {
        "gettext": None,
        "ngettext": (1, 2),
        "pgettext": ((1, "c"), 2),
        "npgettext": ((1, "c"), 2, 3),
    }.items()
} | {"_": None, "gettext_noop": None}


def path(app: str, language: str) -> Path:
    """The catalog of an app as people write it; its compiled twin has the suffix `.mo`."""
    return ROOT / app / "locale" / language / "LC_MESSAGES" / "django.po"


def catalog(app: str, language: str) -> Catalog:
    """What is translated. Empty where there is no file yet."""
    file = path(app, language)
    if file.exists():
        return read_po(io.BytesIO(file.read_bytes()), locale=language)
    return Catalog(locale=language, header_comment="# Renew with `make messages`.", fuzzy=False)


def collected(app: str) -> Catalog:
    """What is to be translated, with the files where it stands."""
    found = Catalog()
    for file in _files(app):
        method, text = "python", file.read_text()
        if file.suffix != ".py":
            # A template as Python that says the same; what is no text of ours comes out as names, however indented.
            text = re.sub(r"^[ \t]+", "", templatize(text), flags=re.MULTILINE)
        for _line, message, _comments, context in extract(method, io.BytesIO(text.encode()), KEYWORDS):
            # The shop counts in `{n}` and `%(n)d`; which of them Babel guesses is nothing to write down.
            found.add(message, locations=[(str(file.relative_to(ROOT)), 0)], context=context).flags.clear()
    return found


def is_translated(message: Message) -> bool:
    """Every form of it has a text."""
    return all(message.string) if isinstance(message.string, tuple | list) else bool(message.string)


def compiled(translated: Catalog) -> bytes:
    """The bytes of the compiled catalog, the same for the same texts."""
    # The file of texts has no dates, and Babel would take today's.
    translated.creation_date = translated.revision_date = datetime(2026, 1, 1, tzinfo=UTC)
    mo = io.BytesIO()
    write_mo(mo, translated)
    return mo.getvalue()


def _files(app: str) -> Iterator[Path]:
    elsewhere = [ROOT / folder for other, folders in SOURCES.items() if other != app for folder in folders]
    for folder in SOURCES[app]:
        for file in sorted((ROOT / folder).rglob("*")):
            of_another = any(
                file.is_relative_to(each) and each.is_relative_to(ROOT / folder) for each in elsewhere
            )
            if file.suffix in {".py", ".html", ".txt"} and not of_another:
                yield file


def main() -> None:
    for app in SOURCES:
        for language in LANGUAGES:
            translated = catalog(app, language)
            translated.update(collected(app), no_fuzzy_matching=True, update_header_comment=False)
            translated.obsolete.clear()
            file = path(app, language)
            file.parent.mkdir(parents=True, exist_ok=True)
            written = io.BytesIO()
            write_po(
                written, translated, width=110, omit_header=False, sort_by_file=True, include_lineno=False
            )
            # Babel writes fields that say nothing here, and the time of day, which would make every run a change.
            file.write_bytes(
                re.sub(
                    rb'^"(?!Language:|Plural-Forms|MIME|Content)[A-Z][A-Za-z-]+: .*\n',
                    b"",
                    written.getvalue(),
                    flags=re.M,
                )
            )
            file.with_suffix(".mo").write_bytes(compiled(catalog(app, language)))
            missing = [message for message in translated if not is_translated(message)]
            print(f"{app} {language}: {len(translated)} texts, {len(missing)} without a translation")


if __name__ == "__main__":
    main()
