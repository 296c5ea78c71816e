"""The steps of the saga and their undos, as the books and the providers see them.

Each may run twice, late or half, and is one effect all the same: by its idempotency key at the provider, by
its audit row here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from django.conf import settings
from django.utils.translation import gettext_noop

from orders.carriers import carrier
from orders.carriers.base import CarrierShipment
from orders.models import Mail, Order, Saga, SagaStep, Shipment
from orders.services import authorizations, mails, monitoring, stock
from orders.services.audit import SKIPPED, Done, StepRef, StepRefused, once, once_with_call
from orders.services.status import move_order, move_saga
from orders.workflows.types import Step
from payments.gateways import gateway
from payments.gateways.base import (
    EventType,
    Gateway,
    GatewayRefused,
    GatewayResult,
    RemotePayment,
    RemoteStatus,
)
from payments.models import Payment
from payments.services import transfers
from payments.services.recording import absorb, intend_refund, open_payment
from shop.kernel.money import Money

A = TypeVar("A")
O = Order.Status  # noqa: E741
S = Saga.Status


# --- inventory -------------------------------------------------------------------------------------------


def reserve_inventory(ref: StepRef) -> SagaStep:
    """Hold the pieces. Raises `OutOfStock`."""

    def effect(saga: Saga) -> Done:
        move_saga(saga, S.RUNNING)
        return stock.reserve(saga)

    return once(ref, effect)


def release_inventory(ref: StepRef) -> SagaStep:
    """Undo of `reserve_inventory`."""
    return once(ref, stock.release)


# --- authorization ---------------------------------------------------------------------------------------


def create_payment_hold(ref: StepRef, deadline: datetime) -> tuple[SagaStep, Saga]:
    """Authorize the order's total; its money is waited for until `deadline`.

    Returns the audit row, and the saga: of a step that was done before the deadline may have been moved.
    """

    def call(saga: Saga) -> tuple[Payment, GatewayResult]:
        order = saga.order
        payment = open_payment(
            order.payment_method, order.number, order.total_money, ref.key, order.customer_name
        )
        Saga.objects.filter(pk=saga.pk).update(payment=payment)
        return payment, gateway(payment.gateway).authorize(order.number, order.total_money, ref.key)

    def effect(saga: Saga, answer: tuple[Payment, GatewayResult]) -> Done:
        payment, result = answer
        payment = absorb(payment, result.payment, source="call")
        if result.payment.status == RemoteStatus.DECLINED:
            raise StepRefused(gettext_noop("The payment was declined."))
        if saga.status == S.RUNNING:
            _wait(saga, payment, deadline)
            if saga.order.in_bulk:
                mails.queue(saga, Mail.Kind.RECEIVED)
        return Done(reference=payment.reference)

    row = _gateway_step(ref, call, effect)
    return row, Saga.objects.select_related("payment").get(pk=row.saga_id)


def adopt_payment(ref: StepRef, deadline: datetime, remote: RemotePayment) -> SagaStep:
    """In place of `create_payment_hold`, for a payment that was opened elsewhere: `remote` is what its provider says.

    Raises `StepRefused` if it is not a payment for this order, or is another order's.
    """

    def effect(saga: Saga) -> Done:
        order = saga.order
        found = Money(remote.authorized, remote.currency)
        if remote.status not in (RemoteStatus.AUTHORIZED, RemoteStatus.PAID):
            raise StepRefused(f"The payment is {remote.status}; only one that is open can be taken over.")
        if found != order.total_money:
            raise StepRefused(f"The payment is one of {found}, and the order comes to {order.total_money}.")
        reference = remote.payment_reference
        other = Payment.objects.filter(gateway=order.payment_method, reference=reference).first()
        if other is not None:
            raise StepRefused(f"The payment is that of order {other.merchant_reference}.")
        payment = open_payment(
            order.payment_method, order.number, order.total_money, ref.key, order.customer_name
        )
        Saga.objects.filter(pk=saga.pk).update(payment=payment)
        _wait(saga, absorb(payment, remote, source="call"), deadline)
        return Done(
            reference=reference, note=gettext_noop("The payment was opened before the order was taken here.")
        )

    return once(ref, effect)


def _wait(saga: Saga, payment: Payment, deadline: datetime) -> None:
    """From now on money may come, until `deadline`. The saga is told of its authorization's end; see there."""
    order = saga.order
    if order.in_bulk:  # nobody renews the authorization
        deadline = min(deadline, payment.authorized_until or deadline)
    move_saga(saga, S.WAITING, payment=payment, deadline=deadline)
    move_order(order, O.AWAITING_PAYMENT)
    if payment.gateway in settings.MONITORED_GATEWAYS and not order.in_bulk:
        monitoring.begin(saga, "saga")


