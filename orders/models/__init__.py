from orders.models.access import ApiKey
from orders.models.catalogue import Product
from orders.models.event import OrderEvent
from orders.models.mail import Mail
from orders.models.order import Order, OrderLine
from orders.models.saga import DeadLetter, PaidInBulk, Saga, SagaStep
from orders.models.shipment import Shipment
from orders.models.stock import Reservation

__all__ = [
    "ApiKey",
    "DeadLetter",
    "Mail",
    "Order",
    "OrderEvent",
    "OrderLine",
    "PaidInBulk",
    "Product",
    "Reservation",
    "Saga",
    "SagaStep",
    "Shipment",
]
