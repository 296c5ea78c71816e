"""The admin of the ground: what every app's admin builds on, the outbox, and what waits for a second person."""

from shop.kernel.admin import messages, requests

__all__ = ["messages", "requests"]
