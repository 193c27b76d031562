"""Errors in OpenAI's form."""

from starlette.responses import JSONResponse

from malt_jax.serve.backend import Busy

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}


class Refused(Exception):
    """A request that gets an error for an answer. `param` names its field at fault, `retry` the
    seconds after which another attempt makes sense."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry = status, param, code, retry

    def body(self) -> dict[str, object]:
        """The error as JSON, whole or as the last event of a stream."""
        kind = _KINDS.get(self.status, "invalid_request_error")
        fields = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": fields}

    def response(self) -> JSONResponse:
        """The error as an answer."""
        headers = {} if self.retry is None else {"retry-after": str(self.retry)}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def of_backend(error: ValueError | Busy) -> Refused:
    """What a backend raises, as an answer."""
    if isinstance(error, Busy):
        message = str(error) or "no room for another request at present; try again"
        return Refused(429, message, code="queue_full", retry=1)
    return Refused(400, str(error))
