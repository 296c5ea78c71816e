"""Orders paid by bank transfer, from the instructions in the mail to the money that goes back, through the real saga;
and refunds that staff ask for, whatever the payment method."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from email.message import EmailMessage
from typing import Any

import pytest
import zxingcpp
from django.db import connections
from PIL import Image
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client

from orders.api.outgoing import order_now
from orders.models import Mail, Order, SagaStep
from orders.services import lifecycle
from orders.services.reconciling import money
from payments.gateways import gateway
from payments.models import OutgoingTransfer, Payment, PaymentEvent, Receivable, ReviewItem
from payments.references import creditor_reference
from payments.services import refunding, transfers
from payments.services.recording import absorb, open_payment, record
from payments.services.refunding import RefundRefused
from payments.workflows.refund import RefundInput
from shop import worker
from shop.kernel.money import Money
from tests.orders.practice_shop import PracticeShop
from tests.orders.reconciling import found
from tests.payments.our_bank import ADA, BIC, HOLDER, IBAN, arrives, our_bank
from tests.payments.sandbox_process import SandboxProcess

DAY = date(2026, 1, 9)


class BankShop(PracticeShop):
    """The practice shop, whose customers pay by bank transfer."""

    def place(self, quantity: int = 2, **changes: Any) -> Order:
        return super().place(quantity, **{"payment_method": "bank_transfer", **changes})

    def payment(self, order: Order) -> Payment:
        payment = self.saga(order).payment
        assert payment is not None
        return payment

    def bank_pays(self, order: Order, amount: int | None = None) -> None:
        """A statement shows Ada's money."""
        arrives(self.payment(order), order.total if amount is None else amount)
        self.engine.deliver()

    def disagreements(self) -> list[str]:
        """What `manage.py reconcile` says about money."""
        return [difference.sentence for difference in found(money.orders)]

    def receivables(self, order: Order) -> list[str]:
        rows = Receivable.objects.filter(merchant_reference=order.number).order_by("id")
        return ["captured" if r.captured_at else "voided" if r.voided_at else "open" for r in rows]


@pytest.fixture
def bank_shop(shop: PracticeShop, settings: Any) -> Iterator[BankShop]:
    """A shop that takes bank transfers."""
    with our_bank(settings):
        yield BankShop(shop.engine, shop.provider, shop.mailbox)


# --- the way of an order ---------------------------------------------------------------------------------


def test_order_is_shipped_once_the_statement_shows_its_money(bank_shop: BankShop) -> None:
    order = bank_shop.waiting()
    payment = bank_shop.payment(order)
    assert payment.reference == creditor_reference(order.number, 1)
    hold = SagaStep.objects.get(step="payment_hold")
    assert (hold.outcome, hold.reference) == ("succeeded", payment.reference)
    bank_shop.bank_pays(order, 1000)
    assert bank_shop.saga(order).status == "waiting"
    bank_shop.bank_pays(order, order.total - 1000)
    result = bank_shop.end(order)
    assert (result["status"], result["payment_id"]) == ("completed", payment.reference)
    assert (bank_shop.status(order), bank_shop.shelf(), bank_shop.parcels(order)) == (
        "completed",
        (3, 0),
        ["created"],
    )
    assert bank_shop.receivables(order) == ["captured"]
    assert payment.totals().kept == order.total
    assert bank_shop.mail_kinds() == ["received", "confirmed"]
    assert bank_shop.payments(order) == [], "no provider was asked"
    assert bank_shop.disagreements() == []


def test_order_is_shipped_when_staff_confirm_the_money(bank_shop: BankShop) -> None:
    order = bank_shop.waiting(carrier="manual")
    bank_shop.confirm(order)
    assert bank_shop.end(order)["status"] == "completed"
    assert bank_shop.receivables(order) == ["captured"]


def test_unpaid_order_is_reminded_and_cancelled_and_its_receivable_closed(bank_shop: BankShop) -> None:
    order = bank_shop.waiting()
    result = bank_shop.end(order)
    assert (result["status"], result["reason"]) == ("cancelled", "No payment arrived before the deadline")
    assert bank_shop.receivables(order) == ["voided"]
    assert bank_shop.mail_kinds() == ["received", "reminder", "cancelled"]
    assert not OutgoingTransfer.objects.exists()
    assert not ReviewItem.objects.exists()
    assert bank_shop.disagreements() == []


