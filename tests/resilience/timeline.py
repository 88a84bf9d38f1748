"""When a region was used: out of the request log, whose attempts say where each request went. Pure."""

import datetime
from bisect import bisect_left
from dataclasses import dataclass


@dataclass
class Attempt:
    """A request that asked a region, successfully or not. `at`: when it arrived at the proxy, seconds since 1970."""

    at: float
    region: str
    failed: bool


def attempts(records):
    """All attempts of a request log; deployments are named like their regions."""
    return [
        Attempt(moment(record["time"]), attempt["deployment"], attempt.get("setback") is not None)
        for record in records for attempt in record.get("attempts", [])
    ]


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@dataclass
class Use:
    """How a region was used while it was faulty."""

    # Requests in all, and those that asked the region.
    requests: int
    asked: int
    # From the beginning of the fault to the last request before the traffic stopped; None when it did not.
    stopped_after_s: float | None
    # Requests that asked it afterwards: probes.
    probes: int

    @property
    def share(self):
        return self.asked / self.requests if self.requests else 0.0


def use(all_attempts, region, begin, end, fair_per_s, window_s):
    """The traffic has stopped where less than a tenth of the fair share followed within `window_s`."""
    inside = [attempt for attempt in all_attempts if begin <= attempt.at < end]
    times = sorted(attempt.at for attempt in inside if attempt.region == region)
    requests = len({attempt.at for attempt in inside})
    bound = max(1.0, 0.1 * fair_per_s * window_s)
    stopped = None
    if not times:
        return Use(requests, 0, 0.0, 0)
    for index, time in enumerate(times):
        if time + window_s > end:
            break
        following = bisect_left(times, time + window_s) - index - 1
        if following < bound:
            stopped = index + following
            break
    if stopped is None:
        return Use(requests, len(times), None, 0)
    return Use(requests, len(times), times[stopped] - begin, len(times) - stopped - 1)


def flows_from(times, fair_per_s, window_s):
    """The first of the ascending `times` that at least half of the fair share follows within the window; or None."""
    for index, time in enumerate(times):
        if bisect_left(times, time + window_s) - index >= 0.5 * fair_per_s * window_s:
            return time
    return None
