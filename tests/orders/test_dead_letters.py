"""The review of dead letters: who does what, once, on what they saw, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.utils import timezone

from orders.models import DeadLetter, DeadLetterAct, Mail, OrderEvent
from orders.models.dead_letter import RETRY_LOST_AFTER, kind_of
from orders.services import dead_letter_facts, dead_letters, ending
from orders.services.dead_letters import ChangedMeanwhile
from orders.services.lifecycle import Acted, ActionRefused
from orders.workflows.types import FailedUndo, RetryInput, RollbackStart, SagaEnd, SagaResult
from shop.kernel.models import OutboxMessage
from tests.orders.practice_shop import PracticeShop
from tests.orders.test_saga_rollback import _cancelled_where_it_needs
from tests.payments.sandbox_process import SandboxProcess

Kind = DeadLetter.Kind


def letter_of(shop: PracticeShop, operation: str = "void", **faults: int) -> DeadLetter:
    """One whose provider works again."""
    shop.end(_cancelled_where_it_needs(shop, operation, {operation: faults or {"refuse_rate": 1}}))
    shop.provider.faults()
    return DeadLetter.objects.get()


def retried(shop: PracticeShop, letter: DeadLetter, key: str = "k") -> None:
    dead_letters.retry(letter.pk, "grace", "Repaired", key=key)
    shop.engine.deliver()
    shop.engine.result(letter.workflow_id)
    letter.refresh_from_db()


def verbs(letter: DeadLetter) -> list[str]:
    return [f"{act.verb} {act.actor}" for act in letter.acts.all()]


# --- kinds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error_type", "kind"),
    [
        ("GatewayUnavailable", Kind.EXHAUSTED),
        ("CarrierUnavailable", Kind.EXHAUSTED),
        ("TimeoutError", Kind.EXHAUSTED),
        ("OperationalError", Kind.EXHAUSTED),
        ("GatewayRefused", Kind.REFUSED),
        ("CarrierRefused", Kind.REFUSED),
        ("GatewayMisconfigured", Kind.CONFIGURATION),
        ("CarrierMisconfigured", Kind.CONFIGURATION),
        ("KeyError", Kind.BUG),
        ("", Kind.BUG),
    ],
)
def test_each_kind_of_failure_has_its_advice(error_type: str, kind: Kind) -> None:
    assert kind_of(error_type) == kind
    assert str(DeadLetter(kind=kind).advice)
    assert len({str(DeadLetter(kind=each).advice) for each in Kind}) == len(Kind)


@pytest.mark.parametrize(
    ("faults", "kind"), [({"refuse_rate": 1}, Kind.REFUSED), ({"error_rate": 1}, Kind.EXHAUSTED)]
)
def test_letter_knows_its_kind_when_it_is_written(
    shop: PracticeShop, faults: dict[str, int], kind: Kind
) -> None:
    letter = letter_of(shop, "void", **faults)
    assert (letter.kind, verbs(letter)) == (kind, ["arrived saga"])


# --- what is told twice or late --------------------------------------------------------------------------


def failure(letter: DeadLetter, retry: int = 0, error: str = "again") -> FailedUndo:
    number = letter.saga.order.number
    return FailedUndo(number, 1, letter.step, letter.rollback_run, error, "GatewayRefused", retry)


def test_failure_told_twice_or_late_opens_nothing_anew(shop: PracticeShop) -> None:
    letter = letter_of(shop)
    dead_letters.write(failure(letter))
    assert verbs(letter) == ["arrived saga"]

    dead_letters.retry(letter.pk, "grace", "Repaired", key="1")
    dead_letters.write(failure(letter))  # the saga's own, once more
    letter.refresh_from_db()
    assert letter.state == "retrying"
    dead_letters.write(failure(letter, retry=1))
    dead_letters.retry(letter.pk, "grace", "Repaired", key="2")
    dead_letters.write(failure(letter, retry=1))  # the first retry's, late
    letter.refresh_from_db()
    assert (letter.state, letter.retries) == ("retrying", 2)

    undone = RetryInput(letter.pk, "grace", failure(letter, retry=2), remote=True)
    dead_letters.close_after_retry(undone)
    dead_letters.close_after_retry(undone)
    dead_letters.write(failure(letter, retry=2))
    dead_letters.write(failure(letter))
    letter.refresh_from_db()
    assert letter.state == "resolved"
    assert verbs(letter) == ["arrived saga", "retry grace", "failed_again saga", "retry grace", "undone saga"]


def test_letter_closed_before_its_rollback_ended_leaves_no_order_stuck(shop: PracticeShop) -> None:
    order = shop.waiting()
    ending.begin_rollback(RollbackStart(order.number, 1, "run", "Ordered twice", "grace"))
    letter = dead_letters.write(FailedUndo(order.number, 1, "inventory", "run", "no", "KeyError"))
    acted = dead_letters.resolve(letter.pk, "grace", "Counted the shelf", "T-1", key="k")
    assert acted.message == "It is resolved. The rest of the order is still being rolled back."
    result = SagaResult("compensation_failed", order.number)
    assert ending.finish_saga(SagaEnd(order.number, 1, result)) == ["cancelled"]
    assert shop.status(order) == "cancelled"


# --- resolved by hand ------------------------------------------------------------------------------------


def test_last_letter_resolved_by_hand_cancels_the_order_and_tells_its_customer(shop: PracticeShop) -> None:
    letter = letter_of(shop, "refund")
    order = letter.saga.order
    acted = dead_letters.resolve(
        letter.pk, "grace", "Refunded in the provider's console", "re_77", key="k", seen=letter.version
    )
    assert acted.message == "It is resolved. The order is cancelled, and its customer is told."
    letter.refresh_from_db()
    assert (letter.state, letter.resolved_by) == ("resolved", "grace")
    assert (letter.resolution, letter.evidence) == ("Refunded in the provider's console", "re_77")
    assert (shop.status(order), shop.saga(order).status) == ("cancelled", "cancelled")
    shop.engine.deliver()
    shop.engine.result(f"order-mail-{order.number}-1-cancelled")
    assert shop.mail_kinds().count("cancelled") == 1
    event = OrderEvent.objects.get(kind="resolve")
    assert (event.actor, event.data["evidence"]) == ("grace", "re_77")


@pytest.mark.parametrize(("done", "evidence"), [("", "re_77"), ("  ", "re_77"), ("Refunded", ""), ("x", " ")])
def test_nothing_is_resolved_without_what_was_done_and_its_evidence(
    shop: PracticeShop, done: str, evidence: str
) -> None:
    letter = letter_of(shop)
    with pytest.raises(ActionRefused):
        dead_letters.resolve(letter.pk, "grace", done, evidence, key="k")
    letter.refresh_from_db()
    assert letter.state == "open"


def test_order_waits_for_its_last_letter(shop: PracticeShop) -> None:
    faults = {name: {"refuse_rate": 1} for name in ("refund", "cancel_shipment")}
    order = _cancelled_where_it_needs(shop, "cancel_shipment", faults)
    shop.end(order)
    shop.provider.faults()
    first, second = DeadLetter.objects.order_by("id")
    acted = dead_letters.resolve(first.pk, "grace", "Called the carrier", "T-1", key="k")
    assert acted.message == "It is resolved. The order has another dead letter left."
    assert (shop.status(order), Mail.objects.filter(kind="cancelled").count()) == ("compensation_failed", 0)
    retried(shop, second)
    assert (shop.status(order), shop.mail_kinds().count("cancelled")) == ("cancelled", 1)


def test_letter_that_is_being_retried_is_not_resolved_beside_it(shop: PracticeShop) -> None:
    letter = letter_of(shop)
    dead_letters.retry(letter.pk, "grace", "Repaired", key="1")
    with pytest.raises(ActionRefused, match="being retried: wait"):
        dead_letters.resolve(letter.pk, "ada", "By hand", "T-1", key="2")


# --- two people, double clicks ---------------------------------------------------------------------------


def test_stale_page_does_nothing_and_says_who_was_first(shop: PracticeShop) -> None:
    letter = letter_of(shop)
    seen = letter.version
    dead_letters.comment(letter.pk, "ada", "Do not touch: I am on the phone with the bank", key="1")
    stale_acts: list[Callable[[], Acted]] = [
        lambda: dead_letters.retry(letter.pk, "grace", "Repaired", key="2", seen=seen),
        lambda: dead_letters.resolve(letter.pk, "grace", "By hand", "T-1", key="2", seen=seen),
        lambda: dead_letters.hand_over(letter.pk, "grace", "bob", "", key="2", seen=seen),
        lambda: dead_letters.snooze(
            letter.pk, "grace", timezone.now() + timedelta(days=1), "", key="2", seen=seen
        ),
    ]
    for stale in stale_acts:
        with pytest.raises(
            ChangedMeanwhile, match=r"processed in the meantime\. ada: commented, \d{4}-.*Look at it anew"
        ):
            stale()
    assert verbs(letter) == ["arrived saga", "comment ada"]
    dead_letters.resolve(letter.pk, "ada", "By hand", "T-1", key="3")
    with pytest.raises(ChangedMeanwhile, match=r"resolved in the meantime\. ada: resolved by hand"):
        dead_letters.retry(letter.pk, "grace", "Repaired", key="4", seen=seen)


def _all_at_once(*calls: Callable[[], Acted]) -> list[object]:
    """What each came to: its answer or its refusal."""

    def run(call: Callable[[], Acted]) -> object:
        try:
            return call()
        except ActionRefused as refusal:
            return refusal
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_one_form_pressed_four_times_acts_once(shop: PracticeShop) -> None:
    letter = letter_of(shop)
    seen = letter.version

    def press() -> Acted:
        return dead_letters.retry(letter.pk, "grace", "Repaired", key="form", seen=seen)

    answers = _all_at_once(*[press] * 4)
    assert sorted(answer.repeated for answer in answers if isinstance(answer, Acted)) == [
        False, True, True, True,
    ]  # fmt: skip
    assert (verbs(letter).count("retry grace"), OrderEvent.objects.filter(kind="retry").count()) == (1, 1)
    assert OutboxMessage.objects.filter(name="CompensationRetryWorkflow").count() == 1


def test_of_two_people_at_the_same_moment_one_wins(shop: PracticeShop) -> None:
    letter = letter_of(shop)
    seen = letter.version
    answers = _all_at_once(
        lambda: dead_letters.resolve(letter.pk, "grace", "By hand", "T-1", key="1", seen=seen),
        lambda: dead_letters.resolve(letter.pk, "ada", "By hand", "T-2", key="2", seen=seen),
    )
    assert sum(isinstance(answer, Acted) for answer in answers) == 1
    assert sum(isinstance(answer, ChangedMeanwhile) for answer in answers) == 1
    assert letter.acts.filter(verb="resolve").count() == 1


def test_retry_and_a_late_failure_at_the_same_moment_never_block_each_other(shop: PracticeShop) -> None:
    """Both take the order's lock first; letter before order against order before letter was a deadlock."""
    letter = letter_of(shop)
    for n in range(1, 16):
        dead_letters.retry(letter.pk, "grace", "r", key=f"{n}")

        def fails(n: int = n) -> Acted:
            dead_letters.write(failure(letter, retry=n))
            return Acted("")

        def again(n: int = n) -> Acted:
            return dead_letters.comment(letter.pk, "ada", "c", key=f"c{n}")

        assert len(_all_at_once(fails, again)) == 2
    letter.refresh_from_db()
    assert (letter.state, letter.retries) == ("open", 15)