def test_second_attempt_asks_for_the_money_under_another_reference(bank_shop: BankShop) -> None:
    order = bank_shop.waiting()
    bank_shop.cancel(order)
    bank_shop.end(order, skip=False)
    lifecycle.start(order.number, "grace", "The customer called")
    bank_shop.engine.deliver()
    bank_shop.until_waiting(order)
    assert bank_shop.payment(order).reference == creditor_reference(order.number, 2)
    bank_shop.bank_pays(order)
    assert bank_shop.end(order)["status"] == "completed"
    assert bank_shop.receivables(order) == ["voided", "captured"]


# --- how to pay ------------------------------------------------------------------------------------------


def test_mail_shows_how_to_pay_in_words_and_as_a_code(bank_shop: BankShop) -> None:
    order = bank_shop.waiting()
    reference = creditor_reference(order.number, 1)
    (mail,) = bank_shop.mails()
    assert isinstance(mail, EmailMessage)
    assert mail.get_content_type() == "multipart/related"
    text = mail.get_body(("plain",))
    html = mail.get_body(("html",))
    assert text is not None
    assert html is not None
    grouped = " ".join(reference[i : i + 4] for i in range(0, len(reference), 4))
    for body in (text.get_content(), html.get_content()):
        assert "DE89 3704 0044 0532 0130 00" in body
        assert grouped in body
        assert "€39.98" in body
    (image,) = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert f'src="cid:{image["Content-ID"][1:-1]}"' in html.get_content()
    assert "data:image" not in html.get_content()
    assert image.get_content_disposition() == "inline"
    (code,) = zxingcpp.read_barcodes(Image.open(io.BytesIO(image.get_content())))
    assert code.text.split("\n")[4:] == [BIC, HOLDER, IBAN, "EUR39.98", "", reference]


def test_reminder_asks_for_the_rest(bank_shop: BankShop) -> None:
    order = bank_shop.waiting()
    bank_shop.bank_pays(order, 1000)
    deadline = bank_shop.saga(order).deadline
    assert deadline is not None
    bank_shop.engine.sleep_until(deadline - timedelta(hours=1))
    bank_shop.engine.until(lambda: "reminder" in bank_shop.mail_kinds())
    text = Mail.objects.get(kind="reminder").text
    assert "Please transfer €29.98 to:" in text


def test_payment_by_another_method_has_no_account_in_its_mail(bank_shop: BankShop) -> None:
    order = bank_shop.waiting(payment_method="sandbox")
    (mail,) = bank_shop.mails()
    assert mail.get_content_type() == "multipart/alternative"
    assert "DE89" not in Mail.objects.get().text
    assert order_now(order.number).payment.instructions is None


def test_api_gives_the_instructions_as_long_as_they_are_needed(bank_shop: BankShop) -> None:
    order = bank_shop.waiting()
    given = order_now(order.number).payment
    assert given.instructions is not None
    assert given.instructions.model_dump() == {
        "iban": IBAN,
        "bic": BIC,
        "name": HOLDER,
        "creditor_reference": creditor_reference(order.number, 1),
        "amount": order.total,
    }
    bank_shop.bank_pays(order)
    assert order_now(order.number).payment.instructions is None
    bank_shop.end(order)
    assert order_now(order.number).payment.instructions is None


# --- the way back ----------------------------------------------------------------------------------------


