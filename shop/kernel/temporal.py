"""The engine's client: one per process, made when first needed, for all threads and event loops."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading

from django.conf import settings
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.service import RPCError, RPCStatusCode

from shop.kernel import tracing
from shop.kernel.encryption import Encryption
from shop.kernel.search_attributes import ORDER_NUMBER, SAGA_STAGE

log = logging.getLogger(__name__)

_lock = threading.Lock()
_client: Client | None = None


def client() -> Client:
    """The shared client. It connects with its first call, so this returns at once even with no engine there."""
    global _client
    with _lock:
        if _client is None:
            # Connecting lazily does no I/O, so a loop of its own in a thread of its own is safe anywhere.
            made: list[Client] = []
            thread = threading.Thread(target=lambda: made.append(asyncio.run(connect(lazy=True))))
            thread.start()
            thread.join()
            (_client,) = made
        return _client


async def connect(*, lazy: bool = False) -> Client:
    """A new client. Without `lazy` it connects at once, as workers need it, or raises `RuntimeError`."""
    return await Client.connect(
        settings.TEMPORAL_ADDRESS,
        namespace=settings.TEMPORAL_NAMESPACE,
        api_key=settings.TEMPORAL_API_KEY or None,
        tls=settings.TEMPORAL_TLS,
        data_converter=data_converter(),
        lazy=lazy,
        interceptors=tracing.interceptors(),
    )


def data_converter() -> DataConverter:
    """How values become payloads; with TEMPORAL_PAYLOAD_KEYS encrypted, messages of errors as well."""
    if not settings.TEMPORAL_PAYLOAD_KEYS:
        return DataConverter.default
    return dataclasses.replace(
        DataConverter.default,
        payload_codec=Encryption(settings.TEMPORAL_PAYLOAD_KEYS),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


async def register_search_attributes(client: Client) -> None:
    """Make sure that the server knows our search attributes; raises `RPCError` if it does not answer.

    Where we may not add them, as in Temporal Cloud, people have done so beforehand.
    """
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    request = AddSearchAttributesRequest(
        namespace=client.namespace,
        search_attributes={key.name: keyword for key in (ORDER_NUMBER, SAGA_STAGE)},
    )
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        if error.status in (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED):
            names = " and ".join(sorted(request.search_attributes))
            log.info("Temporal lets us add no search attributes; it needs %s as keywords.", names)
        elif error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise
