"""A process that asks the practice provider, as a worker does: `python -m tests.payments.calling_process 100`.

It says that it is ready, begins when it reads a line, and says the code of each call that was not answered.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import django

THREADS = 8


def ask(number: int) -> None:
    """One call, however often it has to come again; the engine's part is played by a sleep."""
    from django.db import connection

    from payments.gateways import gateway
    from payments.gateways.base import GatewayRefused, GatewayUnavailable
    from payments.gateways.manners import may_wait

    with may_wait():
        while True:
            try:
                gateway("sandbox").status(f"nobody-{number}")
            except GatewayRefused:
                break
            except GatewayUnavailable as error:
                print(error.code, flush=True)
                time.sleep(error.retry_after or 1)
            finally:
                connection.close()


if __name__ == "__main__":
    django.setup()
    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(ask, range(int(sys.argv[1]))))
