"""Products: price as people write it, stock on hand to count anew; what is reserved follows from the orders.

Orders change stock while somebody looks at this page. So only the fields that were changed are written, and a
count that was made against another stock than the present one is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from orders.models import Product
from shop.kernel.admin.lists import FastListAdmin
from shop.kernel.forms import AmountField
from shop.kernel.money import is_currency

if TYPE_CHECKING:
    _Form = forms.ModelForm[Product]
else:
    _Form = forms.ModelForm


class ProductForm(_Form):
    price = AmountField(label=_("Price"), help_text=_("Gross, per piece."))

    class Meta:
        model = Product
        fields = ("sku", "name", "price", "currency", "tax_rate", "on_hand", "active")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and "on_hand" in self.fields:
            self.fields["on_hand"].show_hidden_initial = True
        price = self.fields.get("price")
        currency = str(self["currency"].value() if "currency" in self.fields else "").strip().upper()
        if isinstance(price, AmountField) and is_currency(currency):
            price.currency = currency

    def clean_currency(self) -> str:
        currency = str(self.cleaned_data["currency"]).strip().upper()
        if not is_currency(currency):
            raise forms.ValidationError(_("This is not an ISO 4217 currency code such as EUR."))
        return currency

    def clean(self) -> None:
        super().clean()
        counted = self.cleaned_data.get("on_hand")
        if self.instance.pk is None or counted is None or "on_hand" not in self.changed_data:
            return
        seen = self["on_hand"].initial
        if (sent := self.data.get(self.add_initial_prefix("on_hand"), "")).isdigit():
            seen = int(sent)
        now = Product.objects.select_for_update().get(pk=self.instance.pk)
        if now.on_hand != seen:
            self.add_error(
                "on_hand", _("Orders have changed it to %d since this page was opened.") % now.on_hand
            )
        elif counted < now.reserved:
            self.add_error(
                "on_hand",
                _("Open orders have reserved %d of it. Cancel some of them first.") % now.reserved,
            )


@admin.register(Product)
class ProductAdmin(FastListAdmin):
    form = ProductForm
    list_display = ("sku", "name", "price_shown", "on_hand", "reserved", "available_shown", "active")
    list_filter = ("active",)
    search_fields = ("sku", "name")
    readonly_fields = ("reserved", "available_shown")
    fields = (
        "sku", "name", ("price", "currency"), "tax_rate", "on_hand", "reserved", "available_shown", "active",
    )  # fmt: skip
    sortable_by: ClassVar = ("sku", "name", "on_hand", "reserved")

    def save_model(self, request: HttpRequest, obj: Product, form: Any, change: bool) -> None:
        obj.save(update_fields=form.changed_data if change else None)

    @admin.display(description=_("price"))
    def price_shown(self, product: Product) -> str:
        return product.price_money.format()

    @admin.display(description=_("available"))
    def available_shown(self, product: Product) -> int:
        return product.available if product.pk else 0
