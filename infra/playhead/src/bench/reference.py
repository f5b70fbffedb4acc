"""What `ingest` is compared with: an endpoint as one would write it by hand in Python.

It verifies the token, validates the events with pydantic, produces one message per event and answers
202 when the brokers have acknowledged all of them. Its loop is the leanest that Lambda's Runtime API
allows: one connection that stays open. It does less than `ingest`: no budgets, no routing, no second
log, no books.
"""

import base64
import gzip
import http.client
import json
import os
import time
from typing import Annotated, Literal, Optional

import jwt
from confluent_kafka import Producer
from pydantic import BaseModel, Field, StringConstraints

Id = Annotated[str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9._:/@!$&'()*+;=-][A-Za-z0-9._~:/@!$&'()*+;=-]*$")]
SessionId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,6}[0-9]-[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
Milliseconds = Annotated[int, Field(ge=0, le=253_402_300_799_999)]


class Device(BaseModel):
    id: Optional[Id] = None
    kind: Optional[str] = None


class Event(BaseModel):
    session_id: SessionId
    profile_id: Id
    title_id: Id
    seq: Annotated[int, Field(ge=0, le=65_535)]
    kind: Literal["started", "progressed", "paused", "resumed", "seeked", "stopped"]
    position_ms: Milliseconds
    played_ms: Milliseconds = 0
    title_duration_ms: Optional[Milliseconds] = None
    credits_ms: Optional[Milliseconds] = None
    occurred_at: Optional[Milliseconds] = None
    device: Optional[Device] = None
    country: Optional[Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]] = None
    # Set by us, whatever was sent.
    received_at: int = 0


class Request(BaseModel):
    events: Annotated[list[Event], Field(max_length=500)]
    sent_at: Optional[Milliseconds] = None


SECRET = os.environ["JWT_SECRET"]
TOPIC = os.environ["KAFKA_TOPIC"]
producer = Producer(
    {
        "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP"],
        "acks": "all",
        "linger.ms": 0,
        "compression.type": "lz4",
        "socket.nagle.disable": True,
    }
)
producer.list_topics(TOPIC, timeout=10)


def answer(status, body):
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}


def handle(event):
    headers = event["headers"]
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return answer(401, {"code": "no_token"})
    try:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp"]})
    except jwt.InvalidTokenError:
        return answer(401, {"code": "invalid_token"})
    body = event.get("body") or ""
    if event.get("isBase64Encoded"):
        body = base64.b64decode(body)
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    try:
        request = Request.model_validate_json(body)
    except ValueError:
        return answer(400, {"code": "malformed_request"})
    profiles = set(claims.get("profiles", ()))
    if any(one.profile_id not in profiles for one in request.events):
        return answer(403, {"code": "profile_forbidden"})
    failed = []

    def delivered(error, _message):
        if error is not None:
            failed.append(error)

    received_at = time.time_ns() // 1_000_000
    for one in request.events:
        one.received_at = received_at
        producer.produce(TOPIC, key=one.session_id, value=one.model_dump_json(), on_delivery=delivered)
    if producer.flush(10) or failed:
        return answer(503, {"code": "log_unavailable"})
    return answer(202, {"accepted": len(request.events), "rejected": [], "adjusted": []})


def serve():
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    path = "/2018-06-01/runtime/invocation/"
    while True:
        api.request("GET", path + "next")
        invocation = api.getresponse()
        request_id = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
        answered = json.dumps(handle(json.loads(invocation.read())))
        api.request("POST", f"{path}{request_id}/response", answered)
        api.getresponse().read()


serve()
