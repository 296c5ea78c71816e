"""`make drill`: a carrier that does not call parcels back, and a saga that is terminated; how both are mended.

Everything is real: PostgreSQL, Temporal, worker, web server, provider and carrier (the practice ones), a mail
server, and a receiver of the signed alerts. People act over HTTP, as in a browser. Exit code 1 if a step fails.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.drill.outside import OPS, MailServer, Outside, outside
from tests.drill.running_shop import PATIENCE, RunningShop, running_shop
from tests.drill.story import StepFailed, Story
from tests.waiting import wait_until

ORDERS = 20
SKU, ON_HAND = "TEA", 100
LETTERS = "/admin/ops/dead-letters/"
CUSTOMERS = [f"customer-{n:02}@example.com" for n in range(1, ORDERS + 1)]
LATE_CUSTOMER = "ada@example.com"


def main() -> int:
    story = Story()
    folder = Path(tempfile.mkdtemp(prefix="vorkasse-drill-"))
    folder.chmod(0o755)  # as root, PostgreSQL's account must be able to get there
    try:
        with outside() as world, ExitStack() as running:
            with story.step(
                "The shop starts: PostgreSQL, Temporal, provider and carrier, worker, web server"
            ):
                shop = running.enter_context(running_shop(folder, **world.settings))
            carrier_calls_nothing_back(story, shop, world)
            saga_is_terminated(story, shop, world)
            with story.step("The shop stops"):
                running.close()
    except StepFailed as failed:
        print(f"The drill FAILED at “{failed}”. The logs are in {folder / 'logs'}.")
        return 1
    shutil.rmtree(folder)
    print(f"\nThe drill has passed, in {story.lasted():.0f} s.")
    return 0


def carrier_calls_nothing_back(story: Story, shop: RunningShop, world: Outside) -> None:
    mail = world.mail
    story.heading(f"{ORDERS} parcels that cannot be called back")

    with story.step(f"Staff put {ON_HAND} pieces of {SKU} on the shelf; {ORDERS} customers order one each"):
        clerk = shop.staff("orders")
        product = clerk.look("/admin/orders/product/add/")
        clerk.fill_in(product, sku=SKU, name="Tea", price="19.99", currency="EUR", on_hand=str(ON_HAND))
        numbers = [shop.place(SKU, customer) for customer in CUSTOMERS]
        waiting = shop.until(numbers, _is_waiting)
        _until_told(mail, CUSTOMERS, {"received"})

    with story.step("All pay, and are shipped; but the confirmation stays: the mail server is away") as tell:
        mail.away_for_customers = True
        shop.pay(waiting)
        shop.until(numbers, _is_shipped)
        parcels = Counter(state for number in numbers for state in shop.parcels(number))
        assert parcels == {"created": ORDERS}
        tell(f"{ORDERS} parcels are announced to the carrier")

    with story.step("The tea is recalled: staff cancel all of them. The carrier refuses every cancellation"):
        shop.carrier_refuses_cancellations(True)
        orders = clerk.look("/admin/orders/order/")
        for box in orders.boxes("_selected_action"):
            box.checked = True
        act = clerk.fill_in(clerk.fill_in(orders, action="cancel"), reason="The tea is recalled")
        assert act.text.count("The cancellation is on its way.") == ORDERS

    with story.step(f"{ORDERS} dead letters arrive") as tell:
        shop.until(numbers, _has_failed_to_roll_back)
        mail.away_for_customers = False
        ops = shop.staff("ops")
        letters = ops.look(LETTERS)
        assert f"Waiting ({ORDERS})" in letters.text
        assert letters.text.count("undo of shipping") == ORDERS
        assert _money_is_back(shop, numbers)  # one undo that fails does not stop the others
        assert shop.available(SKU) == ON_HAND - ORDERS  # they are in the parcels
        wait_until(lambda: shop.metric("vorkasse_dead_letters_open") == ORDERS, PATIENCE)
        tell(f"the customers have their money back. vorkasse_dead_letters_open is {ORDERS}")

    with story.step("Ops get one alert for all, by mail and by signed webhook") as tell:
        wait_until(lambda: mail.subjects(OPS) and world.chat.listen(), PATIENCE)
        (subject,), (post,) = mail.subjects(OPS), world.chat.listen()
        # What a slow machine lets fail more than 10 s after the first is told in the follow-up, after 15 min.
        told = post["data"]["told"]
        assert 1 < told <= ORDERS
        assert subject == f"[Vorkasse] {told} × rollback failed"
        assert post["type"] == "ops.alert"
        assert post["text"].startswith(subject)
        tell(f"“{subject}”; the signature of the webhook is right")

    with story.step("The carrier is repaired. Ops have all retried that match") as tell:
        shop.carrier_refuses_cancellations(False)
        form = ops.look(f"{LETTERS}retry/?state=waiting&step=shipping")
        assert len(form.boxes("do")) == ORDERS
        progress = ops.fill_in(form, reason="The carrier has repaired its cancellations")
        tell(f"its progress: {progress.url}")

    with story.step(
        "All are closed; the orders are cancelled, their parcels called back, the customers told"
    ) as tell:
        all_closed = f"{ORDERS} resolved, 0 being retried, 0 open."
        wait_until(lambda: all_closed in ops.look(progress.url).text, PATIENCE)
        assert "No rollback waits for a person." in ops.look(LETTERS).text
        shop.until(numbers, _is_cancelled)
        assert {state for number in numbers for state in shop.parcels(number)} == {"cancelled"}
        assert shop.available(SKU) == ON_HAND
        _until_told(mail, CUSTOMERS, {"received", "refunded", "cancelled"})
        wait_until(lambda: shop.metric("vorkasse_dead_letters_open") == 0, PATIENCE)
        tell(f"{ON_HAND} pieces of {SKU} are for sale again, and vorkasse_dead_letters_open is 0")

    with story.step("No further alert has come, and the books agree") as tell:
        assert (len(mail.subjects(OPS)), len(world.chat.listen())) == (1, 1)
        tell(_reconciled(shop, 0))


def saga_is_terminated(story: Story, shop: RunningShop, world: Outside) -> None:
    mail = world.mail
    story.heading("A saga that is terminated in Temporal")

    with story.step("One more customer orders, pays and is shipped; the mail server is away again"):
        number = shop.place(SKU, LATE_CUSTOMER)
        waiting = shop.until([number], _is_waiting)
        _until_told(mail, [LATE_CUSTOMER], {"received"})
        mail.away_for_customers = True
        shop.pay(waiting)
        (order,) = shop.until([number], _is_shipped)
        assert shop.available(SKU) == ON_HAND - 1

    with story.step("Its workflow is terminated in the middle: no undo runs, and nobody is told") as tell:
        shop.terminate(order["saga"]["workflow_id"], "The drill")
        mail.away_for_customers = False
        tell(_reconciled(shop, 1, number))

    with story.step("`reconcile --fix` starts its rollback") as tell:
        tell(_reconciled(shop, 0, number, fix=True))

    with story.step("It is rolled back in full, and its customer is told") as tell:
        (order,) = shop.until([number], _is_cancelled)
        tell(f"undone: {', '.join(order['saga']['result']['compensated_steps'])}")
        assert order["saga"]["result"]["compensated_steps"] == ["shipping", "payment_captured", "inventory"]
        assert shop.parcels(number) == ["cancelled"]
        assert _money_is_back(shop, [number])
        assert shop.available(SKU) == ON_HAND
        # An attempt that was on its way when the workflow ended may still have come to the mail server.
        late = {"confirmed"} & set(mail.kinds(LATE_CUSTOMER))
        _until_told(mail, [LATE_CUSTOMER], {"received", "refunded", "cancelled"} | late)

    with story.step("The books agree") as tell:
        tell(_reconciled(shop, 0))
        assert len(mail.subjects(OPS)) == 1


def _reconciled(shop: RunningShop, code: int, *about: str, fix: bool = False) -> str:
    """Have the books compared; what was said, if the exit code is this one and it is said about these orders."""
    command = ["reconcile", *(["--fix"] if fix else [])]
    ran = shop.manage(*command)
    said = f"manage.py {' '.join(command)}: exit code {ran.returncode}. {' '.join(ran.stdout.split())}"
    assert ran.returncode == code, f"{said} {ran.stderr[-2000:]}"
    assert all(number in ran.stdout for number in about), said
    return said


def _money_is_back(shop: RunningShop, numbers: list[str]) -> bool:
    """Whether the provider has paid all of it back, once."""
    moved = [payment for number in numbers for payment in shop.payments(number)]
    return len(moved) == len(numbers) and all(captured == refunded > 0 for captured, refunded in moved)


def _until_told(mail: MailServer, customers: list[str], kinds: set[str]) -> None:
    """Wait until each customer has got these mails, and see that each came once and no other has come."""
    wait_until(lambda: all(kinds <= set(mail.kinds(customer)) for customer in customers), PATIENCE)
    for customer in customers:
        assert sorted(mail.kinds(customer)) == sorted(kinds), f"{customer} has got {mail.kinds(customer)}"


def _is_waiting(order: dict[str, Any]) -> bool:
    return bool(order["saga"]["status"] == "waiting")


def _is_shipped(order: dict[str, Any]) -> bool:
    return ("shipping", "succeeded") in {(step["step"], step["outcome"]) for step in order["saga"]["steps"]}


def _has_failed_to_roll_back(order: dict[str, Any]) -> bool:
    return bool(order["saga"]["status"] == "compensation_failed")


def _is_cancelled(order: dict[str, Any]) -> bool:
    return bool(order["status"] == "cancelled")


if __name__ == "__main__":
    sys.exit(main())
