"""Taking an order by hand. The service checks it whole; its errors are shown beside the fields they name."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any
from uuid import uuid4

from django import forms
from django.conf import settings
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from orders.models import Order, Product
from orders.services.placing import (
    MAX_LINES,
    MAX_QUANTITY,
    Address,
    KeyReused,
    LineDraft,
    OrderDraft,
    OrderInvalid,
    place_order,
)
from orders.words import named
from shop.kernel.forms import AmountField

ADDRESS = ("name", "street", "postal_code", "city", "country")
FIELDS = {"customer.name": "customer_name", "customer.email": "customer_email"}


def _address_fields(whose: str, *, required: bool) -> dict[str, forms.CharField]:
    labels = (_("Name"), _("Street"), _("Postal code"), _("City"), _("Country"))
    lengths = (200, 200, 20, 100, 2)
    fields = {}
    for name, label, length in zip(ADDRESS, labels, lengths, strict=True):
        fields[f"{whose}_{name}"] = forms.CharField(label=label, max_length=length, required=required)
    fields[f"{whose}_country"].help_text = _("ISO 3166 code, such as DE.")
    return fields


class PlaceOrderForm(forms.Form):
    """Everything but the lines."""

    customer_name = forms.CharField(label=_("Name"), max_length=200)
    customer_email = forms.EmailField(label=_("E-mail"))
    language = forms.ChoiceField(
        label=_("Language"),
        choices=settings.LANGUAGES,
        help_text=_("Mails to the customer are written in it."),
    )
    currency = forms.CharField(label=_("Currency"), max_length=3)
    payment_method = forms.ChoiceField(label=_("Payment method"))
    carrier = forms.ChoiceField(label=_("Carrier"))
    shipping_cost = AmountField(label=_("Shipping cost"), required=False)
    discount = AmountField(label=_("Discount"), required=False)
    notes = forms.CharField(label=_("Notes"), required=False, widget=forms.Textarea(attrs={"rows": 3}))
    form_id = forms.UUIDField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields |= _address_fields("shipping", required=True) | _address_fields("billing", required=False)
        self.initial.update(
            language=settings.LANGUAGE_CODE,
            currency=settings.CURRENCY,
            carrier=settings.CARRIER,
            shipping_cost=settings.SHIPPING_COST,
            discount=0,
            form_id=uuid4(),
        )
        for field, names in (("payment_method", settings.PAYMENT_GATEWAYS), ("carrier", settings.CARRIERS)):
            choice = self.fields[field]
            assert isinstance(choice, forms.ChoiceField)
            choice.choices = [(name, named(name)) for name in names]
        currency = str(self["currency"].value()).strip().upper()
        for field in ("shipping_cost", "discount"):
            amount = self.fields[field]
            assert isinstance(amount, AmountField)
            amount.currency = currency if len(currency) == 3 and currency.isascii() else settings.CURRENCY

    def clean_currency(self) -> str:
        return str(self.cleaned_data["currency"]).upper()


def groups(form: PlaceOrderForm) -> list[tuple[str, str, list[forms.BoundField]]]:
    """The form's fields as the page shows them: heading, explanation, fields."""

    def fields(*names: str) -> list[forms.BoundField]:
        return [form[name] for name in names]

    same = gettext("Leave it empty where it is the shipping address.")
    return [
        (gettext("Customer"), "", fields("customer_name", "customer_email", "language")),
        (gettext("Shipping address"), "", fields(*(f"shipping_{name}" for name in ADDRESS))),
        (gettext("Billing address"), same, fields(*(f"billing_{name}" for name in ADDRESS))),
        (
            gettext("Payment and shipping"),
            "",
            fields("currency", "payment_method", "carrier", "shipping_cost", "discount", "notes"),
        ),
    ]


class LineForm(forms.Form):
    """One line. `sku` completes itself from the catalogue."""

    sku = forms.CharField(
        label=_("Product (SKU)"),
        max_length=40,
        widget=forms.TextInput(attrs={"list": "products", "autocomplete": "off"}),
    )
    quantity = forms.IntegerField(label=_("Quantity"), min_value=1, max_value=MAX_QUANTITY, initial=1)

    def clean_sku(self) -> str:
        return str(self.cleaned_data["sku"]).strip()


LineFormSet = forms.formset_factory(LineForm, extra=3, max_num=MAX_LINES, validate_max=True)
MORE_LINES = 3


def suggestions() -> list[Product]:
    """What the SKU field offers while typing."""
    return list(Product.objects.filter(active=True).order_by("sku")[:500])


def with_more_lines(data: Any) -> Any:
    """The data that were sent, with room for more lines."""
    data = data.copy()
    total = data.get("form-TOTAL_FORMS", "0")
    data["form-TOTAL_FORMS"] = min(MAX_LINES, int(total) + MORE_LINES if total.isdigit() else MORE_LINES)
    return data


def place(form: PlaceOrderForm, lines: forms.BaseFormSet[LineForm], actor: str) -> Order | None:
    """The order; None with the errors beside their fields. The same form sent twice places one order."""
    if not (form.is_valid() and lines.is_valid()):
        return None
    filled = [line for line in lines.forms if line.has_changed()]
    if not _in_stock(filled):
        return None
    draft = _draft(form.cleaned_data, filled)
    try:
        order, _new = place_order(
            draft,
            actor,
            idempotency_key=f"staff-form/{form.cleaned_data['form_id']}",
            body_digest=hashlib.sha256(repr(draft).encode()).hexdigest(),
        )
    except OrderInvalid as invalid:
        for error in invalid.errors:
            _show(error.field, error.message, form, filled)
        return None
    except KeyReused:
        form.add_error(None, gettext("This form was sent before with other contents. Open a new one."))
        return None
    return order


def _in_stock(lines: list[LineForm]) -> bool:
    """Staff learn here what the saga would find out, and the customer by a mail that cancels the order."""
    wanted = Counter[str]()
    for line in lines:
        wanted[line.cleaned_data["sku"]] += line.cleaned_data["quantity"]
    short = {
        product.sku: product.available
        for product in Product.objects.filter(sku__in=wanted)
        if product.available < wanted[product.sku]
    }
    for line in lines:
        if line.cleaned_data["sku"] in short:
            left = short[line.cleaned_data["sku"]]
            line.add_error("quantity", gettext("Not in stock: {left} available.").format(left=left))
    return not short


def _draft(data: dict[str, Any], lines: list[LineForm]) -> OrderDraft:
    def address(whose: str) -> Address:
        return Address(**{name: data[f"{whose}_{name}"] for name in ADDRESS})

    billed_elsewhere = any(data[f"billing_{name}"] for name in ADDRESS)
    return OrderDraft(
        customer_name=data["customer_name"],
        customer_email=data["customer_email"],
        shipping=address("shipping"),
        billing=address("billing") if billed_elsewhere else None,
        lines=[LineDraft(line.cleaned_data["sku"], line.cleaned_data["quantity"]) for line in lines],
        currency=data["currency"],
        payment_method=data["payment_method"],
        carrier=data["carrier"],
        shipping_cost=data["shipping_cost"],
        discount=data["discount"] or 0,
        notes=data["notes"],
        language=data["language"],
    )


def _show(where: str, message: str, form: PlaceOrderForm, lines: list[LineForm]) -> None:
    head, _dot, rest = where.partition(".")
    if head == "lines" and rest:
        number, _dot, name = rest.partition(".")
        line = lines[int(number)]
        line.add_error(name if name in line.fields else None, message)
        return
    name = FIELDS.get(where) or where.replace("_address.", "_")
    form.add_error(name if name in form.fields else None, message)
