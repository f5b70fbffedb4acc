"""Start ministack with some fixes.

Sockets: the server that passes events to the functions sends headers and body in two writes. Nagle's algorithm then holds
the body back until the delayed acknowledgement of the headers, some 40 ms: 52 ms per warm invocation instead of 10. So it
is switched off.

Compressed bodies: the HTTP API treats every application/json body as UTF-8 text, which destroys gzip. So a body with a
Content-Encoding is passed on as binary, in base64.

CORS: CloudFormation stores an API's CorsConfiguration with the template's capital letters (AllowOrigins), and the gateway
looks for allowOrigins. It finds nothing and allows no origin. So the names are converted where they are read.

Logs: ministack collects a function's output when an invocation ends, for at most 50 ms. Later output waits for the next
invocation of the same environment, or for ever, and two invocations that create one log stream at the same time lose one's
lines. Either loses metrics, and with them the books. So each line goes to the logs when it is printed, as with Lambda, in
one stream per environment, and no invocation waits for it. Events also get ids, to tell them apart.

Alarms: CloudFormation rejects an alarm on metric math. So we store it unchanged, and it is never evaluated.

Kinesis: the event source mapping treats a batch as done whatever records the answer names, so those are never retried. It
also has no bisecting, no limit of retries and no on-failure destination. So it is off, and Playhead's poller runs these
mappings like those of Kafka. Besides, every read of a shard leaves an iterator behind for five minutes, and every later
call searches them all. So an iterator is removed once it was used.

SQS: if an answer names a message that was not in the batch, or has an item that names no message, the event source
mapping deletes the batch. Lambda treats such a batch as failed. So do we.

Templates: CloudFormation reads them with PyYAML's parser in Python, which takes longer than everything else about a stack.
The one in C builds the same values.

DynamoDB streams: the event source mapping has the same faults as that of Kinesis, so it is off too. What PartiQL
statements write is not on the stream, so we put it there. And records have times in whole seconds, as AWS shows them. That
is too coarse to tell which of two regions' writes came last, so they get milliseconds.
"""

import contextvars
import copy
import socketserver
import threading
import time
import uuid

import yaml

yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
socketserver.StreamRequestHandler.disable_nagle_algorithm = True

from ministack.app import main  # noqa: E402  (must come after the switch)
from ministack.core.lambda_runtime import ProvidedWorker  # noqa: E402
from ministack.services import apigateway, cloudwatch_logs, dynamodb, kinesis, lambda_svc  # noqa: E402
from ministack.services.cloudformation import provisioners  # noqa: E402

compressed = contextvars.ContextVar("compressed", default=False)
invoke = apigateway._invoke_lambda_proxy
is_text = apigateway._v2_request_body_is_text


async def invoke_with_encoding(integration, api_id, stage, path, method, headers, *rest, **more):
    compressed.set("content-encoding" in headers)
    return await invoke(integration, api_id, stage, path, method, headers, *rest, **more)


apigateway._invoke_lambda_proxy = invoke_with_encoding
apigateway._v2_request_body_is_text = lambda media_type: not compressed.get() and is_text(media_type)


cors_headers, cors_preflight = apigateway._cors_response_headers, apigateway._cors_preflight_response


def as_in_the_api(cors):
    return {name[0].lower() + name[1:]: value for name, value in cors.items()}


apigateway._cors_response_headers = lambda cors, origin: cors_headers(as_in_the_api(cors or {}), origin)
apigateway._cors_preflight_response = lambda cors, origin: cors_preflight(as_in_the_api(cors or {}), origin)


spawn, pump, drain = ProvidedWorker._spawn, ProvidedWorker._pump_output, ProvidedWorker._drain_stderr_bounded
creating = threading.Lock()


def spawn_with_context(worker, *rest, **more):
    # It holds the account and the region of the logs, and the thread that reads the output starts without it.
    worker._context = contextvars.copy_context()
    spawn(worker, *rest, **more)


def new_stream(config):
    group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{config['FunctionName']}"
    with creating:
        if group not in cloudwatch_logs._log_groups:
            cloudwatch_logs._create_log_group({"logGroupName": group})
        name = f"{time.strftime('%Y/%m/%d', time.gmtime())}/[$LATEST]{uuid.uuid4().hex}"
        cloudwatch_logs._create_log_stream({"logGroupName": group, "logStreamName": name})
        return cloudwatch_logs._log_groups[group]["streams"][name]


