"""Taking an order, from the shop's frontend or from staff. It is checked whole before anything is stored."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from babel import Locale
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, connection, transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from orders.carriers import carrier
from orders.carriers.base import CarrierMisconfigured
from orders.models import Order, OrderEvent, OrderLine, Product
from orders.services import lifecycle
from payments.gateways import gateway
from payments.gateways.base import GatewayMisconfigured
from shop.kernel.money import Money, is_currency

MAX_QUANTITY = 10_000
# CLDR's territories are also continents (numbers), unions, and codes for unknown and for testing.
COUNTRIES = {code for code in Locale("en").territories if re.fullmatch("[A-Z]{2}", str(code))} - {
    *("EU", "EZ", "UN", "QO", "XA", "XB", "ZZ")
}
MAX_LINES = 200
# https://www.rfc-editor.org/rfc/rfc5646#section-2.1
_LANGUAGE_TAG = re.compile("[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
MAX_AMOUNT = 2**63 - 1  # what the database holds


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong (`message`, a sentence) and where (`field`, a path such as `lines.0.sku`)."""

    field: str
    message: str


class OrderInvalid(Exception):
    """The order cannot be taken; `errors` names every field that is wrong."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__(" ".join(f"{e.field}: {e.message}" for e in errors))
        self.errors = errors


class KeyReused(Exception):
    """An idempotency key came again with another order."""


@dataclass(frozen=True, slots=True)
class Address:
    name: str
    street: str
    postal_code: str
    city: str
    country: str


@dataclass(frozen=True, slots=True)
class LineDraft:
    """`unit_price`, in minor units, is checked against the catalogue where it is given."""

    sku: str
    quantity: int
    unit_price: int | None = None


@dataclass(frozen=True, slots=True)
class OrderDraft:
    """An order as it comes in. Amounts in minor units; None where the shop's own value holds."""

    customer_name: str
    customer_email: str
    shipping: Address
    lines: list[LineDraft]
    currency: str
    payment_method: str
    billing: Address | None = None
    total: int | None = None
    shipping_cost: int | None = None
    discount: int = 0
    carrier: str | None = None
    payment_window: timedelta | None = None
    notes: str = ""
    language: str | None = None  # BCP 47, such as `de-AT`


@transaction.atomic
def place_order(
    draft: OrderDraft,
    actor: str,
    *,
    idempotency_key: str | None = None,
    body_digest: str = "",
    way: str = Order.Way.SAGA,
) -> tuple[Order, bool]:
    """The order, and whether it is new. Its saga starts with it, unless `AUTO_START_SAGAS` is off.

    Of an order in bulk (`way`) the caller makes the saga.

    The same `idempotency_key` with the same body gives the order of the first time; with another body it
    raises `KeyReused`. Raises `OrderInvalid`; nothing is stored then.
    """
    if idempotency_key is not None:
        earlier = earlier_order(idempotency_key, body_digest)
        if earlier is not None:
            return earlier, False
    products, total, shipping_cost = _check(draft)
    try:
        with transaction.atomic():
            order = _create(draft, products, total, shipping_cost, actor, idempotency_key, body_digest, way)
    except IntegrityError:
        earlier = earlier_order(idempotency_key, body_digest) if idempotency_key is not None else None
        if earlier is None:
            raise
        return earlier, False
    OrderEvent.objects.create(order=order, kind=OrderEvent.Kind.PLACED, actor=actor)
    if settings.AUTO_START_SAGAS and not order.in_bulk:
        lifecycle.start(order.number, "shop", gettext_noop("placed"))
        order.refresh_from_db()
    return order, True


def earlier_order(key: str, digest: str) -> Order | None:
    """The order that was placed with this idempotency key. Raises `KeyReused` if its body was another one."""
    order = Order.objects.filter(api_idempotency_key=key).first()
    if order is not None and order.api_body_digest != digest:
        raise KeyReused(
            _("This Idempotency-Key was used for order {order} with another body.").format(order=order.number)
        )
    return order


def _create(
    draft: OrderDraft,
    products: list[Product],
    total: int,
    shipping_cost: int,
    actor: str,
    idempotency_key: str | None,
    body_digest: str,
    way: str,
) -> Order:
    addresses = {f"shipping_{field}": getattr(draft.shipping, field) for field in Address.__slots__}
    if draft.billing is not None:
        addresses |= {f"billing_{field}": getattr(draft.billing, field) for field in Address.__slots__}
    order = Order.objects.create(
        number=_next_number(),
        way=way,
        customer_name=draft.customer_name,
        customer_email=draft.customer_email,
        language=_ours(draft.language) or settings.LANGUAGE_CODE,
        currency=draft.currency,
        shipping_cost=shipping_cost,
        discount=draft.discount,
        total=total,
        payment_method=draft.payment_method,
        carrier=draft.carrier or settings.CARRIER,
        payment_window=draft.payment_window or settings.PAYMENT_WINDOW,
        notes=draft.notes,
        placed_by=actor,
        api_idempotency_key=idempotency_key,
        api_body_digest=body_digest,
        **addresses,
    )
    OrderLine.objects.bulk_create(
        OrderLine(
            order=order,
            product=product,
            sku=product.sku,
            name=product.name,
            quantity=line.quantity,
            unit_price=product.price,
            tax_rate=product.tax_rate,
        )
        for line, product in zip(draft.lines, products, strict=True)
    )
    return order


