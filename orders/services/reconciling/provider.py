"""The ledger against each provider's own list."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from django.utils.translation import gettext_noop

from orders.models import Difference
from orders.services.reconciling.finding import Check, Finding, Kind, Look
from payments.services import comparing


def checks() -> list[Check]:
    """One for each provider that lists its payments: one that is away keeps no other from being compared."""
    return [
        Check(f"{Kind.PROVIDER} {name}", Kind.PROVIDER, partial(_compared, name), scope=f"{name} ")
        for name in comparing.comparable()
    ]


def _compared(name: str, look: Look) -> Iterator[Finding]:
    """Those that are open are looked at however old they are."""
    scope = f"{name} "
    if look.only:
        found = comparing.compare(name, [look.only.removeprefix(scope)])
    else:
        still_open = Difference.objects.filter(
            kind=Kind.PROVIDER, subject__startswith=scope, closed_at=None
        ).order_by("pk")
        again = [subject.removeprefix(scope) for subject in still_open.values_list("subject", flat=True)]
        found = comparing.mismatches(name, again, beat=look.beat)
    for mismatch in found:
        yield Finding(
            f"{scope}{mismatch.reference}",
            mismatch.sentence,
            ""
            if mismatch.can_take
            else gettext_noop("See the payment in the provider's own screens, and have them explain it."),
            order_number=mismatch.merchant_reference,
            payment=mismatch.payment.pk if mismatch.payment else None,
            remedy=_remedy(mismatch),
            mend=partial(comparing.take, name, mismatch.reference) if mismatch.can_take else None,
        )


def _remedy(mismatch: comparing.Mismatch) -> str:
    if not mismatch.can_take:
        return ""
    return (
        gettext_noop("what the provider says is taken over")
        if mismatch.payment
        else gettext_noop("it is put in review")
    )
