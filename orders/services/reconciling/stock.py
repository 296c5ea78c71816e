"""Stock against reservations, and parcels against both."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Exists, F, OuterRef, Q, Sum
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_noop

from orders.models import DeadLetter, Product, Reservation, Saga, Shipment
from orders.services.reconciling.finding import Finding, Look, Weight
from orders.workflows.types import Step

State = Reservation.State
COUNT = gettext_noop(
    "Count the shelf, then have a developer find out where the pieces went; no button changes it."
)


def reservations(look: Look) -> Iterator[Finding]:
    """What a product says is reserved is what open orders hold; one that has ended holds nothing."""
    held = Coalesce(Sum("reservation__quantity", filter=Q(reservation__state=State.RESERVED)), 0)
    for product in Product.objects.annotate(held=held).exclude(reserved=F("held")):
        yield Finding(
            product.sku,
            f"{_pieces(product.reserved)} reserved, but open orders hold {product.held}.",
            COUNT,
            Weight.STOCK,
        )
    ended = (Saga.Status.COMPLETED, Saga.Status.CANCELLED)
    kept = Reservation.objects.filter(state=State.RESERVED, saga__status__in=ended)
    by_saga = kept.values("saga__order__number", "saga__attempt").annotate(pieces=Sum("quantity"))
    for row in by_saga.order_by("saga"):
        yield Finding(
            row["saga__order__number"],
            f"The order has ended and still holds {row['pieces']} pieces.",
            COUNT,
            Weight.STOCK,
            row["saga__order__number"],
        )


def shipments(look: Look) -> Iterator[Finding]:
    """Pieces leave the shelf with a parcel, and come back with it.

    While an order is rolled back, a parcel may be there whose pieces never left. One that people have called back by
    hand, and said by which evidence, is their word against nothing of ours.
    """
    consumed = Reservation.objects.filter(saga=OuterRef("pk"), state=State.CONSUMED)
    on_shelf = Reservation.objects.filter(saga=OuterRef("pk")).exclude(state=State.CONSUMED)
    sent = Shipment.objects.filter(saga=OuterRef("pk"), state=Shipment.State.CREATED)
    by_hand = DeadLetter.objects.filter(saga=OuterRef("pk"), step=Step.SHIPPING).exclude(evidence="")
    settled = Saga.objects.exclude(status__in=(Saga.Status.COMPENSATING, Saga.Status.COMPENSATION_FAILED))
    rules = (
        (
            Saga.objects.filter(Exists(consumed), ~Exists(sent)),
            gettext_noop("Its pieces have left the shelf, but there is no parcel that was not called back."),
        ),
        (
            settled.filter(Exists(sent), Exists(on_shelf)),
            gettext_noop("Its parcel is on its way, but not all of its pieces have left the shelf."),
        ),
        (
            Saga.objects.filter(~Exists(sent), status=Saga.Status.COMPLETED),
            gettext_noop("The order is completed, but no parcel is on its way."),
        ),
        (
            Saga.objects.filter(Exists(sent), ~Exists(by_hand), status=Saga.Status.CANCELLED),
            gettext_noop("The order is cancelled, but its parcel was not called back."),
        ),
    )
    for sagas, sentence in rules:
        for number in sagas.order_by("pk").values_list("order__number", flat=True):
            yield Finding(
                number,
                sentence,
                gettext_noop("Ask the carrier where the parcel is, and count the shelf."),
                Weight.STOCK,
                number,
            )


def _pieces(count: int) -> str:
    return "1 piece is" if count == 1 else f"{count} pieces are"
