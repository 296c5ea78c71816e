"""Where a request comes from, as far as that can be believed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from django.conf import settings
from django.http import HttpRequest

ONE_HOUSEHOLD = 64  # bits: whoever has an IPv6 address has all that share these with it


def client_address(request: HttpRequest) -> str | None:
    """The address of the client; of IPv6 its network, because a client may change the rest at will.

    Behind proxies each appends to X-Forwarded-For whom it heard from. The last `PROXY_COUNT` entries are theirs, so
    the first of these is the client; what stands before them was sent by the client itself. None: unknown.
    """
    if settings.BEHIND_PROXY:
        told = request.headers.get("X-Forwarded-For", "").split(",")
        if len(told) >= settings.PROXY_COUNT and (address := _parsed(told[-settings.PROXY_COUNT])):
            return address
    return _parsed(request.META.get("REMOTE_ADDR") or "")


def _parsed(text: str) -> str | None:
    """From `192.0.2.1`, `2001:db8::1`, or either with a port, as some proxies write it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address: IPv4Address | IPv6Address | None = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(ip_network((int(address), ONE_HOUSEHOLD), strict=False).network_address)
        address = address.ipv4_mapped
    return str(address)