def test_rollback_after_the_capture_asks_for_a_transfer_that_the_bank_closes(bank_shop: BankShop) -> None:
    bank_shop.provider.faults(create_shipment={"refuse_rate": 1})
    order = bank_shop.waiting()
    bank_shop.bank_pays(order)
    result = bank_shop.end(order)
    assert result["status"] == "cancelled"
    assert result["compensated_steps"] == ["payment_captured", "inventory"]
    transfer = OutgoingTransfer.objects.get()
    assert (transfer.state, transfer.amount, transfer.payee_iban) == ("ready", order.total, ADA)
    row = SagaStep.objects.get(step="payment_captured", kind="compensation")
    assert (row.outcome, row.reference) == ("succeeded", transfer.end_to_end_id)
    assert bank_shop.shelf() == (5, 0)
    assert sorted(bank_shop.mail_kinds()) == ["cancelled", "received", "refunded"]
    totals = bank_shop.payment(order).totals()
    assert (totals.refunded, totals.refund_requested, totals.kept) == (0, order.total, 0)
    assert bank_shop.disagreements() == []
    assert not ReviewItem.objects.exists()

    transfers.booked(transfer.end_to_end_id, "B1", transfer.money, DAY)
    totals = bank_shop.payment(order).totals()
    assert (totals.refunded, totals.refund_requested, totals.status) == (order.total, 0, "refunded")
    assert bank_shop.disagreements() == []

    transfers.returned(transfer.end_to_end_id, "AC04")
    assert len(bank_shop.disagreements()) == 1, "the money is ours again, and should not be"


def test_rollback_gives_back_only_what_staff_have_not_refunded_yet(bank_shop: BankShop) -> None:
    bank_shop.provider.faults(create_shipment={"down": True})
    order = bank_shop.waiting()
    bank_shop.bank_pays(order)
    bank_shop.until_failed(order, "shipping")
    refunding.refund(bank_shop.payment(order).pk, 998, "grace", "A dent", "f1")
    bank_shop.engine.deliver()
    bank_shop.engine.until(OutgoingTransfer.objects.exists)
    bank_shop.cancel(order)
    assert bank_shop.end(order)["status"] == "cancelled"
    amounts = OutgoingTransfer.objects.order_by("id").values_list("amount", flat=True)
    assert list(amounts) == [998, order.total - 998]
    assert "€30.00" in Mail.objects.get(kind="refunded", about="").text
    assert bank_shop.disagreements() == []


@pytest.mark.parametrize("send_back", [False, True])
@pytest.mark.parametrize("seen_by", ["staff", "statement"])
def test_money_left_over_is_reviewed_or_sent_back(
    bank_shop: BankShop, settings: Any, seen_by: str, send_back: bool
) -> None:
    settings.REFUND_LATE_MONEY = send_back
    order = bank_shop.waiting()
    if seen_by == "staff":
        bank_shop.confirm(order, 1000)
    else:
        bank_shop.bank_pays(order, 1000)
    bank_shop.cancel(order)
    assert bank_shop.end(order)["compensated_steps"] == ["payment_hold", "inventory"]
    assert bank_shop.receivables(order) == ["voided"]
    open_items = ReviewItem.objects.filter(state="open").values_list("reason", "amount", "merchant_reference")
    sent_back = OutgoingTransfer.objects.filter(receivable=None).values_list("amount", "payee_iban")
    if send_back:
        assert list(open_items) == []
        assert list(sent_back) == [(1000, ADA if seen_by == "statement" else "")]
    else:
        assert list(open_items) == [("late", 1000, order.number)]
        assert list(sent_back) == []
    assert bank_shop.disagreements() == []


@pytest.mark.parametrize("send_back", [False, True])
def test_money_that_is_recorded_after_the_cancellation_is_reviewed_or_sent_back(
    bank_shop: BankShop, settings: Any, send_back: bool
) -> None:
    settings.REFUND_LATE_MONEY = send_back
    order = bank_shop.waiting()
    bank_shop.cancel(order)
    bank_shop.end(order)
    bank_shop.bank_pays(order, 1000)
    bank_shop.bank_pays(order, 200)
    items = ReviewItem.objects.order_by("id").values_list("reason", "amount")
    sent_back = OutgoingTransfer.objects.order_by("id").values_list("amount", "payee_iban")
    assert list(items) == ([] if send_back else [("late", 1000), ("late", 200)])
    assert list(sent_back) == ([(1000, ADA), (200, ADA)] if send_back else [])


def test_late_money_of_an_order_that_was_started_again_is_not_sent_back(
    bank_shop: BankShop, settings: Any
) -> None:
    settings.REFUND_LATE_MONEY = True
    order = bank_shop.waiting()
    first = bank_shop.payment(order)
    bank_shop.cancel(order)
    bank_shop.end(order, skip=False)
    lifecycle.start(order.number, "grace", "The customer called")
    bank_shop.engine.deliver()
    bank_shop.until_waiting(order)
    arrives(first, order.total)
    assert not OutgoingTransfer.objects.exists()
    assert ReviewItem.objects.get().reason == "late"


