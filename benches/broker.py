"""One real Kafka broker on loopback, started by tests/kafka/broker, and what of it a measurement looks at."""

import os
import subprocess
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from server import Server, free_port

HERE = os.path.dirname(os.path.realpath(__file__))
PARTITIONS = 6
# What has been measured need not be kept: a backfill of 10 M events would be 20 GB.
BRIEFLY = {"segment.bytes": 64 << 20, "retention.bytes": 256 << 20, "file.delete.delay.ms": 1000}


class Broker(Server):
    """Its data is in `folder`. `properties` are the broker's own."""

    def __init__(self, folder, **properties):
        self.data = os.path.join(folder, "broker")
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        said = {"log.retention.check.interval.ms": 5000, **properties}
        self.command = [
            os.path.join(HERE, "..", "tests", "kafka", "broker"), self.data, "1", str(port), str(free_port()),
            *(f"{key}={value}" for key, value in said.items()),
        ]
        self.spawn()
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        self.wait_until(self._is_up, 120, f"the broker does not come up: see {self.data}/log")

    def spawn(self):
        """Starts it, also once it has ended: on the same data, at the same address. Does not wait until it is up."""
        self.process = subprocess.Popen(self.command)

    def _is_up(self):
        try:
            return bool(self.admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def create(self, topic, partitions=PARTITIONS, **config):
        new = NewTopic(topic, partitions, 1, config={key: str(value) for key, value in {**BRIEFLY, **config}.items()})
        for answer in self.admin.create_topics([new]).values():
            answer.result(30)
        return topic

    def configure(self, topic, **config):
        """Sets these of the topic's settings, all others to their defaults."""
        resource = ConfigResource("topic", topic, set_config={key: str(value) for key, value in config.items()})
        for answer in self.admin.alter_configs([resource]).values():
            answer.result(30)

    def delete(self, *topics):
        for answer in self.admin.delete_topics(list(topics)).values():
            answer.result(30)

    def size(self, topic):
        """Bytes of all segments of a topic on the disk."""
        total = 0
        for folder in os.listdir(os.path.join(self.data, "data")):
            if folder.rpartition("-")[0] == topic:
                path = os.path.join(self.data, "data", folder)
                total += sum(os.path.getsize(f"{path}/{name}") for name in os.listdir(path) if name.endswith(".log"))
        return total


class Reader:
    """Reads the committed records of a topic in a thread of its own; tells when each came."""

    def __init__(self, broker, topic, *, beginning=False, keep=False):
        self.consumer = Consumer({
            "bootstrap.servers": broker.address, "group.id": "bench", "enable.auto.commit": False,
            "isolation.level": "read_committed", "log_level": 0,
        })
        self.consumer.assign([
            TopicPartition(topic, partition, OFFSET_BEGINNING if beginning else OFFSET_END)
            for partition in range(PARTITIONS)
        ])
        self.keep = keep
        self.count = 0
        self.next = None
        self.arrivals = []
        self.ended = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while not self.ended:
            first = self.consumer.poll(0.1)
            if first is None:
                continue
            messages = [message for message in (first, *self.consumer.consume(1000, 0)) if not message.error()]
            if not messages:
                continue
            now = time.time()
            with self.changed:
                self.count += len(messages)
                self.next = self.next or now
                if self.keep:
                    self.arrivals.extend((now, message.value()) for message in messages)
                self.changed.notify_all()

    def expect(self):
        """From here on the next event is the one that is waited for."""
        with self.changed:
            self.next = None

    def came(self, within):
        """When it came, since the epoch; none within these seconds is an error."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.next, within):
                raise SystemExit(f"no event in {within} s")
            return self.next

    def quiet(self, seconds):
        """Waits until nothing has come for so long; how many came until then."""
        while True:
            count = self.count
            time.sleep(seconds)
            if self.count == count:
                return count

    def stop(self):
        self.ended = True
        self.thread.join()
        self.consumer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
