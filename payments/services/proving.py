"""Do the books about the bank's money agree with themselves? Each rule is one query over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.db import connection

from shop.kernel.money import Money

WITHOUT_MONEY = "('too_little', 'chargeback', 'undeliverable')"


@dataclass(frozen=True, slots=True)
class Difference:
    about: str
    sentence: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """`query` gives rows that break it: what they are about, the currency, what should be, and what is."""

    query: str
    sentence: str


_RULES = (
    _Rule(
        """
        SELECT t.key, t.currency, t.amount, coalesce(sum(a.amount), 0)
        FROM payments_banktransaction t LEFT JOIN payments_allocation a ON a.transaction_id = t.id
        GROUP BY t.id HAVING coalesce(sum(a.amount), 0) <> t.amount
        """,
        "{should} were booked by the bank, but what became of {have} is written down.",
    ),
    _Rule(
        """
        SELECT t.key || ' ' || a.purpose, t.currency, 0, sum(a.amount)
        FROM payments_allocation a JOIN payments_banktransaction t ON t.id = a.transaction_id
        GROUP BY t.id, a.purpose, a.payment_id HAVING sum(a.amount) < 0
        """,
        "More was moved away from there than was there: {have}.",
    ),
    _Rule(
        """
        SELECT p.merchant_reference, p.currency, coalesce(m.amount, 0), coalesce(e.amount, 0)
        FROM (
            SELECT a.payment_id, sum(CASE t.direction WHEN 'credit' THEN a.amount ELSE -a.amount END) AS amount
            FROM payments_allocation a JOIN payments_banktransaction t ON t.id = a.transaction_id
            WHERE a.purpose = 'matched' GROUP BY a.payment_id
        ) m FULL JOIN (
            SELECT payment_id, sum(CASE type WHEN 'receipt' THEN amount ELSE -amount END) AS amount
            FROM payments_paymentevent
            WHERE type IN ('receipt', 'chargeback') AND outcome = 'succeeded' AND source = 'statement'
            GROUP BY payment_id
        ) e ON e.payment_id = m.payment_id
        JOIN payments_payment p ON p.id = coalesce(m.payment_id, e.payment_id)
        WHERE coalesce(m.amount, 0) <> coalesce(e.amount, 0)
        """,
        "{should} of bank bookings are matched to it, but its books say that {have} came by bank.",
    ),
    _Rule(
        f"""
        SELECT t.key, t.currency, coalesce(a.amount, 0), coalesce(r.amount, 0)
        FROM (
            SELECT transaction_id, sum(amount) AS amount FROM payments_allocation
            WHERE purpose = 'review' GROUP BY transaction_id
        ) a FULL JOIN (
            SELECT transaction_id, sum(amount) AS amount FROM payments_reviewitem
            WHERE state = 'open' AND transaction_id IS NOT NULL AND reason NOT IN {WITHOUT_MONEY}
            GROUP BY transaction_id
        ) r ON r.transaction_id = a.transaction_id
        JOIN payments_banktransaction t ON t.id = coalesce(a.transaction_id, r.transaction_id)
        WHERE coalesce(a.amount, 0) <> coalesce(r.amount, 0)
        """,
        "{should} of it are in review, but the review list has {have} of it.",
    ),
    _Rule(
        """
        SELECT t.key, t.currency, a.amount, coalesce(o.amount, 0)
        FROM payments_allocation a JOIN payments_banktransaction t ON t.id = a.transaction_id
        LEFT JOIN payments_outgoingtransfer o ON o.idempotency_key = a.key
        WHERE a.purpose = 'refunded' AND a.amount > 0 AND t.direction = 'credit'
          AND coalesce(o.amount, 0) <> a.amount
          AND NOT EXISTS (SELECT 1 FROM payments_reviewitem r WHERE r.key = 'taken-back:of-' || t.id)
        """,
        "{should} of it are to be paid back, but the transfer for that is over {have}.",
    ),
)


def differences() -> Iterator[Difference]:
    """Everything that does not agree."""
    with connection.cursor() as cursor:
        for rule in _RULES:
            cursor.execute(rule.query)
            for about, currency, should, have in cursor.fetchall():
                amounts = {"should": Money(int(should), currency), "have": Money(int(have), currency)}
                yield Difference(about, rule.sentence.format(**amounts))


def whereabouts() -> dict[tuple[str, str, str], int]:
    """Where all money of the bank's bookings is: by direction, currency and purpose, in minor units.

    Per direction and currency it adds up to what the bank has booked, under the purpose `booked`.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT t.direction, t.currency, a.purpose, sum(a.amount)
            FROM payments_allocation a JOIN payments_banktransaction t ON t.id = a.transaction_id
            GROUP BY 1, 2, 3
            UNION ALL
            SELECT direction, currency, 'booked', sum(amount) FROM payments_banktransaction GROUP BY 1, 2
            """
        )
        return {(direction, currency, purpose): int(sum_) for direction, currency, purpose, sum_ in cursor}
