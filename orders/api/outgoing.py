"""What the shop's frontend gets to see."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from django.http import Http404
from django.utils.translation import gettext as _
from pydantic import BaseModel, Field

from orders.models import Order, Product, Saga, SagaStep
from payments.banking.instructions import instructions_of
from payments.ledger import Totals
from payments.models import Payment

Amount = Annotated[int, Field(description="In minor units.")]


class ProductOut(BaseModel):
    sku: str
    name: str
    price: Amount
    currency: str
    available: Annotated[int, Field(description="Pieces on hand that no order has reserved.")]


class ProductPage(BaseModel):
    items: list[ProductOut]
    next_page: Annotated[int | None, Field(description="The number of the next page; null on the last.")]


class LineOut(BaseModel):
    sku: str
    name: str
    quantity: int
    unit_price: Amount
    tax_rate: Annotated[int, Field(description="In hundredths of a percent, included in the price.")]


class Instructions(BaseModel):
    """How to pay what is still missing by bank transfer."""

    iban: str
    bic: str
    name: Annotated[str, Field(description="The account's holder.")]
    creditor_reference: Annotated[
        str, Field(description="ISO 11649, without spaces; the transfer has to carry it.")
    ]
    amount: Amount


class StripeInstructions(BaseModel):
    """How to pay by card: Stripe's own form in the customer's browser takes this."""

    client_secret: str


class PaymentOut(BaseModel):
    gateway: str
    reference: Annotated[str, Field(description="The provider's reference; empty until it is known.")]
    status: str
    instructions: Annotated[
        Instructions | StripeInstructions | None,
        Field(
            description="Null if the customer needs nothing from us to pay, or has nothing to pay (any more)."
        ),
    ]


class StepOut(BaseModel):
    step: Annotated[str, Field(examples=["payment_hold"])]
    kind: SagaStep.Kind
    outcome: SagaStep.Outcome
    attempt: Annotated[int, Field(description="Which try at this step it was.")]
    reference: str
    at: datetime


class SagaOut(BaseModel):
    """The latest attempt at bringing the order to its end."""

    workflow_id: str
    attempt: int
    status: Saga.Status
    result: dict[str, Any] | None
    steps: Annotated[list[StepOut], Field(description="In the order in which they happened.")]


class OrderOut(BaseModel):
    number: str
    status: Order.Status
    created_at: datetime
    lines: list[LineOut]
    shipping_cost: Amount
    discount: Amount
    total: Amount
    amount_received: Amount
    currency: str
    language: Annotated[str, Field(description="What the customer's mails are written in.")]
    deadline: Annotated[datetime | None, Field(description="Until when the money must have arrived.")]
    payment: PaymentOut
    saga: SagaOut | None


def product_page(page: int, limit: int) -> ProductPage:
    """The products for sale, by SKU. One row more than the page tells whether there is another."""
    start = (page - 1) * limit
    rows = list(Product.objects.filter(active=True).order_by("sku")[start : start + limit + 1])
    return ProductPage(
        items=[
            ProductOut(sku=p.sku, name=p.name, price=p.price, currency=p.currency, available=p.available)
            for p in rows[:limit]
        ],
        next_page=page + 1 if len(rows) > limit else None,
    )


def order_now(number: str) -> OrderOut:
    """The order as it stands. Four queries, however much has happened to it."""
    # The database would refuse a NUL instead of finding nothing.
    if not number.isprintable():
        raise Http404(_("There is no such order."))
    # Both states in one look, or the answer could show an ended saga of an order that is still under way.
    sagas = Saga.objects.select_related("order", "payment").order_by("-attempt")
    saga = sagas.filter(order__number=number).first()
    order = saga.order if saga else Order.objects.filter(number=number).first()
    if order is None:
        raise Http404(_("There is no order {order}.").format(order=number))
    payment = saga.payment if saga else None
    totals = payment.totals() if payment else None
    return OrderOut(
        number=order.number,
        status=Order.Status(order.status),
        created_at=order.created_at,
        lines=[
            LineOut(
                sku=line.sku,
                name=line.name,
                quantity=line.quantity,
                unit_price=line.unit_price,
                tax_rate=line.tax_rate,
            )
            for line in order.lines.order_by("id")
        ],
        shipping_cost=order.shipping_cost,
        discount=order.discount,
        total=order.total,
        amount_received=totals.received if totals else 0,
        currency=order.currency,
        language=order.language,
        deadline=saga.pay_until if saga else None,
        payment=PaymentOut(
            gateway=payment.gateway if payment else order.payment_method,
            reference=payment.reference if payment else "",
            status=totals.status if totals else "pending",
            instructions=_instructions(payment, totals) if payment and totals else None,
        ),
        saga=_saga_out(order, saga) if saga else None,
    )


def _instructions(payment: Payment, totals: Totals) -> Instructions | StripeInstructions | None:
    secret = payment.instructions.get("client_secret")
    if secret and payment.is_open and payment.missing(totals) > 0:
        return StripeInstructions(client_secret=secret)
    found = instructions_of(payment, totals)
    if found is None:
        return None
    return Instructions(
        iban=found.iban,
        bic=found.bic,
        name=found.name,
        creditor_reference=found.creditor_reference,
        amount=found.money.amount,
    )


def _saga_out(order: Order, saga: Saga) -> SagaOut:
    return SagaOut(
        workflow_id=order.workflow_id,
        attempt=saga.attempt,
        status=Saga.Status(saga.status),
        result=saga.result,
        steps=[
            StepOut(
                step=row.step,
                kind=SagaStep.Kind(row.kind),
                outcome=SagaStep.Outcome(row.outcome),
                attempt=row.attempt,
                reference=row.reference,
                at=row.at,
            )
            for row in saga.steps.order_by("id")
        ],
    )
