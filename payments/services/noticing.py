"""What a person should know of a statement file that was imported without an error."""

from __future__ import annotations

from django.db.models import Exists, F, OuterRef
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from payments.models import BankStatement, StatementFile
from shop.kernel.money import Money

MOST = 20


def notices(file: StatementFile, *, left_out: int) -> list[str]:
    """Sentences: what was left out, and where a statement in between seems to be missing."""
    found = []
    if left_out:
        told = ngettext(
            "%(count)s entry was left out, and counted for nothing. The report below says why.",
            "%(count)s entries were left out, and counted for nothing. The report below says why.",
            left_out,
        )
        found.append(told % {"count": number_format(left_out, force_grouping=True)})
    found += [
        _(
            "Statement %(statement)s opens with %(balance)s, and no other statement closes with that: one before "
            "it may be missing."
        )
        % {
            "statement": statement.statement_id or statement.file_name,
            "balance": Money(statement.opening or 0, statement.currency).format(),
        }
        for statement in _after_a_gap(file)
    ]
    return found


def _after_a_gap(file: StatementFile) -> list[BankStatement]:
    """All of it was new, and it does not begin where any other ends. An account begins with nothing."""
    others = BankStatement.objects.filter(account_iban=OuterRef("account_iban")).exclude(pk=OuterRef("pk"))
    gaps = BankStatement.objects.filter(
        Exists(others.filter(pk__lt=OuterRef("pk"), closing__isnull=False)),
        ~Exists(others.filter(closing=OuterRef("opening"), currency=OuterRef("currency"))),
        source=file,
        transactions_new=F("transactions_in_file"),
    )
    return list(gaps.exclude(opening=None).exclude(opening=0).order_by("pk")[:MOST])
