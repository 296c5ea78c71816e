from payments.models.payment import Payment, PaymentEvent
from payments.models.review import ReviewItem
from payments.models.webhook import WebhookDelivery

__all__ = ["Payment", "PaymentEvent", "ReviewItem", "WebhookDelivery"]
