"""Lists that stay fast: nothing is counted beyond a cap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.paginator import Paginator
from django.utils.functional import cached_property

CAP = 10_000


if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator


class CappedPaginator(_Paginator):
    """Counts up to `CAP` rows; what lies beyond is found by search and filters, not by paging."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[:CAP].count())

    @property
    def is_capped(self) -> bool:
        return self.count >= CAP
