from payments.models.payment import Payment, PaymentEvent
from payments.models.receivable import OutgoingTransfer, Receivable, TransferBatch
from payments.models.review import ReviewItem
from payments.models.statement import Allocation, BankStatement, BankTransaction, StatementLine
from payments.models.statement_file import StatementFile, StatementFilePart
from payments.models.webhook import WebhookDelivery

__all__ = [
    "Allocation",
    "BankStatement",
    "BankTransaction",
    "OutgoingTransfer",
    "Payment",
    "PaymentEvent",
    "Receivable",
    "ReviewItem",
    "StatementFile",
    "StatementFilePart",
    "StatementLine",
    "TransferBatch",
    "WebhookDelivery",
]
