"""`python -m tests.benchmarks [ONLY]`: run the benchmarks, print a table, write bench.json.

`SIZE` scales the work (1 by default; 0.01 shows in seconds that everything runs), `ROUNDS` the repetitions.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path

from tests.servers import temporary_postgres

BENCHMARKS = ("statement", "batch_check", "admin_list")


def main(only: str = "") -> None:
    size, rounds = float(os.environ.get("SIZE", "1")), int(os.environ.get("ROUNDS", "3"))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    os.environ.update(DEBUG="", SECRET_KEY="b" * 50, LOG_LEVEL="WARNING")
    os.environ.update(BANK_IBAN="DE89370400440532013000", BANK_ACCOUNT_HOLDER="Benchmark")
    results = {}
    with temporary_postgres() as url:
        os.environ["DATABASE_URL"] = url
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        for name in BENCHMARKS:
            if only in ("", name):
                results[name] = _run(name, size, rounds)
    Path("bench.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n{'benchmark':12} {'ours':>12} {'baseline':>12} {'ratio':>7}  unit; the baseline is")
    for name, r in results.items():
        print(
            f"{name:12} {r['ours']:12.0f} {r['baseline']:12.0f} {r['ratio']:7.2f}  {r['unit']}; {r['baseline_is']}"
        )


def _run(name: str, size: float, rounds: int) -> dict[str, object]:
    from importlib import import_module

    benchmark = import_module(f"tests.benchmarks.{name}")
    ours, baseline, notes = [], [], []
    for number in range(rounds):
        print(f"{name}: round {number + 1} of {rounds} …", end=" ", flush=True)
        mine, theirs, note = benchmark.round(number, size)
        print(f"ours {mine:.0f}, baseline {theirs:.0f} {benchmark.UNIT} ({note})")
        ours.append(mine)
        baseline.append(theirs)
        notes.append(note)
    return {
        "ours": statistics.median(ours),
        "baseline": statistics.median(baseline),
        "ratio": round(statistics.median(m / t for m, t in zip(ours, baseline, strict=True)), 3),
        "spread": [min(ours), max(ours)],
        "unit": benchmark.UNIT,
        "rounds": rounds,
        "baseline_is": benchmark.BASELINE_IS,
        "notes": notes,
    }


if __name__ == "__main__":
    main(*sys.argv[1:2])
