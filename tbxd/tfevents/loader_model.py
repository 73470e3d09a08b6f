"""The points of a tag that TensorBoard's fast loader keeps: a new step deletes every point at or after it.

Source: ``tensorboard/data/server/reservoir.rs`` (preemption), and the measurements of ``docs/EVENT_FILE.md``. It also
shows only a sample of a tag with many points, which is not modelled: ``--samples_per_plugin`` raises that.
"""

from __future__ import annotations

STRETCHES_MAX = 4096  # of one tag; where steps are more irregular, the count of those further back is an estimate


class Kept:
    """The kept steps of one tag, as evenly spaced stretches: most tags have a single one."""

    __slots__ = ("_below", "_count", "_first", "_stride", "estimated", "last", "total", "values")

    def __init__(self) -> None:
        self.last = -(1 << 63) - 1  # the greatest kept: below any step while there is none
        self.total = 0  # kept
        self.values = 0  # offered
        self.estimated = False
        self._first, self._stride, self._count = 0, 0, 0
        self._below: list[tuple[int, int, int]] = []  # the stretches before: first step, distance, steps

    def offer(self, step: int) -> int:
        """Take a value with this step; return the number of points that it deletes."""
        self.values += 1
        lost = 0
        if step <= self.last:
            lost = self._cut(step)
        self.total += 1 - lost
        stride = step - self.last
        if self._count == 0:
            self._first, self._count = step, 1
        elif stride == self._stride or self._count == 1:
            self._stride = stride
            self._count += 1
        else:
            self._below.append((self._first, self._stride, self._count))
            self._first, self._stride, self._count = step, 0, 1
            if len(self._below) > STRETCHES_MAX:
                self._merge()
        self.last = step
        return lost

    def end(self, step: int) -> int:
        """End the tag at this step, without a value; return the number of points that this deletes."""
        lost = self._cut(step) if step <= self.last else 0
        self.total -= lost
        return lost

    def _cut(self, step: int) -> int:
        lost = 0
        while True:
            if self._count and self._first >= step:
                lost += self._count
                if not self._below:
                    self._count = 0
                    break
                self._first, self._stride, self._count = self._below.pop()
                continue
            if self._count > 1:
                stay = min(self._count, (step - self._first - 1) // self._stride + 1) if self._stride else self._count
                lost += self._count - stay
                self._count = stay
            break
        self.last = self._first + self._stride * (self._count - 1) if self._count else -(1 << 63) - 1
        return lost

    def _merge(self) -> None:
        """Make one stretch of the older half, as if its steps were evenly spaced."""
        half = len(self._below) // 2
        first = self._below[0][0]
        count = sum(stretch[2] for stretch in self._below[:half])
        last_first, last_stride, last_count = self._below[half - 1]
        end = last_first + last_stride * (last_count - 1)
        self._below[:half] = [(first, max(1, (end - first) // max(1, count - 1)), count)]
        self.estimated = True

    def steps(self) -> list[int]:
        """Return all steps, in order."""
        stretches = [*self._below, (self._first, self._stride, self._count)]
        return [first + stride * index for first, stride, count in stretches for index in range(count)]
