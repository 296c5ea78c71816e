"""A shop with years behind it: orders with all their rows, any number of them, made by the database itself.

They went no way through the engine, so those that still wait are orders in bulk, which have no workflow. All came
by bank transfer, so that no provider is asked about payments that it never saw. The books agree with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connection, models, transaction
from django.utils import timezone

from orders.models import (
    DeadLetter,
    Mail,
    Order,
    OrderEvent,
    OrderLine,
    Product,
    Reservation,
    Saga,
    SagaStep,
    Shipment,
)
from payments.models import (
    Allocation,
    BankStatement,
    BankTransaction,
    OutgoingTransfer,
    Payment,
    PaymentEvent,
    Receivable,
    ReviewItem,
    StatementLine,
)
from payments.references import PREFIX

AT_A_TIME = 50_000  # orders in one transaction
DAYS = 730
FIRST_NAMES = [
    "Ada", "Anna", "Anton", "Arzu", "Ayşe", "Ben", "Björn", "Carla", "Chloé", "Clara", "Daniel", "David", "Dörte",
    "Elif", "Emil", "Emma", "Erik", "Fatma", "Felix", "Finn", "Frieda", "Gül", "Hanna", "Hans", "Ida", "Ines",
    "Jakob", "Jan", "Jörg", "Jule", "Jürgen", "Karla", "Kemal", "Konrad", "Lara", "Lea", "Leon", "Lina", "Luca",
    "Łukasz", "Maja", "Marie", "Mats", "Max", "Mehmet", "Mia", "Mila", "Noah", "Nora", "Olga", "Oskar", "Paul",
    "Pia", "René", "Rosa", "Sören", "Sofia", "Theo", "Tom", "Uwe", "Vera", "Yusuf", "Zoë",
]  # fmt: skip
LAST_NAMES = [
    "Ackermann", "Bauer", "Becker", "Berger", "Böhm", "Braun", "Çelik", "Dąbrowski", "Demir", "Dietrich", "Engel",
    "Fischer", "Franke", "Fuchs", "Graf", "Groß", "Günther", "Haas", "Hahn", "Hartmann", "Herrmann", "Hoffmann",
    "Huber", "Jäger", "Jansen", "Jung", "Kaiser", "Kaya", "Keller", "Klein", "Koch", "Köhler", "Kowalski", "König",
    "Kraus", "Krüger", "Kuhn", "Lang", "Lehmann", "Lorenz", "Maier", "Marx", "Meyer", "Möller", "Müller", "Nguyen",
    "Nowak", "Öztürk", "Otto", "Peters", "Pfeiffer", "Pohl", "Richter", "Roth", "Sauer", "Schäfer", "Schmidt",
    "Schneider", "Scholz", "Schröder", "Schulz", "Schwarz", "Seidel", "Simon", "Sommer", "Stein", "Thomas", "Vogel",
    "Voigt", "Wagner", "Walter", "Weber", "Weiß", "Werner", "Winkler", "Wolf", "Yılmaz", "Ziegler", "Zimmermann",
    "Zuse",
]  # fmt: skip
CITIES = (
    ("10119", "Berlin"),
    ("20099", "Hamburg"),
    ("28195", "Bremen"),
    ("50667", "Köln"),
    ("80331", "München"),
    ("91054", "Erlangen"),
)
STREETS = ("Am Wall", "Bahnhofstraße", "Bismarckstraße", "Lange Reihe", "Lindenallee", "Torstraße")


def make(count: int, tell: Callable[[str], object] = lambda told: None) -> None:
    """So many orders of the last two years, of the products that there are, in the order of their dates."""
    begin = timezone.now()
    for start in range(0, count, AT_A_TIME):
        upto = min(start + AT_A_TIME, count)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
            cursor.execute("SET LOCAL work_mem = '128MB'")
            cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            if cursor.fetchone()[0]:  # foreign keys are not looked up: all of a row's keys are in its plan
                cursor.execute("SET LOCAL session_replication_role = replica")
            _plan(cursor, start, upto, count, begin)
            _orders(cursor)
            _sagas(cursor)
            _payments(cursor)
            _bank(cursor, start, begin)
            _trouble(cursor)
            cursor.execute("DROP TABLE plan, shelf")
        tell(f"{upto:,} of {count:,} orders")
    with connection.cursor() as cursor:
        for model in _MODELS:
            cursor.execute(f"VACUUM ANALYZE {connection.ops.quote_name(model._meta.db_table)}")


_MODELS = (
    Order, OrderLine, OrderEvent, Saga, SagaStep, Reservation, Shipment, Mail, DeadLetter, Payment, PaymentEvent,
    Receivable, BankStatement, BankTransaction, StatementLine, Allocation, ReviewItem, OutgoingTransfer, Product,
)  # fmt: skip


def _pick(salt: int, of: int | str, by: str = "i") -> str:
    """SQL: a number from 0 to `of` - 1, the same for the same `by`."""
    return f"((hashint8extended({by}, {salt}) & 9223372036854775807) %% {of})"


def _one_of(values: str, salt: int, by: str = "i") -> str:
    """SQL: one of an array, the same for the same `by`."""
    return f"({values})[1 + {_pick(salt, f'cardinality({values})', by)}]"


def _plan(cursor: Any, start: int, upto: int, count: int, now: Any) -> None:
    """The table `plan`: a row for each order with all that its other rows are made of."""
    cursor.execute(
        """
        CREATE TEMP TABLE shelf AS
        SELECT row_number() OVER (ORDER BY id) - 1 AS place, id, sku, name, price, tax_rate, count(*) OVER () AS number
        FROM orders_product WHERE active AND currency = 'EUR'
        """
    )
    first, last, street, city, code = ("%(first)s::text[]", "%(last)s::text[]", "%(street)s::text[]",
                                       "%(city)s::text[]", "%(code)s::text[]")  # fmt: skip
    cursor.execute(
        f"""
        CREATE TEMP TABLE plan AS
        WITH who AS (
            SELECT i, {_pick(1, "greatest(%(count)s / 3, 5)")} AS c,
                   %(now)s::timestamptz - make_interval(secs => (%(count)s - i) * {DAYS * 86400.0} / %(count)s) AS at,
                   {_pick(2, 1000)} AS fate
            FROM generate_series(%(start)s + 1, %(upto)s) i
        ), named AS (
            SELECT *,
                {_one_of(first, 3, "c")} AS first_name,
                {_one_of(last, 4, "c")}
                    || CASE WHEN {_pick(5, 3, "c")} = 0 THEN '-' || {_one_of(last, 6, "c")} ELSE '' END AS last_name,
                '370400440' || lpad((c + 100000)::text, 9, '0') AS bban,
                at > %(now)s::timestamptz - interval '13 days' AS is_young
            FROM who
        )
        SELECT i, at, fate,
            nextval(pg_get_serial_sequence('orders_order', 'id')) AS order_id,
            nextval(pg_get_serial_sequence('orders_saga', 'id')) AS saga_id,
            nextval(pg_get_serial_sequence('payments_payment', 'id')) AS payment_id,
            nextval(pg_get_serial_sequence('payments_banktransaction', 'id')) AS booking_id,
            nextval('order_number') AS n,
            first_name || ' ' || last_name AS name,
            translate(lower(first_name || '.' || last_name), 'äöüßéëşçłąı', 'aouseesclai') || c
                || '@example.com' AS email,
            'DE' || lpad((98 - (bban || '131400')::numeric %% 97)::text, 2, '0') || bban AS iban,
            {_one_of(street, 7, "c")} || ' ' || 1 + {_pick(8, 120, "c")} AS street,
            {_one_of(city, 9, "c")} AS city, {_one_of(code, 9, "c")} AS code,
            CASE WHEN is_young AND fate < 600 THEN 'waiting'
                 WHEN is_young AND fate < 610 THEN 'short'
                 WHEN fate < 850 OR is_young THEN 'completed'
                 WHEN fate < 985 THEN 'cancelled'
                 WHEN fate < 995 THEN 'sent back'
                 WHEN fate < 998 THEN 'late'
                 ELSE 'failed' END AS kind,
            a.id AS a_id, 1 + {_pick(10, 3)} AS a_quantity, a.price AS a_price,
            b.id AS b_id, 1 + {_pick(11, 2)} AS b_quantity, b.price AS b_price
        FROM named
        JOIN shelf a ON a.place = {_pick(12, "a.number")}
        LEFT JOIN shelf b ON b.place = {_pick(13, "b.number")} AND b.place <> a.place AND {_pick(14, 5)} < 3
        ORDER BY i
        """,
        {
            **{"start": start, "upto": upto, "count": count, "now": now},
            **{"first": list(FIRST_NAMES), "last": list(LAST_NAMES), "street": list(STREETS)},
            **{"city": [city for _, city in CITIES], "code": [code for code, _ in CITIES]},
        },
    )
    cursor.execute(
        f"""
        ALTER TABLE plan ADD number text, ADD rf text, ADD total bigint, ADD paid_at timestamptz,
            ADD ended_at timestamptz, ADD key text, ADD booked bigint;
        UPDATE plan SET
            number = '{PREFIX}-' || n, key = '{PREFIX}-' || n || '/1/',
            rf = 'RF' || lpad((98 - ('{_in_digits(PREFIX)}' || n || '271500')::numeric %% 97)::text, 2, '0')
                || '{PREFIX}' || n,
            total = a_quantity * a_price + coalesce(b_quantity * b_price, 0) + 490,
            paid_at = CASE WHEN kind IN ('completed', 'failed', 'short')
                      THEN least(at + make_interval(hours => 4 + {_pick(15, 200)}::int), now())
                      WHEN kind IN ('late', 'sent back') THEN least(at + interval '16 days', now()) END,
            ended_at = CASE WHEN kind IN ('completed', 'failed')
                       THEN least(at + make_interval(hours => 4 + {_pick(15, 200)}::int, mins => 1), now())
                       WHEN kind NOT IN ('waiting', 'short') THEN least(at + interval '14 days', now()) END;
        UPDATE plan SET booked = CASE kind WHEN 'short' THEN total / 2 ELSE total END WHERE paid_at IS NOT NULL;
        """.replace("%%", "%")
    )


def _in_digits(letters: str) -> str:
    """As ISO 7064 counts letters: A is 10."""
    return "".join(str(ord(letter) - 55) for letter in letters)


def _insert(cursor: Any, model: type[models.Model], source: str, /, **values: str) -> None:
    """Rows of a model from `source`. `values` are SQL; what is not named has the field's default."""
    columns, expressions, defaults = [], [], []
    unknown = set(values) - {field.attname for field in model._meta.local_concrete_fields}
    assert not unknown, unknown
    for field in model._meta.local_concrete_fields:
        if field.attname in values:
            expression = values[field.attname]
        elif field.primary_key or field.has_db_default():
            continue
        elif getattr(field, "auto_now_add", False) or getattr(field, "auto_now", False):
            expression = "at"
        else:
            default = field.get_db_prep_save(field.get_default(), connection)
            if default is None and not field.null:
                raise TypeError(f"{model.__name__}.{field.attname} has no default.")
            expression = "%s"
            defaults.append(default)
        columns.append(connection.ops.quote_name(str(field.column)))
        expressions.append(expression)
    table = connection.ops.quote_name(model._meta.db_table)
    cursor.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(expressions)} FROM {source}", defaults
    )