def release_payment_hold(ref: StepRef) -> SagaStep:
    """Undo of `create_payment_hold`: void what is authorized.

    A captured payment is not voided as well: its refund is the undo of the capture. Only if this rollback
    has no such undo (captured behind our back) is it refunded here.
    """

    def call(saga: Saga) -> GatewayResult | Done:
        found = _at_provider(saga)
        if isinstance(found, Done):
            return found
        provider, payment, remote = found
        match remote.status:
            case RemoteStatus.AUTHORIZED | RemoteStatus.PAID:
                return provider.void(remote.payment_reference, ref.key)
            case RemoteStatus.VOIDED:
                try:  # by our own void, whose answer was lost? The same key gives that answer again
                    return provider.void(remote.payment_reference, ref.key)
                except GatewayRefused:
                    return Done(outcome=SKIPPED, note=gettext_noop("The authorization was voided before."))
            case RemoteStatus.CAPTURED if not _capture_has_its_undo(saga, ref):
                return _refund(provider, payment, remote, ref.key)
            case RemoteStatus.CAPTURED | RemoteStatus.REFUNDED:
                return Done(
                    outcome=SKIPPED, note=gettext_noop("The payment was captured: its refund is the undo.")
                )
            case _:
                return Done(outcome=SKIPPED, note=f"The authorization is {remote.status} at the provider.")

    return _gateway_step(ref, call, _absorb_undo)


# --- capture ---------------------------------------------------------------------------------------------


def capture_payment(ref: StepRef) -> SagaStep:
    """Take the order's total, or the little less that staff have accepted as full.

    An authorization that should have lapsed is looked at first, and so is one whose capture is refused.
    """

    def call(saga: Saga) -> GatewayResult:
        payment = _payment(saga)
        due = Money(payment.expected(payment.totals()), payment.currency)
        if authorizations.is_overdue(payment):
            authorizations.refuse_if_lapsed(payment)
        try:
            return gateway(payment.gateway).capture(payment.reference, due, ref.key)
        except GatewayRefused:
            authorizations.refuse_if_lapsed(payment)
            raise

    def effect(saga: Saga, result: GatewayResult) -> Done:
        absorb(_payment(saga), result.payment, source="call")
        if not (saga.is_final or saga.status == S.COMPENSATING):
            move_saga(saga, S.RUNNING)
            move_order(saga.order, O.PAID)
        return Done(reference=result.reference)

    return _gateway_step(ref, call, effect)


def refund_payment(ref: StepRef) -> SagaStep:
    """Undo of `capture_payment`: give back what was captured. What was only authorized is left to the void."""

    def call(saga: Saga) -> GatewayResult | Done:
        found = _at_provider(saga)
        if isinstance(found, Done):
            return found
        provider, payment, remote = found
        if remote.status not in (RemoteStatus.CAPTURED, RemoteStatus.REFUNDED):
            return Done(outcome=SKIPPED, note=f"Nothing was captured: {remote.status} at the provider.")
        return _refund(provider, payment, remote, ref.key)

    def effect(saga: Saga, answer: GatewayResult | Done) -> Done:
        done = _absorb_undo(saga, answer)
        if done.outcome != SKIPPED:
            asked = _payment(saga).events.filter(psp_reference=ref.key, type=EventType.REFUND).first()
            mails.write(
                saga,
                Mail.Kind.REFUNDED,
                refunded=asked.money if asked else None,
                needs_account=transfers.needs_account(ref.key),
            )
        return done

    return _gateway_step(ref, call, effect)


def check_payment(order_number: str, attempt: int) -> str:
    """Ask the provider about the order's payment and write down what it says: `paid`, `pending` or `failed`."""
    saga = Saga.objects.select_related("order", "payment").get(order__number=order_number, attempt=attempt)
    payment = _payment(saga)
    remote = gateway(payment.gateway).status(payment.reference)
    absorb(payment, remote, source="check")
    totals = payment.totals()
    if payment.missing(totals) <= 0 or totals.captured:
        return "paid"
    return "failed" if totals.declined or remote.status == RemoteStatus.EXPIRED else "pending"


# --- shipping --------------------------------------------------------------------------------------------


def schedule_shipping(ref: StepRef) -> SagaStep:
    """Have the carrier take the parcel; the pieces leave the shelf."""

    def call(saga: Saga) -> CarrierShipment:
        return carrier(saga.order.carrier).create_shipment(ref.key, saga.order.number)

    def effect(saga: Saga, made: CarrierShipment) -> Done:
        Shipment.objects.get_or_create(
            saga=saga,
            defaults={
                "carrier": saga.order.carrier,
                "reference": made.reference,
                "tracking_number": made.tracking_number,
            },
        )
        if not (saga.is_final or saga.status == S.COMPENSATING):
            stock.consume(saga)
            move_order(saga.order, O.SHIPPED)
        return Done(reference=made.reference)

    return _carrier_step(ref, call, effect)


