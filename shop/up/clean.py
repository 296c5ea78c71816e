"""`python -m shop.up.clean`: drops the data folder and what belongs to it. Needs no package installed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from shop.up import datadir, postgres


def main() -> int:
    data_dir = Path(os.environ.get("DATA_DIR") or ".data").resolve()
    if not data_dir.exists():
        return 0
    if not (data_dir / "lock").exists():
        print(f"{data_dir} is not a data folder of Vorkasse; nothing was deleted.")
        return 1
    try:
        with datadir.locked(data_dir):
            postgres.remove(data_dir)
            shutil.rmtree(data_dir)
    except datadir.AlreadyRunning as running:
        print(running)
        return 1
    print(f"{data_dir} is gone.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