# --- orders ----------------------------------------------------------------------------------------------


def _orders(cursor: Any) -> None:
    _insert(
        cursor, Order, "plan ORDER BY i",
        id="order_id", number="number", customer_name="name", customer_email="email", shipping_name="name",
        shipping_street="street", shipping_postal_code="code", shipping_city="city", shipping_country="'DE'",
        way="CASE WHEN ended_at IS NULL THEN 'bulk' ELSE 'saga' END",
        status="CASE kind WHEN 'completed' THEN 'completed' WHEN 'failed' THEN 'compensation_failed'"
        " WHEN 'waiting' THEN 'awaiting_payment' WHEN 'short' THEN 'awaiting_payment' ELSE 'cancelled' END",
        currency="'EUR'", shipping_cost="490", total="total", payment_method="'bank_transfer'",
        carrier="'manual'", placed_by="'demo'",
    )  # fmt: skip
    for name in ("a", "b"):
        _insert(
            cursor, OrderLine, f"plan JOIN shelf ON shelf.id = {name}_id ORDER BY i",
            order_id="order_id", product_id=f"{name}_id", sku="shelf.sku", name="shelf.name",
            quantity=f"{name}_quantity", unit_price=f"{name}_price", tax_rate="shelf.tax_rate",
        )  # fmt: skip
    _insert(cursor, OrderEvent, "plan ORDER BY i", order_id="order_id", kind="'placed'", actor="'demo'")


