"""That somebody's personal data was erased, and the one way into rows that are otherwise never changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pgtrigger
from django.db import models
from django.db.models import Func
from django.utils.translation import gettext_lazy as _


class AppendOnly(pgtrigger.Trigger):
    """Refuses to change or delete a row. `personal` are the columns that an erasure may write over.

    It may only in the transaction that has written its `Erasure`, and only if no other column changes: so nothing
    is redacted without a record, and no amount, reference, date or name of staff ever.
    """

    when = pgtrigger.Before
    operation = pgtrigger.Update | pgtrigger.Delete

    def __init__(self, *, name: str = "append_only", personal: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.personal = tuple(personal)

    def get_func(self, model: models.Model) -> str:
        refuse = f"RAISE EXCEPTION 'pgtrigger: Cannot {str(self.operation).lower()} rows from % table', TG_TABLE_NAME;"
        if not self.personal:
            return refuse
        columns = ", ".join(f"'{name}'" for name in self.personal)
        return (
            f"IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - ARRAY[{columns}] = to_jsonb(OLD) - ARRAY[{columns}] "
            "AND EXISTS (SELECT 1 FROM kernel_erasure WHERE transaction = pg_current_xact_id()::text) "
            f"THEN RETURN NEW; END IF; {refuse}"
        )


class CurrentTransaction(Func):
    """The id of the transaction that writes the row, as text."""

    template = "pg_current_xact_id()::text"
    output_field = models.CharField()


class Erasure(models.Model):
    """One erasure. Of the person it knows a keyed hash of the e-mail address, and nothing else. Append-only."""

    person = models.CharField(_("person"), max_length=64, db_index=True, help_text=_("A keyed hash."))
    actor = models.CharField(_("who"), max_length=150)
    reason = models.TextField(_("reason"))
    orders = models.JSONField(_("orders"), default=list)
    transaction = models.CharField(max_length=20, db_default=CurrentTransaction(), editable=False)
    at = models.DateTimeField(_("at"), auto_now_add=True)

    class Meta:
        verbose_name = _("erasure")
        verbose_name_plural = _("erasures of personal data")
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index(fields=["transaction"], name="erasure_by_transaction")]
        triggers: ClassVar = [AppendOnly()]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.actor}"
