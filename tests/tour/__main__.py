"""`make tour`: runs a practice shop through a busy day and writes the pictures and the page of the tour.

`python -m tests.tour [FOLDER]`; the folder is docs/ unless told. Exit code 1 where a stop cannot be reached.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.drill.running_shop import running_shop
from tests.drill.story import StepFailed, Story
from tests.tour import busy_day, page
from tests.tour.stops import BEFORE_OPENING, STOPS, Stop
from tests.tour.visitor import Visitor, visiting

CLERK = "grace"  # who calls commands; else the pictures would name whoever makes them
DOCS = Path(__file__).parents[2] / "docs"


def main(docs: Path) -> int:
    story = Story()
    folder = Path(tempfile.mkdtemp(prefix="vorkasse-tour-"))
    folder.chmod(0o755)  # as root, PostgreSQL's account must be able to get there
    pictures: dict[str, bytes] = {}
    try:
        with running_shop(folder, LOGNAME=CLERK) as shop, visiting(shop) as visitor:
            for stop in BEFORE_OPENING:
                pictures[stop.name] = take(story, visitor, stop)
            with story.step("A busy day"):
                visitor.day = busy_day.begin(shop)
            for stop in STOPS:
                pictures[stop.name] = take(story, visitor, stop)
    except StepFailed as failed:
        print(f"The tour FAILED at “{failed}”. The logs are in {folder / 'logs'}.")
        return 1
    shutil.rmtree(folder)
    page.write(docs, pictures)
    size = sum(map(len, pictures.values()))
    print(f"\n{len(pictures)} pictures, {size / 1e6:.1f} MB, in {docs / 'tour'}; {story.lasted():.0f} s.")
    return 0


def take(story: Story, visitor: Visitor, stop: Stop) -> bytes:
    with story.step(stop.title):
        visitor.wear(dark=stop.dark, narrow=stop.narrow)
        stop.go(visitor)
        assert not visitor.complaints, visitor.complaints
        return visitor.picture()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS))