def _sagas(cursor: Any) -> None:
    _insert(
        cursor, Payment, "plan ORDER BY i",
        id="payment_id", gateway="'bank_transfer'", merchant_reference="number", reference="rf", amount="total",
        idempotency_key="key || 'payment_hold'", currency="'EUR'", closed_at="ended_at",
        payer_name="CASE WHEN paid_at IS NULL THEN '' ELSE name END",
    )  # fmt: skip
    _insert(
        cursor, Saga, "plan ORDER BY i",
        id="saga_id", order_id="order_id", attempt="1", payment_id="payment_id", deadline="at + interval '14 days'",
        status="CASE kind WHEN 'completed' THEN 'completed' WHEN 'failed' THEN 'compensation_failed'"
        " WHEN 'waiting' THEN 'waiting' WHEN 'short' THEN 'waiting' ELSE 'cancelled' END",
        reason="CASE WHEN kind IN ('cancelled', 'late', 'sent back') THEN 'The payment did not arrive in time.'"
        " WHEN kind = 'failed' THEN 'The carrier refused the parcel.' ELSE '' END",
        rollback_run="CASE WHEN kind IN ('cancelled', 'late', 'sent back', 'failed') THEN md5(number)::uuid::text"
        " ELSE '' END",
        ended_at="ended_at",
    )  # fmt: skip
    held, undone = "kind IN ('waiting', 'short')", "kind IN ('cancelled', 'late', 'sent back', 'failed')"
    paid = "kind IN ('completed', 'failed')"
    done = (
        ("inventory", "action", "true", "at"),
        ("payment_hold", "action", "true", "at"),
        ("payment_captured", "action", paid, "paid_at"),
        ("shipping", "action", "kind = 'completed'", "ended_at"),
        ("confirmation", "action", "kind = 'completed'", "ended_at"),
        ("payment_captured", "compensation", "kind = 'failed'", "ended_at"),
        ("payment_hold", "compensation", f"{undone} AND kind <> 'failed'", "ended_at"),
        ("inventory", "compensation", undone, "ended_at"),
    )
    for step, kind, where, at in done:
        failed = kind == "compensation" and step == "payment_captured"
        _insert(
            cursor, SagaStep, f"plan WHERE {where} ORDER BY i",
            saga_id="saga_id", step=f"'{step}'", kind=f"'{kind}'", attempt="1", actor="'saga'",
            outcome="'failed'" if failed else "'succeeded'",
            error="'The provider does not answer.'" if failed else "''",
            idempotency_key=f"key || '{step}'", started_at=f"{at} - interval '40 ms'", at=at,
            reference="rf" if step.startswith("payment") else "''",
            rollback_run="md5(number)::uuid::text" if kind == "compensation" else "''",
        )  # fmt: skip
    for name in ("a", "b"):
        _insert(
            cursor, Reservation, f"plan WHERE {held} AND {name}_id IS NOT NULL ORDER BY i",
            saga_id="saga_id", product_id=f"{name}_id", quantity=f"{name}_quantity",
        )  # fmt: skip
    cursor.execute(
        f"""
        UPDATE orders_product p SET reserved = reserved + held.number, on_hand = on_hand + held.number
        FROM (
            SELECT id, sum(number) AS number FROM (
                SELECT a_id AS id, a_quantity AS number FROM plan WHERE {held}
                UNION ALL SELECT b_id, b_quantity FROM plan WHERE {held} AND b_id IS NOT NULL
            ) lines GROUP BY id
        ) held WHERE held.id = p.id
        """
    )
    _insert(
        cursor, Shipment, "plan WHERE kind = 'completed' ORDER BY i",
        saga_id="saga_id", carrier="'manual'", reference="key || 'shipping'",
        tracking_number="'0034' || lpad((n * 7919)::text, 16, '0')", created_at="ended_at",
    )  # fmt: skip
    _insert(
        cursor, Mail, "plan ORDER BY i",
        saga_id="saga_id", kind="'received'", message_id="'<' || number || '.1.received@demo.example.com>'",
        recipient="email", subject="'Your order ' || number", html="''",
        text="'Thank you for your order ' || number || '. Please pay with the reference ' || rf || '.'",
        state="'sent'", attempts="1", sent_at="at",
    )  # fmt: skip


