from tests.orders.conftest import mailbox, provider, provider_process

__all__ = ["mailbox", "provider", "provider_process"]
