"""docs/tour.md, made of the stops and their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.tour.stops import BEFORE_OPENING, STOPS, Stop

HEAD = """\
# A tour of the shop

Made by `make tour`: it starts a practice shop, lets a busy day happen to it (orders, payments, a bank statement, a
rollback that fails) and takes these pictures in a browser. Names and orders are made up.
"""


def write(docs: Path, pictures: Mapping[str, bytes]) -> None:
    """Write the page and its pictures, and remove pictures of former tours."""
    folder = docs / "tour"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        if old.stem not in pictures:
            old.unlink()
    for name, picture in pictures.items():
        (folder / f"{name}.png").write_bytes(picture)
    (docs / "tour.md").write_text(text())


def text() -> str:
    wide = [stop for stop in (*BEFORE_OPENING, *STOPS) if not stop.narrow]
    narrow = [stop for stop in STOPS if stop.narrow]
    sections = [f"## {stop.title}\n\n{stop.caption}\n\n{_image(stop)}\n" for stop in wide]
    phone = (
        f"## On a phone\n\n{' '.join(stop.caption for stop in narrow)}\n\n{' '.join(map(_image, narrow))}\n"
    )
    return "\n".join([HEAD, *sections, phone])


def _image(stop: Stop) -> str:
    return f"![{stop.title}](tour/{stop.name}.png)"