def _ours(language: str | None) -> str | None:
    """That of our languages which a BCP 47 tag asks for: for `de-AT` it is `de`."""
    if language is None or not _LANGUAGE_TAG.fullmatch(language):
        return None
    primary = language.partition("-")[0].lower()
    return primary if primary in dict(settings.LANGUAGES) else None


def _next_number() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('order_number')")
        return f"ORD-{cursor.fetchone()[0]}"


def _check(draft: OrderDraft) -> tuple[list[Product], int, int]:
    """The lines' products, the total and the shipping cost; raises `OrderInvalid` with everything that is wrong."""
    errors: list[FieldError] = []

    def wrong(field: str, message: str) -> None:
        errors.append(FieldError(field, message))

    try:
        validate_email(draft.customer_email)
    except ValidationError:
        wrong("customer.email", _("{text!r} is not an e-mail address.").format(text=draft.customer_email))
    for prefix, address in (("shipping_address", draft.shipping), ("billing_address", draft.billing)):
        if address is not None:
            for field in Address.__slots__:
                if not getattr(address, field).strip():
                    wrong(f"{prefix}.{field}", _("This is needed."))
            if address.country and address.country not in COUNTRIES:
                wrong(
                    f"{prefix}.country",
                    _("{text!r} is not an ISO 3166 code such as DE.").format(text=address.country),
                )
    if draft.language is not None and _ours(draft.language) is None:
        wrong(
            "language",
            _("{text!r} is not a language of this shop; it has {languages}.").format(
                text=draft.language, languages=", ".join(dict(settings.LANGUAGES))
            ),
        )
    if not draft.customer_name.strip():
        wrong("customer.name", _("This is needed."))
    if not is_currency(draft.currency):
        wrong("currency", _("{text!r} is not an ISO 4217 currency code.").format(text=draft.currency))
    try:
        gateway(draft.payment_method)
    except GatewayMisconfigured as error:
        wrong("payment_method", str(error))
    try:
        carrier(draft.carrier or settings.CARRIER)
    except CarrierMisconfigured as error:
        wrong("carrier", str(error))
    if not 1 <= len(draft.lines) <= MAX_LINES:
        wrong("lines", _("An order has 1 to {most} lines.").format(most=MAX_LINES))
        raise OrderInvalid(errors)

    catalogue = {
        p.sku: p for p in Product.objects.filter(active=True, sku__in={line.sku for line in draft.lines})
    }
    products: list[Product] = []
    goods = 0
    for i, line in enumerate(draft.lines):
        if not 1 <= line.quantity <= MAX_QUANTITY:
            wrong(
                f"lines.{i}.quantity",
                _("{number} is not a quantity from 1 to {most}.").format(
                    number=line.quantity, most=MAX_QUANTITY
                ),
            )
        product = catalogue.get(line.sku)
        if product is None:
            wrong(f"lines.{i}.sku", _("There is no product {sku!r} for sale.").format(sku=line.sku))
            continue
        products.append(product)
        goods += product.price * line.quantity
        if product.currency != draft.currency and is_currency(draft.currency):
            wrong(
                f"lines.{i}.sku",
                _("{sku} is sold in {currency}; the order is in {other}.").format(
                    sku=line.sku, currency=product.currency, other=draft.currency
                ),
            )
        if line.unit_price is not None and line.unit_price != product.price:
            wrong(
                f"lines.{i}.unit_price",
                _("{sku} costs {price} (minor units of {currency}), not {other}.").format(
                    sku=line.sku, price=product.price, currency=product.currency, other=line.unit_price
                ),
            )
    shipping_cost = draft.shipping_cost
    if shipping_cost is None:
        shipping_cost = settings.SHIPPING_COST if draft.currency == settings.CURRENCY else 0
    if shipping_cost < 0:
        wrong("shipping_cost", _("The shipping cost is below zero."))
    if not 0 <= draft.discount <= goods + max(0, shipping_cost):
        wrong("discount", _("The discount is below zero or above the whole order."))
    total = goods + shipping_cost - draft.discount
    if not errors and total <= 0:
        wrong("total", _("There is nothing to pay: an order's total must be more than zero."))
    if not errors and total > MAX_AMOUNT:
        wrong("total", _("The lines add up to more than can be booked."))
    if not errors and draft.total is not None and draft.total != total:
        wrong(
            "total",
            _("The lines add up to {total} minor units ({money}), not {other}.").format(
                total=total, money=Money(total, draft.currency), other=draft.total
            ),
        )
    if errors:
        raise OrderInvalid(errors)
    return products, total, shipping_cost
