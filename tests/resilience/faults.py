"""One region of three has a bad day, in every way there is, under constant load. Nobody may see an error for what
happens before the first content; a stream that had begun ends with a modelled exception, never as if it were whole."""

import asyncio
import time
from dataclasses import dataclass

import timeline
from pressure import Pressure, latency, verdicts
from regions import REGIONS, Regions
from report import Report

REGION = "us-west-2"
# Frames of a stream: an opening, deltas, three that close it. Content has come after three frames, and more is to come.
FRAMES, FRAME_RATE_HZ, LATER = 8, 20, 4
# A request that is due just before a fault arrives when it is there.
LEEWAY_S = 0.25
RETURN_DEADLINE_S = 180


@dataclass
class Fault:
    """One way to fail: a rule of the simulator, for all operations or one; a mode of the network; a name gone."""

    name: str
    rule: dict | None = None
    operation: str | None = None
    mode: str | None = None
    nameless: bool = False
    # It comes after content: streams of the region may end with a modelled exception. Otherwise nobody sees anything.
    exceptions: bool = False
    # Whether the proxy is started anew when it begins: what was known before would otherwise be enough.
    restart: bool = False
    # Left out of quick runs: another fault is much like it.
    full_only: bool = False

    @property
    def cuts(self):
        """Whether connections that are open when the fault begins break."""
        return self.mode is not None


def _error(status, name):
    return {"kind": "error", "status": status, "error_type": name}


STREAM = {"operation": "ConverseStream"}
FAULTS = (
    Fault("refused", mode="refuse"),
    Fault("reset_on_connect", mode="reset", full_only=True),
    Fault("tls_not_spoken", mode="not_tls", full_only=True),
    Fault("tls_wrong_certificate", mode="wrong_certificate"),
    Fault("connect_silent", mode="silent", full_only=True),
    Fault("name_lost", nameless=True, full_only=True),
    Fault("name_unknown_at_start", nameless=True, restart=True),
    Fault("throttle", {"kind": "throttle"}),
    Fault("throttle_retry_after", {"kind": "throttle", "retry_after_s": 1}),
    Fault("error_500", _error(500, "InternalServerException")),
    Fault("error_503", _error(503, "ServiceUnavailableException")),
    Fault("stall_before_header", {"kind": "stall_before_header"}),
    Fault("stall_before_content", {"kind": "stall_mid_stream", "after_frames": 1}, **STREAM),
    Fault("reset_before_header", {"kind": "reset"}),
    Fault("cut_before_content", {"kind": "cut", "after_frames": 1}, full_only=True, **STREAM),
    Fault("exception_first", {"kind": "exception_frame", "after_frames": 0, "name": "throttlingException"}, **STREAM),
    Fault("exception_after_opening",
          {"kind": "exception_frame", "after_frames": 1, "name": "internalServerException"}, full_only=True,
          **STREAM),
    Fault("slow_body", {"kind": "slow_body", "bytes": 200, "interval_ms": 50}),
    Fault("stall_mid_stream", {"kind": "stall_mid_stream", "after_frames": LATER}, exceptions=True, **STREAM),
    Fault("cut_mid_stream", {"kind": "cut", "after_frames": LATER}, exceptions=True, full_only=True, **STREAM),
    Fault("end_mid_stream", {"kind": "cut", "after_frames": LATER, "clean": True}, exceptions=True, **STREAM),
    Fault("cut_mid_frame", {"kind": "cut_mid_frame", "after_frames": LATER}, exceptions=True, **STREAM),
    Fault("bad_crc", {"kind": "bad_crc", "frame": LATER}, exceptions=True, **STREAM),
    Fault("exception_later", {"kind": "exception_frame", "after_frames": LATER, "name": "modelStreamErrorException"},
          exceptions=True, **STREAM),
    Fault("reset_mid_stream", {"kind": "reset", "after_frames": LATER}, exceptions=True, **STREAM),
)


@dataclass
class Spell:
    """When a fault was there; `quiet_at`: since when nothing else was; `back_at`: when the region served again."""

    fault: Fault
    quiet_at: float
    began_at: float
    ended_at: float
    back_at: float | None = None


