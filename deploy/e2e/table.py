"""Table of a run: its steps, their durations, and the longest pause of publishing in each."""

import time

# A longer pause of publishing is an outage.
OUTAGE_S = 3.0


class Table:
    def __init__(self):
        self.rows, self.load, self.begun = [], None, time.monotonic()

    def step(self, what, result="ok"):
        now = time.monotonic()
        gap = self.load.take_gap() if self.load else None
        if gap and gap > OUTAGE_S:
            result = f"OUTAGE of {gap:.1f} s"
        self.rows.append((what, now - self.begun, gap, result))
        print(self.line(self.rows[-1]), flush=True)
        self.begun = time.monotonic()

    def line(self, row):
        what, took, gap, result = row
        return f"{what:<52}{took:>8.1f} s" + (f"{gap:>10.2f} s  " if gap is not None else f"{'':>12}  ") + result

    def show(self):
        print(f"\n{'step':<52}{'took':>10}{'pause':>12}  result")
        for row in self.rows:
            print(self.line(row))
        return not any(row[3].startswith(("OUTAGE", "FAILED")) for row in self.rows)
