"""Every page of the staff site in a browser: nothing breaks the content policy, nothing runs off the side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from orders.models import DeadLetter, Order
from tests.orders.test_admin_books import books
from tests.payments.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db(transaction=True)

LISTS = (
    "orders/order", "orders/product", "orders/opsalertnotice", "orders/mail", "orders/apikey",
    "payments/payment", "payments/reviewitem", "payments/webhookdelivery", "payments/bankstatement",
    "payments/statementfile", "payments/banktransaction", "payments/outgoingtransfer", "payments/transferbatch",
    "payments/batchrun", "payments/gatewaystate", "kernel/outboxmessage",
    "auth/user", "auth/group", "axes/accessattempt", "axes/accesslog",
)  # fmt: skip
FORMS = ("orders/order/add", "orders/product/add", "orders/apikey/add")
ACTS = ("start", "cancel", "confirm-payment", "extend-deadline", "refund", "tracking")
LETTER_ACTS = ("retry", "resolve", "hand-over", "snooze", "wake", "comment")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_keeps_the_content_policy_and_fits_a_phone(
    scheme: str, login: Callable[..., Page], provider: SandboxProcess
) -> None:
    rows = books()
    order, letter = Order.objects.get(), DeadLetter.objects.get()
    addresses = [
        *(f"{name}/" for name in LISTS),
        *(f"{name}/" for name in FORMS),
        *(f"{row._meta.app_label}/{row._meta.model_name}/{row.pk}/change/" for row in (order, *rows)),
        *(f"orders/order/{order.pk}/{act}/" for act in ACTS),
        *(f"orders/order/{act}/?ids={order.pk}" for act in ACTS),
        f"orders/order/?q={order.number}&status__exact=placed",
        "second-factor/",
        "password_change/",
        "ops/dead-letters/",
        *(f"ops/dead-letters/?state={tab}" for tab in ("retrying", "snoozed", "resolved")),
        "ops/dead-letters/retry/",
        f"ops/dead-letters/{letter.pk}/",
        *(f"ops/dead-letters/{letter.pk}/{act}/" for act in LETTER_ACTS),
        "ops/health/",
        "ops/schedules/",
        "ops/scheduleact/",
        "ops/schedules/hourly-payment-batch/pause/",
        "",
    ]
    page = login()
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": 360, "height": 740})
    for address in addresses:
        answer = page.goto(f"/admin/{address}")
        assert answer
        assert answer.status == 200, address
        wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0, f"{address} is {wider} px too wide"
