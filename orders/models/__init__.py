from orders.models.access import ApiKey
from orders.models.alert import OpsAlert, OpsAlertEntry, OpsAlertNotice
from orders.models.catalogue import Product
from orders.models.dead_letter import DeadLetter, DeadLetterAct
from orders.models.difference import Difference, ReconcileRun
from orders.models.event import Mention, OrderEvent
from orders.models.mail import Mail
from orders.models.order import Order, OrderLine
from orders.models.saga import PaidInBulk, Saga, SagaStep
from orders.models.shipment import Shipment
from orders.models.stock import Reservation

__all__ = [
    "ApiKey",
    "DeadLetter",
    "DeadLetterAct",
    "Difference",
    "Mail",
    "Mention",
    "OpsAlert",
    "OpsAlertEntry",
    "OpsAlertNotice",
    "Order",
    "OrderEvent",
    "OrderLine",
    "PaidInBulk",
    "Product",
    "ReconcileRun",
    "Reservation",
    "Saga",
    "SagaStep",
    "Shipment",
]