# --- passed on -------------------------------------------------------------------------------------------


def test_snoozed_letter_comes_back_by_itself(shop: PracticeShop) -> None:
    letter = letter_of(shop)
    until = timezone.now() + timedelta(hours=1)
    for wrong in (timezone.now() - timedelta(minutes=1), timezone.now() + timedelta(days=31)):
        with pytest.raises(ActionRefused, match="within the next 30 days"):
            dead_letters.snooze(letter.pk, "grace", wrong, "x", key="k")
    dead_letters.snooze(letter.pk, "grace", until, "The bank opens at nine", key="k")
    everything = DeadLetter.objects.all()
    assert (dead_letters.awake(everything).count(), dead_letters.snoozed(everything).count()) == (0, 1)
    DeadLetter.objects.update(snoozed_until=timezone.now() - timedelta(seconds=1))
    assert (dead_letters.awake(everything).count(), dead_letters.snoozed(everything).count()) == (1, 0)
    DeadLetter.objects.update(snoozed_until=until)
    dead_letters.wake(letter.pk, "ada", key="w")
    assert dead_letters.awake(everything).count() == 1
    assert verbs(letter) == ["arrived saga", "snooze grace", "wake ada"]


def test_letter_is_handed_to_a_colleague_and_back_to_nobody(shop: PracticeShop) -> None:
    letter = letter_of(shop)
    assert (
        "in the hands of ada" in dead_letters.hand_over(letter.pk, "grace", "ada", "Yours", key="1").message
    )
    assert "nobody's hands" in dead_letters.hand_over(letter.pk, "ada", "", "", key="2").message
    assert list(letter.acts.filter(verb="hand_over").values_list("actor", "to")) == [
        ("grace", "ada"),
        ("ada", ""),
    ]


