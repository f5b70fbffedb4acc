"""Sends a surge of records to the running local cloud and writes down how far its reader falls behind.

    cargo playhead simulate --sessions 2500 --malformed 0 --duplicates 0 --lost 0 --late 0 --reorder 0 --out trace.jsonl
    cargo playhead encode --trigger msk --partitions 8 --batch 500 < trace.jsonl > batches.jsonl
    cargo playhead local up
    python3 surge.py batches.jsonl --bootstrap HOST:PORT --group STACK-process SECONDS:RATE ... > measured.json

Records are appended to the topic itself: through the API the emulator is slower than the reader, so nothing would wait.
It needs confluent-kafka. HOST:PORT is `log_bootstrap` of `cargo playhead local status --json`. Twice a second it reads
the ends of the partitions and what the group has committed; what is between them is the lag.
"""

import argparse
import base64
import json
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition

arguments = argparse.ArgumentParser()
arguments.add_argument("batches")
arguments.add_argument("phases", nargs="+", help="SECONDS:RATE, records per second")
arguments.add_argument("--bootstrap", required=True)
arguments.add_argument("--group", required=True)
arguments.add_argument("--topic", default="playback-events")
arguments.add_argument("--skip", type=int, default=0, help="records that an earlier run has used")
arguments = arguments.parse_args()

records = []
with open(arguments.batches) as file:
    for line in file:
        for of_partition in json.loads(line)["records"].values():
            records += [(base64.b64decode(one["key"]), base64.b64decode(one["value"])) for one in of_partition]
records = iter(records[arguments.skip :])

producer = Producer({"bootstrap.servers": arguments.bootstrap, "acks": "all", "linger.ms": 5})
reader = Consumer({"bootstrap.servers": arguments.bootstrap, "group.id": arguments.group, "enable.auto.commit": False})
partitions = sorted(reader.list_topics(arguments.topic, timeout=10).topics[arguments.topic].partitions)
places = [TopicPartition(arguments.topic, partition) for partition in partitions]


def counts():
    """Records at the ends, and records committed."""
    ends = [reader.get_watermark_offsets(place, timeout=10)[1] for place in places]
    committed = [max(place.offset, 0) for place in reader.committed(places, timeout=10)]
    return sum(ends), sum(committed)


start, points, sent = time.monotonic(), [], 0
first_end, first_committed = counts()


def look():
    end, committed = counts()
    at = time.monotonic() - start
    points.append({"at": round(at, 2), "arrived": end - first_end, "processed": committed - first_committed})
    print(points[-1], file=sys.stderr)


next_look = 0.0
due, phase_end, began = 0.0, 0.0, time.monotonic()
for phase in arguments.phases:
    seconds, rate = map(float, phase.split(":"))
    phase_start, phase_end = phase_end, phase_end + seconds
    while (now := time.monotonic() - began) < phase_end:
        due_now = due + max(now - phase_start, 0) * rate
        while sent < due_now:
            key, value = next(records)
            producer.produce(arguments.topic, key=key, value=value)
            sent += 1
        producer.poll(0)
        if now >= next_look:
            next_look = now + 0.5
            look()
        time.sleep(0.005)
    due += seconds * rate
producer.flush()
while points[-1]["processed"] < sent:
    time.sleep(0.5)
    look()
json.dump({"partitions": len(partitions), "sent": sent, "points": points}, sys.stdout, indent=1)
