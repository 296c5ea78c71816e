from shop.kernel.models.erasure import AppendOnly, Erasure
from shop.kernel.models.outbox import OutboxMessage
from shop.kernel.models.second_person import ActRequest

__all__ = ["ActRequest", "AppendOnly", "Erasure", "OutboxMessage"]
