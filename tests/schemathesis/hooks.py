"""What schemathesis cannot know of the API, and one more check. `run` names this file."""

import base64
import json
import re
import time

import schemathesis
from requests.adapters import HTTPAdapter

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as in a ULID
SESSION_ID = re.compile(r"([a-z][a-z0-9]{0,6}[0-9]-)[0-7][0-9A-HJKMNP-TV-Z]{9}([0-9A-HJKMNP-TV-Z]{16})")

send = HTTPAdapter.send


def now():
    return int(time.time() * 1000)


def begun(text):
    """The text with the start of each session id set to a second ago.

    The pattern of an id allows any time of ten millennia. The API takes sessions of the last 30
    days, and refuses the others, rightly.
    """
    start = now() - 1000
    digits = "".join(ALPHABET[start >> shift & 31] for shift in range(45, -1, -5))
    return SESSION_ID.sub(rf"\g<1>{digits}\g<2>", text)


def adapt(request):
    """Makes a request that can only be right or wrong by its description."""
    path, question, query = request.url.partition("?")
    base, version, path = path.partition("/v1/")
    # docs/api.md: ids in paths are encoded twice. schemathesis encodes them once.
    path = begun(path).replace("%", "%25")
    # A page token is opaque: only the API can make one. This one is as it makes them.
    token = base64.urlsafe_b64encode(b"1" + begun("use1-01M3250V3TW3KG5DD5CEVSMJCC")[5:].encode()).decode().rstrip("=")
    query = re.sub(r"(^|&)page_token=[^&]+", rf"\g<1>page_token={token}", query)
    request.url = base + version + path + question + query
    authorization = request.headers.get("Authorization", "")
    if request.headers.get("Content-Type", "").startswith("text/plain") and authorization.startswith("Bearer "):
        # Text is only for beacons, which have their token in the body.
        del request.headers["Authorization"]
        event = {"session_id": "use1-01M3250V3TW3KG5DD5CEVSMJCC", "profile_id": "p", "title_id": "t", "seq": 0,
                 "kind": "stopped", "position_ms": 0}
        beacon = {"token": authorization.removeprefix("Bearer "), "sent_at": now(), "events": [event]}
        request.body = json.dumps(beacon).encode()
    if isinstance(request.body, (bytes, str)):
        body = request.body if isinstance(request.body, bytes) else request.body.encode()
        # Latin-1 keeps bytes that are no UTF-8. Only ASCII is changed.
        request.body = begun(body.decode("latin-1")).encode("latin-1")
        request.headers["Content-Length"] = str(len(request.body))


def adapt_and_send(self, request, *args, **kwargs):
    adapt(request)
    return send(self, request, *args, **kwargs)


# On the way out, because schemathesis compares a case with the description again after the hooks.
HTTPAdapter.send = adapt_and_send


@schemathesis.check
def every_event_is_answered(ctx, response, case):
    """Each event is accepted or named as rejected, and events that follow the description are
    accepted."""
    if case.operation.label != "POST /v1/events" or response.status_code != 202:
        return
    answer = response.json()
    events = json.loads(response.request.body)["events"]
    rejected = [one["index"] for one in answer["rejected"]]
    assert rejected == sorted(set(rejected)), f"rejected twice, or out of order: {rejected}"
    assert answer["accepted"] + len(rejected) == len(events), f"{len(events)} events, but {answer}"
    named = [one["index"] for one in answer["adjusted"] + answer["rejected"] if "index" in one]
    assert all(0 <= index < len(events) for index in named), f"{len(events)} events, but {answer}"
    if case.meta and case.meta.generation.mode.is_positive:
        assert not rejected, f"rejected although it follows the description: {answer['rejected']}"