def test_each_overpayment_is_reviewed_once(bank_shop: BankShop) -> None:
    order = bank_shop.waiting()
    payment = bank_shop.payment(order)
    arrives(payment, order.total + 500)
    arrives(payment, 200)
    bank_shop.engine.deliver()
    assert bank_shop.end(order)["status"] == "completed"
    items = ReviewItem.objects.filter(reason="too_much").order_by("id").values_list("amount", flat=True)
    assert list(items) == [500, 200]


# --- refunds by staff ------------------------------------------------------------------------------------


def test_staff_refund_parts_each_with_its_mail_and_its_transfer(bank_shop: BankShop) -> None:
    order = bank_shop.waiting()
    bank_shop.bank_pays(order)
    bank_shop.end(order)
    payment = bank_shop.payment(order)
    for form, amount in (("f1", 500), ("f2", 250), ("f1", 500)):
        asked = refunding.refund(payment.pk, amount, "grace", "A dent", form)
        bank_shop.engine.deliver()
        result = bank_shop.engine.result(f"refund-{asked.key}", skip=False)
        assert result["status"] == "accepted"
        bank_shop.engine.deliver()
    bank_shop.engine.until(lambda: bank_shop.mail_kinds().count("refunded") == 2)
    texts = Mail.objects.filter(kind="refunded").order_by("id").values_list("text", flat=True)
    assert ["€5.00" in texts[0], "€2.50" in texts[1]] == [True, True]
    rows = OutgoingTransfer.objects.order_by("id").values_list("amount", "payee_iban")
    assert list(rows) == [(500, ADA), (250, ADA)]
    assert payment.totals().kept == order.total - 750
    asked_for = PaymentEvent.objects.filter(type="refund", outcome="requested")
    assert set(asked_for.values_list("actor", "detail")) == {("grace", "A dent")}
    assert bank_shop.disagreements() == [], "a refund of a completed order is no difference"


def sandbox_order(bank_shop: BankShop) -> tuple[Order, Payment]:
    """An order that was paid at the practice provider, and shipped."""
    order = bank_shop.waiting(payment_method="sandbox")
    bank_shop.pay(order)
    bank_shop.hear(order)
    bank_shop.end(order)
    return order, bank_shop.payment(order)


def test_staff_refund_reaches_a_provider(bank_shop: BankShop) -> None:
    order, payment = sandbox_order(bank_shop)
    asked = refunding.refund(payment.pk, 500, "grace", "A dent", "f1")
    assert (payment.totals().refunded, payment.totals().refund_requested) == (0, 500)
    bank_shop.engine.deliver()
    assert bank_shop.engine.result(f"refund-{asked.key}")["status"] == "accepted"
    assert bank_shop.payments(order)[0]["refunded"] == 500
    assert (payment.totals().refunded, payment.totals().refund_requested) == (500, 0)
    bank_shop.engine.deliver()
    bank_shop.engine.until(lambda: "refunded" in bank_shop.mail_kinds())


def test_refund_that_the_provider_refuses_is_for_review_and_may_be_asked_for_anew(
    bank_shop: BankShop,
) -> None:
    order, payment = sandbox_order(bank_shop)
    bank_shop.provider.faults(refund={"refuse_rate": 1})
    asked = refunding.refund(payment.pk, order.total, "grace", "A dent", "f1")
    bank_shop.engine.deliver()
    assert bank_shop.engine.result(f"refund-{asked.key}")["status"] == "failed"
    item = ReviewItem.objects.get()
    assert (item.reason, item.amount) == ("refund_failed", order.total)
    assert "could not be refunded" in item.detail
    assert payment.totals().kept == order.total
    with pytest.raises(RefundRefused, match="ask for a new one"):
        refunding.try_again(asked.key, "grace")
    bank_shop.provider.faults()
    again = refunding.refund(payment.pk, order.total, "grace", "A dent", "f2")
    bank_shop.engine.deliver()
    assert bank_shop.engine.result(f"refund-{again.key}")["status"] == "accepted"
    assert bank_shop.payments(order)[0]["refunded"] == order.total
    assert payment.totals().kept == 0
    assert bank_shop.mail_kinds().count("refunded") <= 1


