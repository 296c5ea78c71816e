"""The search attributes of our workflows. They are stored in plain text: never personal data."""

from __future__ import annotations

from temporalio.common import SearchAttributeKey

ORDER_NUMBER = SearchAttributeKey.for_keyword("OrderNumber")
SAGA_STAGE = SearchAttributeKey.for_keyword("SagaStage")
