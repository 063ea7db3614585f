#!/usr/bin/env python3
"""Reads trailcast's events out of Kafka: only what was committed, so each event once.

    pip install confluent-kafka cloudevents
    python3 consume.py kafka:9092 audit-events [--group NAME] [--until-end]

Prints id, type and time of each event. With a group its position is kept in Kafka, and the next run goes on from there;
without, it reads everything. With --until-end it stops where the topic ended when it began.
"""

import argparse
import json
import sys

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition


def event_of(message):
    """The message as a CloudEvent: its attributes are the headers ce_*, its data is the event in trailcast's format."""
    return from_binary(KafkaMessage(dict(message.headers() or ()), message.key(), message.value()), JSONFormat())


def id_in(data):
    """The event's id where its format has it: native, OCSF, ECS."""
    return data.get("id") or data.get("metadata", {}).get("uid") or data.get("event", {}).get("id")


def partitions_of(consumer, topic):
    described = consumer.list_topics(topic, timeout=30).topics[topic]
    if described.error:
        raise KafkaException(described.error)
    return [TopicPartition(topic, partition) for partition in described.partitions]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brokers")
    parser.add_argument("topic")
    parser.add_argument("--group")
    parser.add_argument("--until-end", action="store_true")
    args = parser.parse_args()

    consumer = Consumer(
        {
            "bootstrap.servers": args.brokers,
            "group.id": args.group or "unused",
            # The default, and what "each event once" rests on: what a transaction left behind is not shown.
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": args.until_end,
        }
    )
    try:
        partitions = partitions_of(consumer, args.topic)
        if args.group:
            consumer.subscribe([args.topic])
        else:
            consumer.assign([TopicPartition(args.topic, one.partition, OFFSET_BEGINNING) for one in partitions])
        open_partitions = {one.partition for one in partitions}
        while open_partitions or not args.until_end:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                if message.error().name() == "_PARTITION_EOF":
                    open_partitions.discard(message.partition())
                    continue
                raise KafkaException(message.error())
            event = event_of(message)
            if event.get_id() != id_in(event.get_data()):
                sys.exit(f"{event.get_id()} is not the id of what it carries: {json.dumps(event.get_data())}")
            print(event.get_id(), event.get_type(), event.get_time().isoformat(), flush=True)
            if args.group:
                # After it was dealt with: what a crash leaves in between comes again, with the same id.
                consumer.commit(message)
    finally:
        consumer.close()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except KafkaException as error:
        sys.exit(str(error))