def test_refund_whose_answer_never_comes_counts_as_given_back_until_it_is_known(bank_shop: BankShop) -> None:
    order, payment = sandbox_order(bank_shop)
    bank_shop.provider.faults(refund={"lost_answer_rate": 1})
    asked = refunding.refund(payment.pk, order.total, "grace", "A dent", "f1")
    bank_shop.engine.deliver()
    assert bank_shop.engine.result(f"refund-{asked.key}")["status"] == "failed"
    assert "Nobody knows" in ReviewItem.objects.get().detail
    with pytest.raises(RefundRefused, match="on its way back"):
        refunding.refund(payment.pk, order.total, "grace", "A dent", "f2")
    bank_shop.provider.faults()
    refunding.try_again(asked.key, "grace")
    assert refunding.try_again(asked.key, "grace").repeated
    bank_shop.engine.deliver()
    assert bank_shop.engine.result(f"refund-{asked.key}")["status"] == "accepted"
    assert bank_shop.payments(order)[0]["refunded"] == order.total
    assert [m for m in bank_shop.moved(order) if m.startswith("refund")] == [f"refund {order.total}"]
    assert payment.totals().status == "refunded"
    assert ReviewItem.objects.get().state == "closed"


@pytest.mark.parametrize("faults", [{"error_rate": 1}, {}], ids=["fails", "succeeds"])
@pytest.mark.usefixtures("transactional_db", "provider")
def test_raw_cancel_of_a_refund_waits_for_its_call(
    temporal_server: str, provider: SandboxProcess, faults: dict[str, int]
) -> None:
    """On the real server: the time-skipping one goes on retrying what was cancelled."""
    sandbox, money = gateway("sandbox"), Money(500, "EUR")
    payment = open_payment("sandbox", "ORD-100001", money, "hold")
    payment = absorb(payment, sandbox.authorize("ORD-100001", money, "hold").payment, "call")
    absorb(payment, sandbox.capture(payment.reference, money, "capture").payment, "call")
    provider.faults(refund={"latency_ms": 1000, **faults})
    asked = refunding.refund(payment.pk, 500, "grace", "A dent", "f1")

    async def cancelled_in_the_middle(pool: ThreadPoolExecutor) -> dict[str, str]:
        client = await Client.connect(temporal_server)
        async with worker.build(client, "payment-checks", pool, 4):
            handle = await client.start_workflow(
                "RefundWorkflow",
                RefundInput(asked.key),
                id=f"refund-{asked.key}",
                task_queue="payment-checks",
            )
            while True:
                pending = (await handle.describe()).raw_description.pending_activities
                if any(a.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED for a in pending):
                    break
                await asyncio.sleep(0.02)
            await handle.cancel()
            result: dict[str, str] = await asyncio.wait_for(handle.result(), 30)
            return result

    with ThreadPoolExecutor(4) as pool:
        result = asyncio.run(cancelled_in_the_middle(pool))
        list(pool.map(lambda _: connections.close_all(), range(4)))
    if faults:
        assert result["status"] == "failed"
        assert "Nobody knows" in ReviewItem.objects.get().detail
    else:
        assert result["status"] == "accepted"
        assert sandbox.status(payment.reference).refunded == 500


def test_money_confirmed_by_hand_for_a_provider_is_still_reviewed_on_cancel(bank_shop: BankShop) -> None:
    order = bank_shop.waiting(payment_method="sandbox")
    payment = bank_shop.payment(order)
    bank_shop.pay(order, 300)
    record(payment, gateway("sandbox").status(payment.reference).events, "webhook")
    bank_shop.confirm(order, 1000)
    bank_shop.cancel(order)
    bank_shop.end(order)
    item = ReviewItem.objects.get()
    assert (item.reason, item.amount) == ("late", 1000), "the 300 went back with the void"
    assert Money(1000, "EUR").format() in item.detail
