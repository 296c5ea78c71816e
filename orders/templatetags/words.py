"""`{{ order.carrier|named }}` and `{{ letter.error|said }}`: codes, actors and stored sentences as people read them."""

from __future__ import annotations

from django import template

from orders.words import by, named, said

register = template.Library()
register.filter(by)
register.filter(named)
register.filter(said)