def cancel_shipping(ref: StepRef) -> SagaStep:
    """Undo of `schedule_shipping`: call the parcel back; its pieces are on the shelf again."""

    def call(saga: Saga) -> CarrierShipment | None:
        service = carrier(saga.order.carrier)
        shipment = Shipment.objects.filter(saga=saga).first()
        if shipment is None:  # never made; or made and the answer lost, which only a remote carrier knows
            found = service.find(f"{ref.order_number}/{ref.attempt}/{ref.step}") if service.remote else None
            if found is None:
                return None
            return service.cancel(found.reference, ref.key)
        return service.cancel(shipment.reference, ref.key)

    def effect(saga: Saga, cancelled: CarrierShipment | None) -> Done:
        shipment = Shipment.objects.filter(saga=saga).first()
        if cancelled is None and shipment is None:
            return Done(outcome=SKIPPED, note=gettext_noop("No parcel was handed over."))
        if shipment is not None:
            shipment.state = Shipment.State.CANCELLED
            shipment.save(update_fields=["state"])
        # If this is the late retry of a dead letter, the undo of the reservation has passed by already.
        released = saga.steps.filter(
            step=Step.INVENTORY, kind=SagaStep.Kind.COMPENSATION, outcome__in=["succeeded", "skipped"]
        ).exists()
        stock.put_back(saga, keep_reserved=not released)
        return Done(reference=cancelled.reference if cancelled else "")

    return _carrier_step(ref, call, effect)


# --- pieces ----------------------------------------------------------------------------------------------


def _payment(saga: Saga) -> Payment:
    if saga.payment is None:
        raise StepRefused(gettext_noop("This saga has no payment: its authorization never happened."))
    return saga.payment


def _at_provider(saga: Saga) -> tuple[Gateway, Payment, RemotePayment] | Done:
    """The payment as its provider sees it; a `Done` if nothing was ever opened there."""
    payment = saga.payment
    if payment is None:
        return Done(outcome=SKIPPED, note=gettext_noop("No authorization was asked for."))
    provider = gateway(payment.gateway)
    if payment.reference:
        return provider, payment, provider.status(payment.reference)
    remote = provider.find(payment.idempotency_key)
    if remote is None:
        return Done(outcome=SKIPPED, note=gettext_noop("The authorization never reached the provider."))
    return provider, payment, remote


def _refund(provider: Gateway, payment: Payment, remote: RemotePayment, key: str) -> GatewayResult | Done:
    # A refund that was asked for and has not happened yet counts as given back, whoever of us knows of it.
    totals = payment.totals()
    given_back = max(remote.refunded, totals.refunded + totals.refund_requested)
    # Written before the call: a retry after a lost answer must ask for the same amount under the same key.
    intended = intend_refund(payment, remote.captured - given_back, key)
    if intended == 0:
        return Done(outcome=SKIPPED, note=gettext_noop("Everything captured was refunded before."))
    return provider.refund(remote.payment_reference, Money(intended, payment.currency), key)


def _capture_has_its_undo(saga: Saga, ref: StepRef) -> bool:
    return saga.steps.filter(
        step=Step.PAYMENT_CAPTURED, kind=SagaStep.Kind.COMPENSATION, rollback_run=ref.rollback_run
    ).exists()


def _absorb_undo(saga: Saga, answer: GatewayResult | Done) -> Done:
    if isinstance(answer, Done):
        return answer
    absorb(_payment(saga), answer.payment, source="call")
    return Done(reference=answer.reference)


def _gateway_step(ref: StepRef, call: Callable[[Saga], A], effect: Callable[[Saga, A], Done]) -> SagaStep:
    method = Order.objects.values_list("payment_method", flat=True).get(number=ref.order_number)
    return _step(ref, gateway(method).capabilities.remote, call, effect)


def _carrier_step(ref: StepRef, call: Callable[[Saga], A], effect: Callable[[Saga, A], Done]) -> SagaStep:
    name = Order.objects.values_list("carrier", flat=True).get(number=ref.order_number)
    return _step(ref, carrier(name).remote, call, effect)


def _step(
    ref: StepRef, remote: bool, call: Callable[[Saga], A], effect: Callable[[Saga, A], Done]
) -> SagaStep:
    if remote:
        return once_with_call(ref, call, effect)
    return once(ref, lambda saga: effect(saga, call(saga)))
