"""Load during changes of a cluster. Measures the longest time without an acknowledgement, and checks at the end that
all acknowledged records exist. The caller determines how commands reach the cluster.
"""

import json
import subprocess
import threading
import time

EACH_S = 0.01
KEYS = 20


class Load:
    """Publishes numbered records of a few keys with the command's defaults, until end()."""

    def __init__(self, client, topic="load"):
        """`client` converts arguments of the ropewalk command to a complete command line."""
        self.client, self.topic = client, topic
        self.ends = threading.Event()
        self.sent, self.acknowledged, self.gap = 0, 0, 0.0

    def ropewalk(self, *arguments, **more):
        return subprocess.run(self.client(*arguments), capture_output=True, text=True, **more)

    def do(self, *arguments, **more):
        done = self.ropewalk(*arguments, **more)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def healthy(self):
        self.do("cluster", "health", "--wait", "120s")

    def begin(self):
        command = self.client("produce", self.topic, "--key-separator", ":", "-o", "jsonl")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.threads = [threading.Thread(target=each, daemon=True) for each in (self.write, self.read)]
        self.last = time.monotonic()
        for thread in self.threads:
            thread.start()

    def write(self):
        while not self.ends.is_set():
            self.process.stdin.write(f"key-{self.sent % KEYS}:{self.sent // KEYS}\n")
            self.process.stdin.flush()
            self.sent += 1
            time.sleep(EACH_S)
        self.process.stdin.close()

    def read(self):
        for _ in self.process.stdout:
            now = time.monotonic()
            self.gap, self.last = max(self.gap, now - self.last), now
            self.acknowledged += 1

    def take_gap(self):
        """Returns the longest time without an acknowledgement since the previous call."""
        gap, self.gap = max(self.gap, time.monotonic() - self.last), 0.0
        return gap

    def end(self):
        self.ends.set()
        for thread in self.threads:
            thread.join()
        if self.process.wait() != 0 or self.acknowledged != self.sent:
            raise SystemExit(f"{self.acknowledged} of {self.sent} records were acknowledged: {self.process.stderr.read()}")

    def check(self):
        """Checks that every record exists once, and that each key is in order."""
        read = self.ropewalk("consume", self.topic, "--from", "beginning", "-o", "jsonl")
        following = [0] * KEYS
        for line in read.stdout.splitlines():
            record = json.loads(line)
            key, number = int(record["key"].removeprefix("key-")), int(record["value"])
            if number != following[key]:
                raise SystemExit(f"key-{key} has record {number} instead of {following[key]}")
            following[key] += 1
        if sum(following) != self.sent:
            raise SystemExit(f"found {sum(following)} of {self.sent} records")