# --- money -----------------------------------------------------------------------------------------------


def _payments(cursor: Any) -> None:
    paid = "kind IN ('completed', 'failed')"
    _insert(
        cursor, Receivable, "plan ORDER BY i",
        reference="rf", merchant_reference="number", amount="total", currency="'EUR'",
        idempotency_key="key || 'payment_hold'",
        capture_key=f"CASE WHEN {paid} THEN key || 'payment_captured' ELSE '' END",
        captured=f"CASE WHEN {paid} THEN total ELSE 0 END",
        captured_at=f"CASE WHEN {paid} THEN paid_at END",
        void_key=f"CASE WHEN ended_at IS NOT NULL AND NOT {paid} THEN key || 'payment_hold' ELSE '' END",
        voided_at=f"CASE WHEN NOT {paid} THEN ended_at END",
    )  # fmt: skip
    events = (
        ("authorization", "true", "total", "at", "call"),
        ("receipt", "booked IS NOT NULL AND kind NOT IN ('late', 'sent back')", "booked", "paid_at", "statement"),
        ("capture", paid, "total", "paid_at", "call"),
        ("void", f"ended_at IS NOT NULL AND NOT {paid}", "total", "ended_at", "call"),
    )  # fmt: skip
    for kind, where, amount, at, source in events:
        _insert(
            cursor, PaymentEvent, f"plan WHERE {where} ORDER BY i",
            payment_id="payment_id", gateway="'bank_transfer'", type=f"'{kind}'", outcome="'succeeded'",
            psp_reference="rf", amount=amount, currency="'EUR'", occurred_at=at, recorded_at=at, source=f"'{source}'",
        )  # fmt: skip


