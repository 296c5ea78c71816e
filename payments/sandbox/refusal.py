"""How the practice provider says no: a code for programs, a sentence for people, and the wrong field."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """The provider does not do what was asked. `status` is the HTTP status of the answer."""

    def __init__(self, code: str, message: str, status: int = 422, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.field = field
        self.headers: dict[str, str] = {}

    def as_json(self) -> dict[str, Any]:
        answer = {"code": self.code, "message": self.message}
        return answer | {"field": self.field} if self.field else answer


class RateLimited(Refused):
    """Too many calls: come again in `retry_after` whole seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("rate_limited", f"Too many calls; try again in {retry_after} s.", status=429)
        self.headers = {"Retry-After": str(retry_after)}


def invalid(field: str, message: str) -> Refused:
    """The request cannot be understood because of `field`."""
    return Refused("invalid_request", message, field=field)
