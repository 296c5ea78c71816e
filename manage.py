#!/usr/bin/env python
"""Django's command line for Vorkasse."""

import contextlib
import json
import os
import sys
from pathlib import Path


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    if sys.argv[1:2] == ["up"]:
        os.environ.setdefault("DEBUG", "true")  # what `up` starts on one's own machine is a practice shop
    elif "DATABASE_URL" not in os.environ:
        _take_settings_of_the_running_shop()
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))


def _take_settings_of_the_running_shop() -> None:
    """Beside a running `make run`, every command works on that shop; see `shop.up.shop.Shop.settings_note`."""
    data_dir = Path(os.environ.get("DATA_DIR") or Path(__file__).parent / ".data")
    with contextlib.suppress(FileNotFoundError):
        for name, value in json.loads((data_dir / "settings.json").read_text()).items():
            os.environ.setdefault(name, value)


if __name__ == "__main__":
    main()
