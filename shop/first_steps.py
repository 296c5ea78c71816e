"""The guided start: what an empty installation still needs, each a check that turns green by itself."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from orders.models import Order, Product
from payments.gateways import gateway
from shop import probing


@dataclass(frozen=True, slots=True)
class FirstStep:
    """`how` says what to do while it is not done; `url` leads there, for those who may. `optional` may stay undone."""

    label: str | Promise
    is_done: bool
    how: str | Promise
    url: str = ""
    optional: bool = False


def is_needed() -> bool:
    """Whether the shop lacks something without which it cannot take an order, or has taken none."""
    return not (settings.PAYMENT_GATEWAYS and Product.objects.exists() and Order.objects.exists())


def first_steps(user: User | AnonymousUser) -> list[FirstStep]:
    """All of them, in the order in which they are best done."""
    has_bank = "bank_transfer" in settings.PAYMENT_GATEWAYS
    has_provider = any(gateway(name).capabilities.remote for name in settings.PAYMENT_GATEWAYS)
    engine = probing.engine()
    mail = probing.mail()
    trouble = next((health for health in engine if health.is_down), None)
    return [
        FirstStep(
            _("Add your products"),
            Product.objects.exists(),
            _("Each with its price, tax rate, and how many are on the shelf."),
            reverse("admin:orders_product_add") if user.has_perm("orders.add_product") else "",
        ),
        FirstStep(
            _("Set the bank account"),
            has_bank,
            _(
                "For payment in advance by bank transfer. Whoever runs the server sets BANK_IBAN, BANK_BIC and "
                "BANK_ACCOUNT_HOLDER, and starts the shop again."
            ),
            optional=has_provider,
        ),
        FirstStep(
            _("Connect a payment provider"),
            has_provider,
            _("For cards and wallets: STRIPE_API_KEY and STRIPE_WEBHOOK_SECRETS, and start the shop again."),
            optional=has_bank,
        ),
        FirstStep(
            _("Start the worker"),
            trouble is None,
            trouble.says if trouble else "",
            reverse("admin:health"),
        ),
        FirstStep(_("Connect the mail server"), mail.state == "working", mail.says, reverse("admin:health")),
        FirstStep(
            _("Take the first order"),
            Order.objects.exists(),
            _("By hand here, or from your shop's frontend through the API."),
            reverse("admin:orders_order_add") if user.has_perm("orders.add_order") else "",
        ),
    ]
