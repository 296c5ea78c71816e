"""A provider that is down, as staff see it, and the button that has it asked at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from orders.models import Saga
from payments.models import GatewayIncident, GatewayState, Payment
from payments.services.recording import open_payment
from shop.kernel.money import Money
from tests import factories

pytestmark = pytest.mark.django_db
SENTENCE = "Sandbox has not answered since"


@pytest.fixture
def down() -> GatewayState:
    now = timezone.now()
    return GatewayState.objects.create(
        gateway="sandbox",
        failures=7,
        failing_since=now - timedelta(minutes=3),
        open_until=now + timedelta(minutes=1),
        last_error="The practice provider did not answer in time.",
        last_failure_at=now,
    )


@pytest.fixture
def login(settings: Settings) -> Callable[[str], Client]:
    from payments.gateways import gateway

    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    gateway.cache_clear()

    def as_role(role: str) -> Client:
        user = User.objects.create_user(f"some-{role}", is_staff=True)
        user.groups.add(Group.objects.get(name=role))
        client = Client()
        client.force_login(user)
        return client

    return as_role


def page(client: Client, name: str, *args: object) -> str:
    answer = client.get(reverse(f"admin:{name}", args=args))
    assert answer.status_code == 200
    return answer.content.decode()


def payment() -> Payment:
    return open_payment("sandbox", "VK-1", Money(1000, "EUR"), "key", "Ada")


def test_pages_on_which_the_provider_matters_say_that_it_is_down(
    down: GatewayState, login: Callable[[str], Client]
) -> None:
    client = login("viewer")
    factories.product()
    order = factories.place()
    saga = Saga.objects.get(order=order)
    for text in (
        page(client, "index"),
        page(client, "payments_payment_changelist"),
        page(client, "payments_payment_change", payment().pk),
        page(client, "orders_order_change", order.pk),
        page(client, "payments_gatewaystate_changelist"),
        page(client, "payments_gatewaystate_change", down.pk),
    ):
        assert SENTENCE in text
        assert "did not answer in time. It is asked again at" in text
    Saga.objects.filter(pk=saga.pk).update(status="completed")
    assert SENTENCE not in page(client, "orders_order_change", order.pk)


def test_pages_say_nothing_while_all_is_well(login: Callable[[str], Client]) -> None:
    client = login("viewer")
    GatewayState.objects.create(gateway="sandbox")
    assert "Sandbox has" not in page(client, "index")
    assert "working" in page(client, "payments_gatewaystate_changelist")


def test_other_providers_trouble_is_not_on_a_payment(
    down: GatewayState, login: Callable[[str], Client]
) -> None:
    GatewayState.objects.update(gateway="stripe")
    assert "has not answered" not in page(login("viewer"), "payments_payment_change", payment().pk)


@pytest.mark.parametrize("role", ["viewer", "orders", "payments"])
def test_who_may_only_look_has_no_button_and_no_address(
    role: str, down: GatewayState, login: Callable[[str], Client]
) -> None:
    client = login(role)
    address = reverse("admin:payments_gatewaystate_ask-now", args=[down.pk])
    assert address not in page(client, "payments_gatewaystate_change", down.pk)
    assert client.post(address).status_code == 403
    down.refresh_from_db()
    assert down.open_until
    assert down.open_until > timezone.now()


def test_ops_have_a_provider_asked_at_once_and_it_is_written_down(
    down: GatewayState, login: Callable[[str], Client]
) -> None:
    client = login("ops")
    address = reverse("admin:payments_gatewaystate_ask-now", args=[down.pk])
    assert address in page(client, "payments_gatewaystate_change", down.pk)
    assert SENTENCE in client.get(address).content.decode()
    down.refresh_from_db()
    assert down.open_until
    assert down.open_until > timezone.now()  # nothing acts on GET
    answer = client.post(address, follow=True).content.decode()
    assert "The next call to Sandbox is let through" in answer
    assert "It is asked again with the next call." in answer
    down.refresh_from_db()
    assert down.open_until <= timezone.now()
    incident = GatewayIncident.objects.get()
    assert (incident.kind, incident.actor) == ("asked now", "some-ops")
    assert "some-ops" in answer


def test_nobody_changes_what_is_known_about_a_provider(down: GatewayState) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    assert client.get(reverse("admin:payments_gatewaystate_add")).status_code == 403
    assert client.get(reverse("admin:payments_gatewaystate_delete", args=[down.pk])).status_code == 403
    client.post(reverse("admin:payments_gatewaystate_change", args=[down.pk]), {"failures": 0})
    down.refresh_from_db()
    assert down.failures == 7
