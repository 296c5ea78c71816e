"""The tracking number of a parcel that staff hand over themselves."""

from __future__ import annotations

from django.db import transaction
from django.utils.translation import gettext as _

from orders.models import Order, OrderEvent, Saga, Shipment
from orders.services.lifecycle import Acted, ActionRefused
from orders.words import named

CARRIERS = ("manual",)


def why_not_enter(saga: Saga | None) -> str:
    """Why no tracking number can be entered now; empty if one can."""
    shipment = Shipment.objects.filter(saga=saga).first() if saga else None
    if shipment is None:
        return _("There is no shipment yet.")
    if shipment.carrier not in CARRIERS:
        return _("The carrier ({carrier}) gives the tracking number itself.").format(
            carrier=named(shipment.carrier)
        )
    if shipment.state == Shipment.State.CANCELLED:
        return _("The shipment was called back.")
    return ""


@transaction.atomic
def enter_tracking_number(order_number: str, actor: str, tracking_number: str) -> Acted:
    """Write the tracking number of the order's latest shipment down, or over."""
    number = tracking_number.strip()
    if not number:
        raise ActionRefused(_("Enter the tracking number."))
    order = Order.objects.select_for_update().get(number=order_number)
    saga = order.saga
    if why_not := why_not_enter(saga):
        raise ActionRefused(why_not)
    shipment = Shipment.objects.get(saga=saga)
    if shipment.tracking_number == number:
        return Acted(_("That is its tracking number already."), repeated=True)
    before, shipment.tracking_number = shipment.tracking_number, number
    shipment.save(update_fields=["tracking_number"])
    OrderEvent.objects.create(
        order=order,
        kind=OrderEvent.Kind.TRACKING,
        actor=actor,
        reason=_("It was {number} before.").format(number=before) if before else "",
        data={"tracking_number": number},
    )
    return Acted(_("The tracking number is written down."))