def _bank(cursor: Any, start: int, now: Any) -> None:
    """One statement for all bookings, each with where its money went."""
    statement = BankStatement.objects.create(
        kind="demo",
        statement_id=f"DEMO-{start}",
        account_iban="DE89370400440532013000",
        file_name=f"demo-{now:%Y%m%d%H%M%S}-{start}.xml",
        currency="EUR",
        imported_by="demo",
    )
    _insert(
        cursor, BankTransaction, "plan WHERE booked IS NOT NULL ORDER BY paid_at, i",
        id="booking_id", key="'demo-' || booking_id", statement_id=str(statement.pk), position="i::text",
        direction="'credit'", amount="booked", currency="'EUR'", booking_date="(paid_at AT TIME ZONE 'UTC')::date",
        value_date="(paid_at AT TIME ZONE 'UTC')::date", bank_reference="'DEMO' || booking_id",
        creditor_reference="CASE WHEN fate %% 2 = 0 THEN rf ELSE '' END",
        remittance_information="CASE WHEN fate %% 2 = 1 THEN 'Bestellung ' || number ELSE '' END",
        counterparty_name="name", counterparty_iban="iban", recorded_at="paid_at",
    )  # fmt: skip
    _insert(
        cursor, StatementLine, "plan WHERE booked IS NOT NULL ORDER BY paid_at, i",
        statement_id=str(statement.pk), place="row_number() OVER (ORDER BY paid_at, i)", position="i::text",
        transaction_id="booking_id", is_new="true",
    )  # fmt: skip
    statement.transactions_in_file = statement.transactions_new = StatementLine.objects.filter(
        statement=statement
    ).count()
    statement.save()
    matched = "kind NOT IN ('late', 'sent back')"
    _insert(
        cursor, Allocation, "plan WHERE booked IS NOT NULL ORDER BY i",
        transaction_id="booking_id", amount="booked", key="'demo-' || booking_id", actor="'import'", at="paid_at",
        purpose=f"CASE WHEN {matched} THEN 'matched' WHEN kind = 'late' THEN 'review' ELSE 'refunded' END",
        payment_id=f"CASE WHEN {matched} THEN payment_id END",
    )  # fmt: skip


