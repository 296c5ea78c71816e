"""The stops of the tour: where to go, and what is to be seen there. docs/tour.md is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.tour.visitor import Visitor


@dataclass(frozen=True)
class Stop:
    """`go` leaves the browser where the picture is taken; `name` is the picture's file name."""

    name: str
    title: str
    caption: str
    go: Callable[[Visitor], object]
    dark: bool = False
    narrow: bool = False


def page(path: str) -> Callable[[Visitor], None]:
    return lambda visitor: visitor.look(path)


def order(name: str, part: str = "") -> Callable[[Visitor], None]:
    """An order's page, down to a part of it."""

    def go(visitor: Visitor) -> None:
        visitor.look_at_order(name)
        if part:
            visitor.scroll_to(part)

    return go


def cancel_in_bulk(visitor: Visitor) -> None:
    assert visitor.day is not None
    visitor.look("/admin/orders/order/")
    for name in ("waiting", "waiting, too", "mistyped", "dead letter"):
        row = visitor.page.get_by_role("row", name=visitor.day.orders[name])
        row.get_by_role("checkbox").check()
    visitor.page.get_by_label("Action:").select_option(value="cancel")
    visitor.page.get_by_role("button", name="Go").click()
    visitor.settle()


def confirm_payment(visitor: Visitor) -> None:
    visitor.look_at_order("in advance")
    visitor.follow("Confirm payment")
    visitor.page.get_by_label("Bank reference").fill("2026-0815")
    visitor.page.get_by_label("Reason").fill("Seen in online banking.")


def statement(visitor: Visitor) -> None:
    visitor.look("/admin/payments/statementfile/")
    visitor.follow("statement.xml")


def difference(visitor: Visitor) -> None:
    visitor.look("/admin/orders/difference/")
    visitor.page.locator("#result_list a").first.click()
    visitor.settle()


def review_item(of: str) -> Callable[[Visitor], None]:
    def go(visitor: Visitor) -> None:
        visitor.look("/admin/payments/reviewitem/?state__exact=open")
        row = visitor.page.get_by_role("row", name=of)
        row.get_by_role("link").first.click()
        visitor.settle()

    return go


def refund_to_send(visitor: Visitor) -> None:
    """What Otto Hahn paid too much is paid back."""
    review_item("Otto Hahn")(visitor)
    visitor.follow("Pay back")
    visitor.page.get_by_label("Reason").fill("Ten euros too much.")
    visitor.page.get_by_role("button", name="Pay back").click()
    visitor.settle()
    visitor.look("/admin/payments/outgoingtransfer/?state__exact=ready")


def comment(visitor: Visitor) -> None:
    visitor.look_at_order("paid in part")
    visitor.page.get_by_label("Comment").fill(
        "Called: the rest comes on Friday. @orders, please wait for it."
    )
    visitor.page.get_by_role("button", name="Add comment").click()
    visitor.settle()
    visitor.scroll_to("#order-timeline")


def customers_page(visitor: Visitor) -> None:
    """The practice provider's list of payments."""
    visitor.page.goto(visitor.shop.up["provider"])
    visitor.settle()


BEFORE_OPENING = (
    Stop(
        "first-steps",
        "An empty shop",
        "The guided start says what is missing and where to put it right; each line turns green by itself.",
        page("/admin/"),
    ),
)

STOPS = (
    Stop(
        "work-queue",
        "The work queue",
        "The first page is a list of what needs a person: how many, how old, how much money is at stake. Each box "
        "leads to its list, and everybody sees only what they may act on.",
        page("/admin/"),
    ),
    Stop(
        "orders",
        "Orders",
        "Tabs with counts, a search that knows order numbers, payment references, names, IBANs and amounts, exports, "
        "and acts on many orders at once.",
        page("/admin/orders/order/"),
    ),
    Stop(
        "order-waiting",
        "An order that waits for its money",
        "Where it stands, what is missing and until when, what happens next by itself, how the customer pays, and what "
        "can be done now; an act that is not possible says why.",
        order("in advance"),
    ),
    Stop(
        "timeline",
        "Its story",
        "Steps, money, webhooks, mails and what colleagues wrote, from all books in one timeline that goes on by "
        "itself. Here the customer has paid a part, and a colleague is told of it by name.",
        comment,
    ),
    Stop(
        "confirm-payment",
        "Confirming a payment by hand",
        "Before anything happens the form says what will. A second click, a second tab or a stale page does nothing "
        "twice.",
        confirm_payment,
    ),
    Stop(
        "bulk-act",
        "Acting on many orders",
        "A preview says for each order what will happen to it, or why nothing will.",
        cancel_in_bulk,
    ),
    Stop(
        "statement",
        "A bank statement",
        "Uploaded and read (camt.053, camt.054, MT940): each line says what became of its money. What fits moves its "
        "order on at once.",
        statement,
    ),
    Stop(
        "completed",
        "Paid and shipped",
        "The order that the statement paid: captured, handed to the carrier, confirmed to the customer.",
        order("by transfer"),
    ),
    Stop(
        "review",
        "Money that does not fit",
        "Too much, too little, too late or with a slip of the pen: it is never dropped and never guessed. A person "
        "decides, and a likely order is proposed.",
        review_item("Maria Merian"),
    ),
    Stop(
        "refunds",
        "Refunds to send",
        "What was paid too much goes back as a credit transfer: staff put the ready ones into a pain.001 file for "
        "their bank, and the next statement confirms them.",
        refund_to_send,
    ),
    Stop(
        "rollback",
        "A rollback",
        "A cancelled order is undone newest step first, and each undo leaves a row that the database itself refuses "
        "to change.",
        order("changed mind", "#order-timeline"),
    ),
    Stop(
        "dead-letter",
        "A rollback that failed",
        "The provider refused a refund, so a dead letter waits for a person: what was to be undone, how it stands at "
        "the provider now, and a retry that cannot refund twice.",
        page("/admin/ops/dead-letters/"),
    ),
    Stop(
        "differences",
        "Books that disagree",
        "Every day the books are compared with each other, with the providers' lists and with Temporal. Here a "
        "workflow was terminated by hand; one button rolls its order back.",
        difference,
    ),
    Stop(
        "schedules",
        "What runs by itself",
        "Last and next runs, what they found, and who has paused one and why.",
        page("/admin/ops/schedules/"),
    ),
    Stop(
        "health",
        "Health",
        "Database, Temporal, the workers of each queue, providers, mail and schedules, each asked now; what is down "
        "says what that means and what to do.",
        page("/admin/ops/health/"),
    ),
    Stop(
        "practice-provider",
        "The practice provider",
        "`make run` brings a payment provider to play with: pay, decline, and switch faults on.",
        customers_page,
    ),
    Stop("work-queue-dark", "In the dark", "The work queue in a dark room.", page("/admin/"), dark=True),
    Stop(
        "order-dark",
        "An order in the dark",
        "The order whose rollback failed.",
        order("dead letter"),
        dark=True,
    ),
    Stop("work-queue-phone", "On a phone", "The work queue,", page("/admin/"), narrow=True),
    Stop("orders-phone", "Orders on a phone", "the orders,", page("/admin/orders/order/"), narrow=True),
    Stop("order-phone", "An order on a phone", "and one of them.", order("in advance"), narrow=True),
)
