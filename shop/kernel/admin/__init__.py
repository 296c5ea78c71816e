"""The admin of the ground: what every app's admin builds on, and the outbox."""

from shop.kernel.admin import messages

__all__ = ["messages"]
