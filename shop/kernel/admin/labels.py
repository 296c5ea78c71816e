"""A state as a coloured label. The words say it; the colour only helps."""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.safestring import SafeString

TONES = {
    "good": {
        "completed", "working", "succeeded", "delivered", "processed", "sent", "resolved", "closed", "captured", "paid",
        "shipped", "finished",
    },
    "wait": {
        "awaiting_payment", "waiting", "queued", "sending", "pending", "placed", "running", "received",
        "requested", "retrying", "authorized", "partially_paid", "created", "mended",
    },
    "warn": {"asked to wait", "failing", "rolling_back", "compensating", "unknown", "partially_refunded", "incomplete"},
    "bad": {"compensation_failed", "down", "failed", "undeliverable", "rejected", "open", "declined", "died"},
}  # fmt: skip
_TONE = {state: tone for tone, states in TONES.items() for state in states}


def tone(state: str) -> str:
    """`good`, `wait`, `warn`, `bad`, or `off` for what is over and done with."""
    return _TONE.get(state, "off")


def label(state: str, words: str) -> SafeString:
    return format_html('<span class="vk-label vk-{}">{}</span>', tone(state), words)
