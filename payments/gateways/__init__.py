"""The gateways that this installation has: a name in settings for each, a module in this package."""

from __future__ import annotations

from functools import cache

from django.conf import settings
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from payments.gateways.base import Gateway, GatewayMisconfigured


@cache
def gateway(name: str) -> Gateway:
    """The gateway called `name` in `settings.PAYMENT_GATEWAYS`, a remote one with its manners."""
    try:
        path = settings.PAYMENT_GATEWAYS[name]
    except KeyError:
        known = ", ".join(sorted(settings.PAYMENT_GATEWAYS)) or _("none")
        raise GatewayMisconfigured(
            _("The payment method “%(name)s” is not set up here; set up are: %(known)s.")
            % {"name": name, "known": known},
            "unknown_gateway",
        ) from None
    made: Gateway = import_string(path)()
    if not made.capabilities.remote:
        return made
    # The models, which it needs, import this package for its words.
    from payments.gateways.manners import mannered

    return mannered(made)
