from payments.models.checking import BatchRun, ChangeCursor
from payments.models.gateway_state import GatewayIncident, GatewayState
from payments.models.payment import Payment, PaymentEvent
from payments.models.receivable import OutgoingTransfer, Receivable, TransferBatch
from payments.models.review import ReviewItem
from payments.models.statement import Allocation, BankStatement, BankTransaction, Retelling, StatementLine
from payments.models.statement_file import StatementFile, StatementFilePart
from payments.models.webhook import WebhookDelivery, WebhookReprocessing

__all__ = [
    "Allocation",
    "BankStatement",
    "BankTransaction",
    "BatchRun",
    "ChangeCursor",
    "GatewayIncident",
    "GatewayState",
    "OutgoingTransfer",
    "Payment",
    "PaymentEvent",
    "Receivable",
    "Retelling",
    "ReviewItem",
    "StatementFile",
    "StatementFilePart",
    "StatementLine",
    "TransferBatch",
    "WebhookDelivery",
    "WebhookReprocessing",
]
