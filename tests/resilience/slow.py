"""Two thousand clients that never come to the point, made by slowhttptest: heads and bodies that drip, answers that are
read a few bytes at a time; and as many that ask for long streams and read nothing, which that tool cannot do. A good
client beside them must not notice."""

import asyncio
import contextlib
import csv
import shutil
import socket
from urllib.parse import urlsplit

from pressure import Pressure, failures, latency
from processes import MASTER_KEY
from regions import OTHER, OTHER_ID, Single
from report import Report
from stand import BASE_RULE, Call, eventually

RATE = 20
CALL = Call.make("converse-stream", model="nova")
UNREAD = "unread streams"
MODES = {"slow headers": "-H", "slow body": "-B", "slow read": "-X"}


def command(mode, connections, seconds, url, secret, statistics):
    """A slowhttptest that opens all connections within a second or two and keeps each as long as it can."""
    options = ["-c", connections, "-r", min(1000, connections), "-i", 1, "-l", seconds, "-p", 5, "-x", 24, "-u", url]
    options += ["-g", "-o", statistics]
    # It has no option for further headers, but writes what it is given: only somebody who is known is waited for.
    known = f"application/json\r\nauthorization: Bearer {secret}"
    if mode == "slow headers":
        options += ["-t", "POST"]
    elif mode == "slow body":
        options += ["-s", 8192, "-f", known]
    else:
        options += ["-m", known, "-k", 3, "-n", 1, "-w", 10, "-y", 20, "-z", 5]
    return ["slowhttptest", MODES[mode], *map(str, options)]


@contextlib.asynccontextmanager
async def slowhttptest(stand, mode, connections, seconds, key, told):
    """Runs the tool; `told` gets what it says about its connections in the end."""
    # The longest answer that a GET can have; each connection asks for it several times.
    path, secret = ("/metrics", MASTER_KEY) if mode == "slow read" else (CALL.path, key.secret)
    output = stand.directory / mode.replace(" ", "-")
    url = stand.proxies[0].url + path
    with output.with_suffix(".log").open("wb") as log:
        attacker = await asyncio.create_subprocess_exec(
            *command(mode, connections, seconds, url, secret, output), stdin=asyncio.subprocess.DEVNULL, stdout=log,
            stderr=log)
    try:
        yield attacker.wait()
    finally:
        if attacker.returncode is None:
            attacker.kill()
            await attacker.wait()
    told.update(most(output.with_suffix(".csv").read_text()))


def most(statistics):
    """What slowhttptest counted each second, at its highest: connections that were open, and that had been closed."""
    rows = list(csv.DictReader(statistics.splitlines()))
    return {name.lower(): max((int(row[name]) for row in rows), default=0) for name in ("Connected", "Closed")}


@contextlib.asynccontextmanager
async def unread(stand, mode, connections, seconds, key, told):
    """Streams that are asked for and not read; socket buffers are small, so that the proxy has to wait."""
    address = urlsplit(stand.proxies[0].url)
    call = Call.make("converse-stream", model=OTHER)
    head = (f"POST {call.path} HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {key.secret}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(call.body)}\r\n\r\n")
    open_ones = []

    async def ask():
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        open_ones.append(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # The kernel's buffer on the proxy's side is a multiple of a segment: over loopback it would hold everything.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        connection.setblocking(False)
        await loop.sock_connect(connection, (address.hostname, address.port))
        await loop.sock_sendall(connection, head.encode() + call.body)
        # It is answered. Nothing more is read.
        await loop.sock_recv(connection, 1)

    async def attack():
        for begin in range(0, connections, 20):
            await asyncio.gather(*(ask() for _ in range(min(20, connections - begin))))
        sums = await asyncio.to_thread(stand.proxies[0].metrics)
        told["connected"] = min(len(open_ones), int(sums["dheera_ai_requests_in_flight"]))
        await asyncio.sleep(seconds)

    try:
        yield attack()
    finally:
        for connection in open_ones:
            connection.close()


async def attack(stand, report, key, mode, connections, seconds):
    proxy = stand.proxies[0]
    load = await Pressure.start(proxy.url, key.secret, rate=RATE)
    told = {}
    try:
        await load.flows(RATE)
        calm = len(load.results)
        resident = [await asyncio.to_thread(proxy.resident_kb)]
        attacker = unread if mode == UNREAD else slowhttptest
        async with attacker(stand, mode, connections, seconds, key, told) as run:
            attacking = asyncio.create_task(run)
            while not attacking.done():
                await asyncio.sleep(0.2)
                resident.append(await asyncio.to_thread(proxy.resident_kb))
            await attacking
        at_end = len(load.results)
        await load.flows(RATE)
        results = await load.stop()
    finally:
        await load.close()
    during = results[calm:at_end]
    report.none(f"{mode}: failures of a good client among {len(results)} calls", [r.told for r in failures(results)])
    opened = told["connected"] + told.get("closed", 0)
    report.that(f"{mode}: the attack took place ({opened} of {connections} connections)", opened >= connections * 0.9)
    report.figure(mode.replace(" ", "_"), {
        "connections": connections, "at_its_end": told, "calm": latency(results[:calm]), "good_client": latency(during),
        "resident_max_mib": round(max(resident) / 1024, 1), "resident_before_mib": round(resident[0] / 1024, 1)})


async def run(options):
    connections, seconds = (200, 4) if options.quick else (2000, 60)
    report = Report("slow", f"{connections} slow connections, and a good client")
    if shutil.which("slowhttptest") is None:
        report.that("slowhttptest is installed (scripts/setup)", False)
        return report
    stand = await Single.open(options, "embedded", 1, rule={"delay_ms": 10})
    try:
        long_answers = {"match": {"model": OTHER_ID}, "frames": 10, "frame_bytes": 20_000}
        await asyncio.to_thread(stand.simulator.behave, long_answers, BASE_RULE | {"delay_ms": 10})
        key = await stand.key(limit=10**15)
        for mode in MODES:
            await attack(stand, report, key, mode, connections, seconds)
        # What is not read has to be made all the same, by a simulator without optimisation.
        await attack(stand, report, key, UNREAD, connections // 4 if options.quick else connections, seconds)
        proxy = stand.proxies[0]
        await eventually(lambda: proxy.metrics()["dheera_ai_requests_in_flight"] <= 1, "slow requests to end")
        report.that("everybody counted the same", await stand.settled("accounts"))
    finally:
        statuses = await stand.close()
    report.that(f"clean exits: {statuses}", not any(statuses.values()))
    return report
