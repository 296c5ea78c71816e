"""The bridge between the workflows and the services: each activity calls one service, and no more.

An error that no retry can mend is raised as non-retryable; every failed attempt leaves its audit row.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.utils import timezone
from temporalio import activity
from temporalio.exceptions import ApplicationError

from orders.carriers.base import CarrierMisconfigured, CarrierRefused
from orders.models import Saga, SagaStep
from orders.services import alerting, authorizations, dead_letters, ending, fulfilling, mails, notes, steps
from orders.services.audit import Done, StepRef, StepRefused, once_with_call, write_failure
from orders.services.reconciling.running import Stopped, reconcile_by_itself
from orders.workflows.types import (
    Alert,
    AlertGroup,
    AlertLook,
    AlertNotice,
    BulkPage,
    FailedUndo,
    FulfillmentStart,
    HoldResult,
    Lapse,
    MailInput,
    MentionInput,
    OverdueOrders,
    PaidOrders,
    ReconcileInput,
    ReconcileResult,
    RetryInput,
    RollbackStart,
    SagaEnd,
    SagaResult,
    StepInput,
    StepResult,
)
from payments.gateways.base import GatewayMisconfigured, GatewayRefused
from shop.kernel.activities import orm_activity, pause_after

PERMANENT = (
    StepRefused,
    GatewayRefused,
    GatewayMisconfigured,
    CarrierRefused,
    CarrierMisconfigured,
    mails.MailRefused,
)


def _ref(step: StepInput) -> StepRef:
    return StepRef(step.order_number, step.attempt, step.step, step.rollback_run)


def _audited(step: StepInput, do: Callable[[StepRef], SagaStep]) -> SagaStep:
    started_at = timezone.now()
    try:
        return do(_ref(step))
    except Exception as error:
        write_failure(_ref(step), str(error) or type(error).__name__, started_at)
        raise _for_the_engine(error) from error


def _for_the_engine(error: Exception) -> ApplicationError:
    """The error with what the engine should do about it."""
    return ApplicationError(
        str(error) or type(error).__name__,
        type=type(error).__name__,
        non_retryable=isinstance(error, PERMANENT),
        next_retry_delay=pause_after(error),
    )


def _result(row: SagaStep) -> StepResult:
    return StepResult(outcome=row.outcome, reference=row.reference)


@orm_activity
def reserve_inventory(step: StepInput) -> StepResult:
    return _result(_audited(step, steps.reserve_inventory))


@orm_activity
def release_inventory(step: StepInput) -> StepResult:
    return _result(_audited(step, steps.release_inventory))


@orm_activity
def create_payment_hold(step: StepInput) -> HoldResult:
    wanted = datetime.fromisoformat(step.deadline)
    held: list[Saga] = []

    def do(ref: StepRef) -> SagaStep:
        row, saga = steps.create_payment_hold(ref, wanted)
        held.append(saga)
        return row

    row = _audited(step, do)
    until = held[0].payment.authorized_until if held[0].payment else None
    return HoldResult(
        reference=row.reference,
        deadline=(held[0].deadline or wanted).isoformat(),
        authorized_until=until.isoformat() if until else "",
    )


@orm_activity
def renew_authorization(step: StepInput) -> str:
    lapses = datetime.fromisoformat(step.deadline)
    try:
        return authorizations.renew(step.order_number, step.attempt, lapses).isoformat()
    except Exception as error:
        raise _for_the_engine(error) from error


@orm_activity
def note_lapse(lapse: Lapse) -> None:
    authorizations.note_lapse(lapse.order_number, lapse.attempt, datetime.fromisoformat(lapse.at), lapse.why)


@orm_activity
def release_payment_hold(step: StepInput) -> StepResult:
    return _result(_audited(step, steps.release_payment_hold))


@orm_activity
def capture_payment(step: StepInput) -> StepResult:
    return _result(_audited(step, steps.capture_payment))


@orm_activity
def refund_payment(step: StepInput) -> StepResult:
    return _result(_audited(step, steps.refund_payment))


@orm_activity
def schedule_shipping(step: StepInput) -> StepResult:
    return _result(_audited(step, steps.schedule_shipping))


@orm_activity
def cancel_shipping(step: StepInput) -> StepResult:
    return _result(_audited(step, steps.cancel_shipping))


@orm_activity
def send_confirmation_email(step: StepInput) -> StepResult:
    def do(ref: StepRef) -> SagaStep:
        return once_with_call(
            ref,
            lambda saga: mails.send(ref.order_number, ref.attempt, "confirmed"),
            lambda saga, mail: Done(reference=mail.message_id),
        )

    return _result(_audited(step, do))


@orm_activity
def check_payment_status(step: StepInput) -> str:
    try:
        return steps.check_payment(step.order_number, step.attempt)
    except Exception as error:
        raise _for_the_engine(error) from error


@orm_activity
def send_order_email(mail: MailInput) -> str:
    try:
        return mails.send(mail.order_number, mail.attempt, mail.kind, mail.about).state
    except Exception as error:
        raise _for_the_engine(error) from error


@orm_activity
def send_mention_email(mention: MentionInput) -> bool:
    try:
        return notes.mail(mention.mention)
    except Exception as error:
        raise _for_the_engine(error) from None  # who it went to is nothing that Temporal is to know


@orm_activity
def begin_rollback(start: RollbackStart) -> SagaResult | None:
    return ending.begin_rollback(start)


@orm_activity
def finish_saga(end: SagaEnd) -> list[str]:
    return ending.finish_saga(end)


@orm_activity
def write_to_dlq(failed: FailedUndo) -> int:
    return dead_letters.write(failed).pk


@orm_activity
def resolve_dead_letter(retry: RetryInput) -> list[str]:
    return dead_letters.close_after_retry(retry)


@orm_activity
def begin_fulfillment(start: FulfillmentStart) -> SagaResult | None:
    return fulfilling.begin(start)


@orm_activity
def get_paid_bulk_orders(page: BulkPage) -> PaidOrders:
    return fulfilling.paid_page(page.after)


@orm_activity
def give_up_overdue_bulk_orders(page: BulkPage) -> OverdueOrders:
    return fulfilling.overdue_page(page.after)


@orm_activity
def count_pending_bulk_orders() -> int:
    return fulfilling.pending()


@orm_activity
def send_alert_to_ops(alert: Alert) -> None:
    alerting.raise_alert(alert)


@orm_activity
def word_alert(group: AlertGroup) -> AlertNotice:
    return alerting.word_first(group.alert)


@orm_activity
def follow_up_alert(look: AlertLook) -> AlertNotice:
    return alerting.follow_up(look)


@orm_activity
def mail_alert(notice: int) -> None:
    alerting.mail(notice)


@orm_activity
def reconcile_books(wanted: ReconcileInput) -> ReconcileResult:
    info = activity.info()

    def beat() -> None:
        activity.heartbeat()
        if activity.is_cancelled() or activity.is_worker_shutdown():
            raise Stopped("It is to stop here, and begins anew elsewhere.")

    key = f"{info.workflow_id}/{info.workflow_run_id}"
    run = reconcile_by_itself(key, fix=wanted.fix, beat=beat)
    return ReconcileResult(run.found, run.mended, sorted(run.left_out))


@orm_activity
def post_alert(notice: int) -> None:
    try:
        alerting.post(notice)
    except alerting.AlertRefused as error:
        raise ApplicationError(str(error), type="AlertRefused", non_retryable=True) from error


ALL: list[Callable[..., Any]] = [
    reserve_inventory,
    release_inventory,
    create_payment_hold,
    renew_authorization,
    note_lapse,
    release_payment_hold,
    capture_payment,
    refund_payment,
    schedule_shipping,
    cancel_shipping,
    send_confirmation_email,
    check_payment_status,
    send_order_email,
    send_mention_email,
    begin_rollback,
    finish_saga,
    write_to_dlq,
    resolve_dead_letter,
    begin_fulfillment,
    get_paid_bulk_orders,
    give_up_overdue_bulk_orders,
    count_pending_bulk_orders,
    send_alert_to_ops,
    word_alert,
    follow_up_alert,
    reconcile_books,
    mail_alert,
    post_alert,
]
