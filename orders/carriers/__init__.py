"""The carriers that this installation has: a name in settings for each, a module in this package."""

from __future__ import annotations

from functools import cache

from django.conf import settings
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from orders.carriers.base import Carrier, CarrierMisconfigured


@cache
def carrier(name: str) -> Carrier:
    """The carrier called `name` in `settings.CARRIERS`."""
    try:
        path = settings.CARRIERS[name]
    except KeyError:
        known = ", ".join(sorted(settings.CARRIERS)) or _("none")
        raise CarrierMisconfigured(
            _("The carrier “{name}” is not set up here; set up are: {known}.").format(name=name, known=known),
            "unknown_carrier",
        ) from None
    made: Carrier = import_string(path)()
    return made
