"""Files with bank statements, kept as they came, and how far their import is."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class StatementFile(models.Model):
    """A file that somebody or something handed in. It is stored before anybody looks into it, and kept.

    `same_as` is the first file with the same content; that one holds the content for both. `origin` tells a file
    that comes from a folder from the same one seen again.
    """

    class State(models.TextChoices):
        QUEUED = "queued", _("waits for the worker")
        READING = "reading", _("is being read")
        IMPORTING = "importing", _("is being imported")
        IMPORTED = "imported", _("imported")
        FAILED = "failed", _("failed")

    UNFINISHED = (State.QUEUED, State.READING, State.IMPORTING)

    name = models.CharField(_("file"), max_length=200)
    size = models.BigIntegerField(_("size"))  # bytes
    digest = models.CharField(max_length=64, db_index=True)  # SHA-256, hexadecimal
    same_as = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="copies", verbose_name=_("same as")
    )
    origin = models.CharField(max_length=64, unique=True, null=True, blank=True)
    received_at = models.DateTimeField(_("received"), auto_now_add=True)
    received_from = models.CharField(_("received from"), max_length=150)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.QUEUED)
    # Begun without having got any further: a file that brings every worker down is given up.
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    done = models.PositiveIntegerField(_("transactions done"), default=0)
    total = models.PositiveIntegerField(_("transactions"), default=0)
    error = models.TextField(_("error"), blank=True, default="")
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)

    class Meta:
        verbose_name = _("statement file")
        verbose_name_plural = _("statement files")
        ordering: ClassVar = ["-id"]
        # Bank data as it came: for those who may import it (payments.import_statement), and nobody else.
        default_permissions: ClassVar = ()
        indexes: ClassVar = [
            models.Index(
                fields=["id"],
                name="statement_file_unfinished",
                condition=Q(state__in=["queued", "reading", "importing"]),
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_finished(self) -> bool:
        return self.state not in self.UNFINISHED


class StatementFilePart(models.Model):
    """A piece of a file's content, so that nobody has to hold all of it."""

    file = models.ForeignKey(StatementFile, models.PROTECT, related_name="parts")
    place = models.PositiveIntegerField()
    data = models.BinaryField()

    class Meta:
        ordering: ClassVar = ["file_id", "place"]
        default_permissions: ClassVar = ()
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["file", "place"], name="statement_file_part_once"),
        ]

    def __str__(self) -> str:
        return f"{self.file_id}/{self.place}"
