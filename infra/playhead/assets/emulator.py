"""Start ministack with three things set right.

Sockets: the server that hands events to the functions writes headers and body apart, so that the delayed acknowledgement
of the first holds the second back by some 40 ms: 52 ms a warm invocation instead of 10. So Nagle's delay is switched off.

Compressed bodies: the HTTP API takes every body of the type application/json for UTF-8 text, which destroys one that is
gzip. So a body with a Content-Encoding is handed over as what it is, binary, in base64.

Logs: what a function printed is waited for at most 50 ms after its answer, 5 ms after the first line, and what comes later
waits for the next invocation of the same environment, or for ever. On a busy machine that loses the metrics of the last
invocations, and the books with them. Every invocation of ours prints its metrics, so they are waited for.
"""

import contextvars
import queue
import socketserver
import time

socketserver.StreamRequestHandler.disable_nagle_algorithm = True

from ministack.app import main  # noqa: E402  (the switch must come before the servers are defined)
from ministack.core.lambda_runtime import ProvidedWorker  # noqa: E402
from ministack.services import apigateway  # noqa: E402

compressed = contextvars.ContextVar("compressed", default=False)
invoke = apigateway._invoke_lambda_proxy
is_text = apigateway._v2_request_body_is_text


async def invoke_with_encoding(integration, api_id, stage, path, method, headers, *rest, **more):
    compressed.set("content-encoding" in headers)
    return await invoke(integration, api_id, stage, path, method, headers, *rest, **more)


apigateway._invoke_lambda_proxy = invoke_with_encoding
apigateway._v2_request_body_is_text = lambda media_type: not compressed.get() and is_text(media_type)


def drain_to_metrics(worker, **_):
    lines, metrics, now = [], False, time.monotonic()
    deadline, quiet_at = now + 2.0, now + 2.0
    while now < min(deadline, quiet_at):
        try:
            lines.append(worker._stderr_queue.get_nowait())
            metrics = metrics or lines[-1].startswith('{"_aws"')
            quiet_at = now + 0.005 if metrics else deadline
        except queue.Empty:
            time.sleep(0.001)
        now = time.monotonic()
    return "\n".join(lines)


ProvidedWorker._drain_stderr_bounded = drain_to_metrics

main()
