"""What the shop's frontend may send. Types are strict, and a field that is not known is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from django.db.models import CharField, Model
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from orders.models import Order, Product
from orders.services import placing
from payments.models import Payment

MAX_NOTES = 10_000


def _storable(text: str) -> str:
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
        raise PydanticCustomError("not_storable", "This may not contain NUL characters or lone surrogates.")
    return text


def _one_line(text: str) -> str:
    if any(c < " " or c == "\x7f" for c in text):
        raise PydanticCustomError(
            "control_character", "This may not contain line breaks or control characters."
        )
    return text


def _room(model: type[Model], name: str) -> int:
    """How many characters the model's field has room for."""
    field = model._meta.get_field(name)
    assert isinstance(field, CharField)
    assert field.max_length is not None
    return field.max_length


Text = Annotated[str, AfterValidator(_storable)]
Line = Annotated[Text, AfterValidator(_one_line)]
Amount = Annotated[int, Field(ge=0, le=placing.MAX_AMOUNT, description="In minor units: 1999 is 19.99 EUR.")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Customer(_Strict):
    name: Annotated[Line, Field(max_length=_room(Order, "customer_name"))]
    email: Annotated[Line, Field(max_length=_room(Order, "customer_email"))]


class Address(_Strict):
    name: Annotated[Line, Field(max_length=_room(Order, "shipping_name"))]
    street: Annotated[Line, Field(max_length=_room(Order, "shipping_street"))]
    postal_code: Annotated[Line, Field(max_length=_room(Order, "shipping_postal_code"))]
    city: Annotated[Line, Field(max_length=_room(Order, "shipping_city"))]
    country: Annotated[
        Line,
        Field(max_length=_room(Order, "shipping_country"), description="ISO 3166 code.", examples=["DE"]),
    ]

    def draft(self) -> placing.Address:
        return placing.Address(**self.model_dump())


class NewLine(_Strict):
    sku: Annotated[Line, Field(max_length=_room(Product, "sku"))]
    quantity: Annotated[int, Field(ge=1, le=placing.MAX_QUANTITY)]
    unit_price: Annotated[
        Amount | None, Field(description="In minor units; if sent, it must agree with the catalogue.")
    ] = None


class NewOrder(_Strict):
    """An order to place. Prices come from the catalogue; one that is sent must agree with it."""

    customer: Customer
    shipping_address: Address
    billing_address: Annotated[Address | None, Field(description="Where it is not the shipping address.")] = (
        None
    )
    currency: Annotated[
        Line, Field(max_length=_room(Order, "currency"), description="ISO 4217.", examples=["EUR"])
    ]
    payment_method: Annotated[
        Line,
        Field(
            max_length=_room(Order, "payment_method"),
            description="A gateway that is set up here: `sandbox`, `bank_transfer` or `stripe`.",
            examples=["bank_transfer"],
        ),
    ]
    lines: Annotated[list[NewLine], Field(min_length=1, max_length=placing.MAX_LINES)]
    total: Annotated[
        Amount | None, Field(description="In minor units; if sent, it must be what the order comes to.")
    ] = None
    notes: Annotated[Text, Field(max_length=MAX_NOTES)] = ""
    language: Annotated[
        Line | None,
        Field(
            max_length=35,
            description="What the customer's mails are written in, as BCP 47; the shop's own unless told.",
            examples=["de", "de-AT"],
        ),
    ] = None

    def draft(self) -> placing.OrderDraft:
        return placing.OrderDraft(
            customer_name=self.customer.name,
            customer_email=self.customer.email,
            shipping=self.shipping_address.draft(),
            billing=self.billing_address.draft() if self.billing_address else None,
            lines=[placing.LineDraft(line.sku, line.quantity, line.unit_price) for line in self.lines],
            currency=self.currency,
            payment_method=self.payment_method,
            total=self.total,
            notes=self.notes,
            language=self.language,
        )

    def digest(self) -> str:
        """Tells a repetition from another order: the same for the same JSON, however it is written down."""
        body = self.model_dump(exclude_unset=True)
        return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class BulkOrder(NewOrder):
    """A line of a file with orders. `payment_reference` is that of a payment that is open at the provider already."""

    idempotency_key: Annotated[Line, Field(min_length=1, max_length=_room(Order, "api_idempotency_key"))]
    payment_reference: Annotated[Line, Field(max_length=_room(Payment, "reference"))] = ""