class Faults:
    def __init__(self, options, stand, report):
        self.options = options
        self.stand = stand
        self.report = report
        self.seconds = options.seconds or (2 if options.quick else 30)
        self.fair_per_s = options.rate / len(REGIONS)
        # Long enough to tell whether there is traffic.
        self.window_s = max(0.4 if options.quick else 1.0, 7 / self.fair_per_s)
        self.load = None
        self.key = None
        self.spells = []
        self.results = []

    async def press(self):
        url = self.stand.proxies[0].url
        self.load = await Pressure.start(url, self.key.secret, rate=self.options.rate, max_tokens=20)

    async def calm(self):
        """Starts the load and waits until every region serves its share."""
        if self.load is None:
            await self.press()
        since = time.time()
        for region in REGIONS:
            await self.flowing(region, since)

    async def flowing(self, region, since):
        """Waits until a region has its share of what is asked after `since`; gives when that began."""
        def began():
            served = sorted(r.at for r in self.load.results if r.deployment == region and r.ok and r.at >= since)
            return timeline.flows_from(served, self.fair_per_s, self.window_s)

        await self.load.seen(lambda _: began() is not None, f"the return of {region}", RETURN_DEADLINE_S)
        return began()

    async def begin(self, fault):
        stand = self.stand
        if fault.restart:
            await self.pause()
            stand.names.forget(REGION)
            # Stopped and started as an operator does; the state stays.
            await asyncio.to_thread(stand.proxies[0].stop)
            await asyncio.to_thread(stand.proxies[0].start)
            await self.press()
            await self.load.flows(1)
        elif fault.nameless:
            stand.names.forget(REGION)
        if fault.rule:
            match = {"operation": fault.operation} if fault.operation else {}
            rules = [{"match": match, "fault": fault.rule}, stand.rule]
            await asyncio.to_thread(stand.simulator_of(REGION).behave, *rules)
        if fault.mode:
            await stand.network.change(REGION, fault.mode)

    async def end(self, fault):
        stand = self.stand
        if fault.rule:
            await asyncio.to_thread(stand.simulator_of(REGION).behave, stand.rule)
        if fault.mode:
            await stand.network.change(REGION, "pass")
        if fault.nameless:
            stand.names.know(REGION)

    async def pause(self):
        if self.load is not None:
            self.results += await self.load.stop()
            self.report.figures.setdefault("load", []).append(self.load.summary)
            self.report.note(f"{self.load.summary['sent']} requests; {self.load.lag}")
            self.load = None

    async def one(self, fault):
        await self.calm()
        quiet_at = time.time()
        await self.load.flows(int(self.options.rate * (0.5 if self.options.quick else 5)))
        began_at = time.time()
        await self.begin(fault)
        # How long a fault lasts is what is asked for, not something to wait for.
        await asyncio.sleep(self.seconds)
        ended_at = time.time()
        await self.end(fault)
        spell = Spell(fault, quiet_at, began_at, ended_at)
        self.spells.append(spell)
        try:
            spell.back_at = await self.flowing(REGION, ended_at)
        except AssertionError as error:
            self.report.note(f"{fault.name}: {error}")

    async def run(self, chosen):
        self.key = await self.stand.key(limit=10**15)
        for fault in chosen:
            await self.one(fault)
        await self.load.flows(int(self.options.rate) // 4)
        await self.pause()

    # Afterwards.

    def judge(self):
        attempts = timeline.attempts(self.stand.proxies[0].records())
        for spell in self.spells:
            self.judge_one(spell, attempts)
        first, last = min(s.began_at for s in self.spells), max(s.back_at or s.ended_at for s in self.spells)
        outside = [
            r for r in self.results if not r.ok and not any(
                s.began_at - LEEWAY_S <= r.ended_at and r.at <= (s.back_at or s.ended_at) for s in self.spells)
        ]
        self.report.none("failures while nothing was wrong", [r.told for r in outside])
        self.report.figure("all", {"requests": len(self.results), "seconds": round(last - first)},
                           f"in all: {len(self.results)} requests, {verdicts(self.results)}")

    def cut(self):
        """Requests that were under way when connections were cut: they may have been answered in part."""
        moments = [spell.began_at for spell in self.spells if spell.fault.cuts]
        return {id(r) for r in self.results if any(r.at < at + LEEWAY_S and r.ended_at > at for at in moments)}

    def judge_one(self, spell, attempts):
        fault, report = spell.fault, self.report
        # What began before it was quiet belongs to the fault before.
        open_then = [r for r in self.results
                     if spell.quiet_at <= r.at < spell.began_at - LEEWAY_S and r.ended_at > spell.began_at]
        during = [r for r in self.results if spell.began_at - LEEWAY_S <= r.at < (spell.back_at or spell.ended_at)]
        before = [r for r in self.results if spell.quiet_at <= r.at and r.ended_at < spell.began_at]
        cut = self.cut()
        excused = [r for r in during + open_then
                   if not r.ok and (fault.exceptions or id(r) in cut) and self.excused(r, id(r) in cut)]
        known = {id(r) for r in excused}
        report.none(f"{fault.name}: errors that a client sees",
                    [r.told for r in during + open_then if not r.ok and id(r) not in known])
        use = timeline.use(attempts, REGION, spell.began_at, spell.ended_at, self.fair_per_s, self.window_s)
        if fault.exceptions:
            report.that(f"{fault.name}: streams end with a modelled exception ({len(excused)} of {use.asked} there)",
                        bool(excused))
        report.that(f"{fault.name}: the region is used again afterwards", spell.back_at is not None)
        others = [r for r in during if r.ok and r.attempts <= 1 and r.deployment != REGION and r.at < spell.ended_at]
        moved = [r for r in during if r.ok and r.attempts > 1 and r.at < spell.ended_at]
        back_s = None if spell.back_at is None else round(max(0.0, spell.back_at - spell.ended_at), 2)
        figures = {
            "stopped_after_s": None if use.stopped_after_s is None else round(use.stopped_after_s, 2),
            "share_asked": round(use.share, 4), "probes": use.probes, "back_after_s": back_s,
            "before": latency(before), "others": latency(others), "moved": latency(moved),
            "errors": len([r for r in during if not r.ok]),
        }
        stopped = "never" if use.stopped_after_s is None else f"{figures['stopped_after_s']} s"
        report.figure(fault.name, figures, (
            f"  no longer used after {stopped}, then {use.probes} probes; {use.share:.1%} of {use.requests} requests "
            f"asked it; back after {back_s} s; p50/p99 before {_pair(before)}, others {_pair(others)}, "
            f"moved {_pair(moved)} ms"))

    @staticmethod
    def excused(result, cut):
        """A modelled end of a stream of the faulty region. Of answers that were `cut` before they were complete, but
        after they had begun to come, a proper error that tells the client not to ask again."""
        if result.deployment not in ("", REGION):
            return False
        return result.verdict == "exception" or (cut and result.verdict == "refused" and result.status == 408)


def _pair(results):
    figures = latency(results)
    return f"{figures['p50_ms'] or '-'}/{figures['p99_ms'] or '-'}"


async def run(options):
    report = Report("faults", f"{options.rate:.0f} requests/s, half of them streams, to three regions; {REGION} fails")
    chosen = [fault for fault in FAULTS if fault.name in options.only] if options.only else [
        fault for fault in FAULTS if not (options.quick and fault.full_only)]
    # A stall is noticed after a second, or later where a loaded machine may be as slow; quick runs cannot wait for a
    # minute of probation.
    patience_s = 3 if options.quick else 1
    router = {"timeout": patience_s, "stream_timeout": patience_s, "connect_timeout": 1, "num_retries": 2}
    if options.quick:
        router |= {"cooldown_time": 0.5, "cooldown_time_max": 1}
    stand = await Regions.open(
        options, router=router, rule={"frames": FRAMES, "frame_rate_hz": FRAME_RATE_HZ, "delay_ms": 20},
        upstream_idle_timeout=patience_s, drain_timeout=5)
    try:
        faults = Faults(options, stand, report)
        try:
            await faults.run(chosen)
        finally:
            if faults.load:
                await faults.load.close()
        stand.answered |= {r.call_id for r in faults.results if r.ok}
        exact = await stand.settled("accounts")
        faults.judge()
        report.that("the spend log holds what the simulators billed", exact)
        counters = [await asyncio.to_thread(simulator.counters) for simulator in stand.simulators]
        wrong = sum(one["violations"] + one["authentication_failures"] for one in counters)
        report.equal("requests that must not reach AWS", wrong, 0)
        statuses = await stand.close()
        report.that(f"clean exits: {statuses}", not any(statuses.values()))
    finally:
        await stand.close()
    return report