@pytest.mark.parametrize("sql", ["UPDATE {} SET text = 'x'", "DELETE FROM {}"])
def test_history_cannot_be_rewritten(shop: PracticeShop, sql: str) -> None:
    letter_of(shop)
    table = DeadLetterAct._meta.db_table
    with (
        pytest.raises(DatabaseError, match="append_only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(sql.format(table))


# --- a retry whose workflow was lost ---------------------------------------------------------------------


def test_retry_whose_workflow_was_lost_can_be_retried_again(shop: PracticeShop) -> None:
    letter = letter_of(shop)
    shop.provider.faults(void={"error_rate": 1})
    dead_letters.retry(letter.pk, "grace", "Repaired", key="1")
    shop.engine.deliver()
    shop.engine.wait(shop.engine.handle(letter.workflow_id).terminate("by hand"))
    shop.provider.faults()
    letter.refresh_from_db()
    assert dead_letters.why_not_retry(letter) == "It is being retried already."
    DeadLetter.objects.update(retried_at=timezone.now() - RETRY_LOST_AFTER - timedelta(minutes=1))
    letter.refresh_from_db()
    assert "seems to be lost" in dead_letter_facts.progress(letter)
    retried(shop, letter, key="2")
    assert (letter.state, letter.retries) == ("resolved", 2)
    shop.assert_nothing_left(letter.saga.order)


# --- the facts -------------------------------------------------------------------------------------------


def facts(letter: DeadLetter) -> DeadLetter:
    return dead_letter_facts.with_facts(DeadLetter.objects.all()).get(pk=letter.pk)


@pytest.mark.parametrize(
    ("operation", "undo", "seen", "after"),
    [
        ("void", "Release the authorization of €39.98 (", "still authorized", "It was released there."),
        ("refund", "Refund €39.98 (", "€39.98 are still to be refunded there.", "All of it was refunded"),
        ("cancel_shipment", "Call back the parcel ", "still on its way", "was called back there"),
    ],
)
def test_people_see_what_was_to_be_undone_and_how_it_stands_at_the_provider(
    shop: PracticeShop, operation: str, undo: str, seen: str, after: str
) -> None:
    letter = letter_of(shop, operation)
    assert dead_letter_facts.to_undo(facts(letter)).startswith(undo)
    view = dead_letter_facts.provider_view(facts(letter))
    assert seen in view.sentence
    retried(shop, letter)
    assert after in dead_letter_facts.provider_view(facts(letter)).sentence


def test_provider_that_is_away_is_told_apart_from_its_answer(
    shop: PracticeShop, provider: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = letter_of(shop)
    provider.faults(status={"error_rate": 1})
    view = dead_letter_facts.provider_view(facts(letter))
    assert (view.sentence, view.problem) == ("", "The practice provider was told to fail.")
    provider.faults(status={"latency_ms": 2000})
    monkeypatch.setattr(dead_letter_facts, "ANSWER_WITHIN_S", 0.3)
    began = timezone.now()
    assert "No answer within 0.3 seconds" in dead_letter_facts.provider_view(facts(letter)).problem
    assert timezone.now() - began < timedelta(seconds=1.5)


def test_progress_of_a_retry_is_told_from_our_own_books(shop: PracticeShop) -> None:
    letter = letter_of(shop)
    shop.provider.faults(void={"error_rate": 1})
    dead_letters.retry(letter.pk, "grace", "Repaired", key="1")
    assert "It is queued" in dead_letter_facts.progress(facts(letter))
    shop.engine.deliver()
    shop.engine.until(lambda: "of at most 10 tries failed" in dead_letter_facts.progress(facts(letter)))
    shop.provider.faults()
    shop.engine.result(letter.workflow_id)
    assert dead_letter_facts.progress(facts(letter)) == ""
