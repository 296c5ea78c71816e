"""A statement file on its way into the books: how far it is, then what came of it, line by line.

The page asks every second with the stamp of what it shows, as an order's does; when the import has ended the
answer carries no trigger any more. Files hold bank data: only those who may import see them at all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.urls import URLPattern, path
from django.utils.http import content_disposition_header
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django_htmx.http import HttpResponseClientRefresh

from payments.admin.lines import report_of
from payments.admin.statements import IMPORT
from payments.models import StatementFile
from payments.services import statement_files
from payments.services.lines import LEFT_OUT
from payments.services.noticing import notices
from shop.kernel.admin.acting import Act, ActingAdmin, Button
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin

State = StatementFile.State
MOST_STATEMENTS = 50
_TONES = {
    State.QUEUED: "queued", State.READING: "running", State.IMPORTING: "running", State.IMPORTED: "succeeded",
    State.FAILED: "failed",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Done:
    message: str
    repeated: bool = False


class ImportAgain(Act):
    slug = "again"
    label = _("Import again")
    permission = IMPORT
    refusals = (statement_files.NotFailed,)
    follows = _("It goes on where it stopped. Each booking counts once.")

    def why_not(self, subject: StatementFile) -> str:
        return "" if subject.state == State.FAILED else gettext("It is %s.") % subject.get_state_display()

    def will(self, subject: StatementFile) -> str:
        return gettext("The worker reads the stored file once more.")

    def do(self, subject: StatementFile, data: dict[str, Any], actor: str, seen: str) -> Done:
        statement_files.import_again(subject)
        return Done(gettext("It waits for the worker."))


@admin.register(StatementFile)
class StatementFileAdmin(ActingAdmin, LookOnlyAdmin):
    acts = (ImportAgain(),)
    change_form_template = "admin/payments/statementfile/change_form.html"
    list_display = ("received_at", "name", "state_label", "told", "new", "received_from")
    list_display_links = ("received_at", "name")
    list_filter = ("state", "received_at")
    search_fields = ("name",)
    sortable_by: ClassVar = ()

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """The panel tells all of it."""
        return ()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm(IMPORT))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[StatementFile]:
        rows: QuerySet[StatementFile] = super().get_queryset(request)
        return rows.select_related("same_as").annotate(
            lines_told=Sum("statements__transactions_in_file"), lines_new=Sum("statements__transactions_new")
        )

    def get_urls(self) -> list[URLPattern]:
        download = self.admin_site.admin_view(self.download)
        return [
            # Not behind the guard: a redirect to the login page would end up inside the page.
            path("<int:pk>/live/", never_cache(self.live), name="payments_statementfile_live"),
            path("<int:pk>/download/", download, name="payments_statementfile_download"),
            *super().get_urls(),
        ]

    # --- its page ----------------------------------------------------------------------------------------

    def buttons(self, request: HttpRequest, subject: Any) -> list[Button]:
        return [button for button in super().buttons(request, subject) if not button.why_not]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kw: Any) -> Any:
        file = context.get("original")
        if file is not None:
            context |= self._shown(request, file) | {"title": file.name, "subtitle": None}
        return super().render_change_form(request, context, *args, **kw)

    def live(self, request: HttpRequest, pk: int) -> HttpResponse:
        """What the page shows, if it has changed."""
        if not self.admin_site.has_permission(request):
            return HttpResponseClientRefresh()  # the session has ended: the whole page goes to the login
        if not self.has_view_permission(request):
            raise PermissionDenied
        file = get_object_or_404(self.get_queryset(request), pk=pk)
        context = self._shown(request, file)
        if request.GET.get("stamp") == context["stamp"]:
            return HttpResponse(status=204)
        return HttpResponse(render_to_string(_LIVE, context | {"oob": True}, request))

    def _shown(self, request: HttpRequest, file: StatementFile) -> dict[str, Any]:
        context: dict[str, Any] = {
            "file": file,
            "state": label(_TONES[State(file.state)], file.get_state_display()),
            "act_buttons": self.buttons(request, file),
        }
        if file.is_finished:
            return context | _results(request, file) | {"stamp": ""}  # nobody asks any more
        context["outlook"] = statement_files.outlook(file)
        shown = render_to_string(_LIVE, context, request)
        return context | {"stamp": hashlib.sha256(shown.encode()).hexdigest()[:16]}

    def download(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The file as it came."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        file = get_object_or_404(StatementFile, pk=pk)
        with statement_files.content_of(file) as content:
            disposition = content_disposition_header(True, file.name) or "attachment"
            return HttpResponse(
                content.read(),
                content_type="application/octet-stream",
                headers={"Content-Disposition": disposition, "Cache-Control": "no-store"},
            )

    # --- the list ----------------------------------------------------------------------------------------

    @admin.display(description=_("state"))
    def state_label(self, file: StatementFile) -> SafeString:
        return label(_TONES[State(file.state)], file.get_state_display())

    @admin.display(description=_("transactions"), empty_value="–")
    def told(self, file: Any) -> int | None:
        return file.lines_told  # type: ignore[no-any-return]

    @admin.display(description=_("new"), empty_value="–")
    def new(self, file: Any) -> int | None:
        return file.lines_new  # type: ignore[no-any-return]


_LIVE = "admin/payments/statementfile/_live.html"


def _results(request: HttpRequest, file: StatementFile) -> dict[str, Any]:
    """What came of a file whose import has ended. One that failed may have got some way."""
    pks = list(file.statements.order_by("pk").values_list("pk", flat=True))
    if not pks:
        return {}
    report = report_of(request, pks)
    left_out = next(choice.count for choice in report.choices if choice.fate == LEFT_OUT)
    return {
        "report": report,
        "notices": notices(file, left_out=left_out),
        "statements": file.statements.order_by("pk")[:MOST_STATEMENTS],
        "more_statements": len(pks) - MOST_STATEMENTS,
        "number_of_statements": len(pks),
    }