def _trouble(cursor: Any) -> None:
    """Money that came too late or too little, and rollbacks that failed."""
    _insert(
        cursor, ReviewItem, "plan WHERE kind IN ('late', 'short', 'sent back') ORDER BY i",
        key="'demo-' || booking_id", merchant_reference="number", payment_id="payment_id", currency="'EUR'",
        reason="CASE kind WHEN 'short' THEN 'too_little' ELSE 'late' END",
        amount="CASE kind WHEN 'short' THEN total - booked ELSE booked END", transaction_id="booking_id",
        detail="CASE kind WHEN 'short' THEN 'Half of the money has come.'"
        " ELSE 'The money came after the order was cancelled.' END",
        state="CASE kind WHEN 'sent back' THEN 'closed' ELSE 'open' END", created_at="paid_at",
        resolution="CASE kind WHEN 'sent back' THEN 'Sent back.' ELSE '' END",
        resolved_by="CASE kind WHEN 'sent back' THEN 'demo' ELSE '' END",
        resolved_at="CASE kind WHEN 'sent back' THEN paid_at + interval '1 day' END",
    )  # fmt: skip
    _insert(
        cursor, OutgoingTransfer, "plan WHERE kind = 'sent back' ORDER BY i",
        payment_id="payment_id", idempotency_key="'demo-' || booking_id", end_to_end_id="'BACK-' || number",
        amount="booked", currency="'EUR'", payee_name="name", payee_iban="iban",
        remittance_information="'Refund ' || number", requested_by="'demo'", created_at="paid_at + interval '1 day'",
        state="CASE WHEN paid_at < now() - interval '30 days' THEN 'booked' ELSE 'ready' END",
        booked_at="CASE WHEN paid_at < now() - interval '30 days' THEN paid_at + interval '3 days' END",
    )  # fmt: skip
    _insert(
        cursor, DeadLetter, "plan WHERE kind = 'failed' ORDER BY i",
        saga_id="saga_id", step="'payment_captured'", idempotency_key="key || 'payment_captured'",
        rollback_run="md5(number)::uuid::text", kind="'exhausted'", error_type="'GatewayUnavailable'",
        error="'The provider does not answer.'", attempts="10", amount="total", currency="'EUR'", reference="rf",
        state="CASE WHEN fate %% 2 = 0 THEN 'open' ELSE 'resolved' END", created_at="ended_at",
        resolution="CASE WHEN fate %% 2 = 0 THEN '' ELSE 'Done by hand.' END",
        resolved_at="CASE WHEN fate %% 2 = 0 THEN NULL ELSE ended_at + interval '1 day' END",
        resolved_by="CASE WHEN fate %% 2 = 0 THEN '' ELSE 'demo' END",
    )  # fmt: skip