class Shipped:
    """A function's output, each line of which is in the logs before it is handed on."""

    def __init__(self, output, stream):
        self.output, self.stream, self.close = output, stream, output.close

    def readline(self):
        line = self.output.readline()
        if line:
            now, message = int(time.time() * 1000), line.decode("utf-8", errors="replace").rstrip("\r\n")
            event = {"eventId": str(uuid.uuid4()), "timestamp": now, "ingestionTime": now, "message": message}
            cloudwatch_logs._append_log_events(self.stream, [event])
        return line


def pump_to_logs(worker, output, log_queue):
    worker._context.run(lambda: pump(worker, Shipped(output, new_stream(worker.config)), log_queue))


def drain_without_waiting(worker, first_line_wait=0, **_):
    # Only a failed start has something to wait for: the reason, which becomes its message.
    return drain(worker, first_line_wait) if first_line_wait else worker._drain_stderr()


ProvidedWorker._spawn = spawn_with_context
ProvidedWorker._pump_output = pump_to_logs
ProvidedWorker._drain_stderr_bounded = drain_without_waiting
lambda_svc._emit_lambda_logs = lambda *_, **__: None

alarm_record = provisioners._cw_metric_alarm_record


def alarm_record_with_math(name, properties):
    math = properties.get("Metrics")
    if not math:
        return alarm_record(name, properties)
    unnamed = {key: value for key, value in properties.items() if key != "Metrics"}
    record = alarm_record(name, {**unnamed, "MetricName": "-", "Namespace": "-"})
    return {**record, "MetricName": None, "Namespace": None, "Metrics": math}


provisioners._cw_metric_alarm_record = alarm_record_with_math

insert, update = dynamodb._partiql_insert, dynamodb._partiql_update


def insert_on_stream(table, parsed):
    answer = insert(table, parsed)
    if answer[0] == 200:
        item = parsed["item"]
        dynamodb._emit_stream_event(parsed["table"], "INSERT", None, item["M"] if set(item) == {"M"} else item)
    return answer


def update_on_stream(table, parsed, *rest):
    pk, sk, _, error = dynamodb._partiql_key_target(table, parsed)
    old = None if error else copy.deepcopy(table["items"].get(pk, {}).get(sk))
    answer = update(table, parsed, *rest)
    if answer[0] == 200:
        dynamodb._emit_stream_event(parsed["table"], "MODIFY", old, table["items"][pk][sk])
    return answer


dynamodb._partiql_insert, dynamodb._partiql_update = insert_on_stream, update_on_stream

lambda_svc._poll_kinesis = lambda: False
lambda_svc._poll_dynamodb_streams = lambda: False
get_records = kinesis._get_records


def get_records_once(request):
    answer = get_records(request)
    if answer[0] == 200:
        kinesis._shard_iterators.pop(request["ShardIterator"], None)
    return answer


kinesis._get_records = get_records_once

of_mapping = contextvars.ContextVar("of_mapping", default=False)
execute_function, run_sqs_batch = lambda_svc._execute_function, lambda_svc._run_sqs_batch


def fail_wrong_answers(function, event, *rest, **more):
    result = execute_function(function, event, *rest, **more)
    answer = result.get("body")
    if of_mapping.get() and not result.get("error") and isinstance(answer, dict):
        sent = [record["messageId"] for record in event["Records"]]
        failures = answer.get("batchItemFailures") or []
        if not all(isinstance(failure, dict) and failure.get("itemIdentifier") in sent for failure in failures):
            wrong = {"errorType": "BatchItemFailures", "errorMessage": f"not of this batch: {failures}"}
            return {**result, "error": True, "body": wrong}
        return {**result, "body": {"batchItemFailures": failures}}
    return result


def run_sqs_batch_of_mapping(*batch):
    of_mapping.set(True)
    run_sqs_batch(*batch)


lambda_svc._execute_function = fail_wrong_answers
lambda_svc._run_sqs_batch = run_sqs_batch_of_mapping

build_change_record = dynamodb._build_change_record


def build_change_record_to_the_millisecond(*change):
    record = build_change_record(*change)
    record["dynamodb"]["ApproximateCreationDateTime"] = round(time.time(), 3)
    return record


dynamodb._build_change_record = build_change_record_to_the_millisecond

main()
