from tests.orders.conftest import engine, mailbox, provider, provider_process, shop
from tests.shop.processes import start_worker

__all__ = ["engine", "mailbox", "provider", "provider_process", "shop", "start_worker"]
