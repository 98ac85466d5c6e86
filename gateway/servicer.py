"""The RPCs, one line each, into the request path. Messages cross here as bytes, so that a hit is never re-encoded.

There is no interceptor: one that does nothing costs a fifth of the hit rate. What an interceptor would do, turning an
exception into a status, the two wrappers below do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from typing import Any, NoReturn, Protocol

import grpc

from gateway.admin import Admin
from gateway.engines import Engines
from gateway.errors import CallerGone, status_of
from gateway.observe import Observer
from gateway.path import RequestPath
from gateway.streams import Streams
from gateway.tasks import EMBED, RECOGNIZE, SYNTHESIZE, VOCODE, Task
from gateway.tenants import DEFAULT_TENANT, Tenants
from gateway.wire import messages
from models.engine import EngineInfo

log = logging.getLogger("refrain.servicer")

Context = grpc.aio.ServicerContext[bytes, bytes]


class Unary(Protocol):
    def __call__(self, data: bytes, context: Context) -> Awaitable[bytes]: ...


class Stream(Protocol):
    def __call__(self, requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes, None]: ...


class Servicer:
    """Makes the two generic handlers that a grpc.aio server takes."""

    def __init__(
        self,
        path: RequestPath,
        streams: Streams,
        admin: Admin,
        engines: Engines,
        tenants: Tenants,
        observer: Observer,
        languages: Sequence[str],
        encoders: Sequence[EngineInfo] = (),
    ) -> None:
        """`encoders`: models that answer no task themselves, for ListModels."""
        self._path, self._streams, self._admin, self._engines = path, streams, admin, engines
        self._tenants, self._observer, self._languages = tenants, observer, languages
        self._encoders = encoders

    def handlers(self) -> tuple[grpc.GenericRpcHandler[Any, Any], ...]:
        speech = {
            "Recognize": self._unary("recognize", self._whole(RECOGNIZE)),
            "Synthesize": self._unary("synthesize", self._whole(SYNTHESIZE)),
            "Vocode": self._unary("vocode", self._whole(VOCODE)),
            "EmbedVoice": self._unary("embed", self._whole(EMBED)),
            "StreamingRecognize": self._stream("recognize", self._streams.recognize),
            "StreamingSynthesize": self._stream("synthesize", self._streams.synthesize),
            "StreamingVocode": self._stream("vocode", self._streams.vocode),
            "ListVoices": self._unary("", self._list_voices),
            "ListModels": self._unary("", self._list_models),
        }
        admin = {
            "Warm": self._unary("", self._admin.warm),
            "Invalidate": self._unary("", self._admin.invalidate),
            "Erase": self._unary("", self._admin.erase),
            "ReportWrongHit": self._unary("", self._admin.report_wrong_hit),
            "ExplainRecall": self._unary("", self._admin.explain_recall),
            "GetStats": self._unary("", self._admin.stats),
            "ListAuditedPairs": self._unary("", self._admin.list_audited_pairs),
        }
        return (
            grpc.method_handlers_generic_handler("refrain.v1.Speech", speech),
            grpc.method_handlers_generic_handler("refrain.v1.CacheAdmin", admin),
        )

    async def _list_voices(self, data: bytes, context: Context) -> bytes:
        self._tenants.of(context)
        infos = [engine.info for engine in self._engines]
        return messages.voices_response(infos, messages.language_asked(data), self._languages)

    async def _list_models(self, data: bytes, context: Context) -> bytes:
        self._tenants.of(context)
        engines = self._engines
        told = [(engine.info, engines.chain(engine), engines.share(engine)) for engine in engines]
        return messages.models_response([*told, *((info, (), 1.0) for info in self._encoders)])

    def _whole(self, task: Task) -> Unary:
        path = self._path

        def call(data: bytes, context: Context) -> Awaitable[bytes]:
            return path.whole(task, data, context)

        return call

    def _unary(self, task: str, work: Unary) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def handler(data: bytes, context: Context) -> bytes:
            try:
                return await work(data, context)
            except asyncio.CancelledError:
                self._left(task, self._tenant(context))
                raise
            except Exception as error:
                await self._fail(error, task, context)

        return grpc.unary_unary_rpc_method_handler(handler)

    def _stream(self, task: str, work: Stream) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def handler(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            tenant = self._tenant(context)
            gone = False
            try:
                async with aclosing(work(requests, context)) as responses:
                    async for response in responses:
                        gone = True  # unless we come back from here
                        yield response
                        gone = False
            except (asyncio.CancelledError, GeneratorExit):
                self._left(task, tenant)
                raise
            except Exception as error:
                if gone:  # then gRPC has freed the call, and whoever touches the context crashes the process
                    self._left(task, tenant)
                    raise
                await self._fail(error, task, context)

        return grpc.stream_stream_rpc_method_handler(handler)

    def _left(self, task: str, tenant: str) -> None:
        """The caller is gone, or its deadline has passed: gRPC tells both by cancelling the call."""
        if task:
            self._observer.failed(task, grpc.StatusCode.CANCELLED.name, tenant)

    async def _fail(self, error: Exception, task: str, context: Context) -> NoReturn:
        code, message, trailing = status_of(error)
        if code is grpc.StatusCode.INTERNAL:
            log.error("a call failed", exc_info=error, extra={"fields": {"task": task or "admin"}})
        if task:
            self._observer.failed(task, code.name, self._tenant(context))
        try:
            await context.abort(code, message, trailing)
        except grpc.aio.InternalError:  # the caller is gone, which gRPC would log as an error with its whole trace
            raise asyncio.CancelledError from None
        raise AssertionError("abort raises")

    def _tenant(self, context: Any) -> str:
        try:
            return self._tenants.of(context)
        except CallerGone:  # without tokens its address was all that said whose call it was
            return DEFAULT_TENANT
        except Exception:
            return ""  # a caller without a tenant
