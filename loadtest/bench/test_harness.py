"""The harness of the load test: what it reads from others, its order of runs, its medians and verdicts."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bodies
import goals
import measure
import report
import run
from load import parse_h2load, parse_streams, parse_wrk
from processes import Failed, Process, free_port, until
from results import Medians
from scenarios import SCENARIOS, Scenario, figures_of
from targets import TARGETS

WRK = """Running 1s test @ http://127.0.0.1:9000
  948 requests in 1.09s, 0.91MB read
RESULT {"requests":948,"duration_us":1088255,"bytes":959093,"p50_us":17097,"p90_us":27943,"p99_us":41303,"max_us":47842,\
"connect":0,"read":2,"write":0,"timeout":0,"status":3}
"""
H2LOAD = """finished in 5.00s, 2.40 req/s, 1.2KB/s
requests: 4 total, 6 started, 4 done, 3 succeeded, 1 failed, 0 errored, 0 timeout
status codes: 3 2xx, 0 3xx, 0 4xx, 1 5xx
"""
STREAMS = {"elapsed_s": 2.5, "finished": 10, "frames": 1030, "errors": {"cut": 1}, "ttft_us": {"count": 10, "p50": 800.5,
           "p99": 900.0, "p99.9": 950.0, "max": 951.0}, "gap_us": {"count": 0}, "transit_us": {"count": 0}}


def row(target, turn, scenario="converse-1k", point=None, **more):
    figures = {"requests": 100, "seconds": 1.0, "rps": 100.0} | more
    return {"scenario": scenario, "point": point, "target": target, "pass": turn, "figures": figures}


class Reading(unittest.TestCase):
    def test_wrk_counts_errors_of_every_kind(self):
        result = parse_wrk(WRK)
        self.assertEqual((result.requests, result.seconds), (948, 1.088255))
        self.assertEqual(result.figures["p99_us"], 41303)
        self.assertEqual(result.failed, "3 answers without success, 2 read errors")

    def test_wrk_without_a_result_has_failed(self):
        with self.assertRaises(Failed):
            parse_wrk("unable to connect to 127.0.0.1:9000 Connection refused")

    def test_h2load_counts_only_success_and_takes_latencies_from_its_log(self):
        log = "".join(f"1700000000000000\t200\t{us}\t1\t1\n" for us in (100, 300, 200, 400))
        result = parse_h2load(H2LOAD, log, 5)
        self.assertEqual(result.requests, 3)
        self.assertEqual(result.figures, {"p50_us": 300, "p90_us": 400, "p99_us": 400})
        self.assertIn("1 answers without success", result.failed)

    def test_times_that_were_not_measured_are_no_figures(self):
        result = parse_streams("\n" + json.dumps(STREAMS))
        self.assertEqual(result.figures, {"frames": 1030, "ttft_p50_us": 800.5, "ttft_p99_us": 900.0,
                                          "ttft_p99.9_us": 950.0, "ttft_max_us": 951.0})
        self.assertEqual(result.failed, "1 cut")

    def test_a_line_of_proc_is_read_whatever_the_name(self):
        line = "7 (a) b (c) S 3 7 7 0 -1 0 0 0 0 0 " + "100 50 20 30 20 0 4 0"
        stat = measure.parse_stat(line)
        self.assertEqual(stat.parent, 3)
        self.assertAlmostEqual(stat.cpu_s, 200 * measure.TICK_S)

    def test_a_tree_has_children_of_children_and_nobody_else(self):
        processes = {pid: measure.Stat(parent, 1.0) for pid, parent in ((1, 0), (2, 1), (3, 2), (4, 1), (5, 0))}
        self.assertEqual(sorted(measure.tree([2, 9], processes)), [2, 3])
        self.assertEqual(sorted(measure.tree([1], processes)), [1, 2, 3, 4])

    def test_memory_is_read_by_field(self):
        self.assertEqual(measure.parse_status("VmHWM:\t  900 kB\nVmRSS:\t  800 kB\n", "VmRSS"), 800)
        self.assertEqual(measure.parse_status("Name: gone\n", "VmRSS"), 0)


class Order(unittest.TestCase):
    def test_each_target_comes_at_every_place(self):
        orders = [run.rotated(["a", "b", "c"], turn) for turn in range(3)]
        self.assertEqual(orders, [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]])

    def test_curves_go_up_and_down(self):
        points = [Scenario("grown", "", ("dheera",), point=point) for point in (1, 2)]
        self.assertEqual([(scenario.point, turn) for scenario, _, turn in run.plan(points, None, 2)],
                         [(1, 1), (2, 1), (2, 2), (1, 2)])

    def test_only_wanted_targets_run(self):
        runs = run.plan(list(SCENARIOS), ["bare"], 1)
        self.assertTrue(runs)
        self.assertEqual({name for _, name, _ in runs}, {"bare"})

    def test_every_target_of_a_scenario_is_known(self):
        for scenario in run.everything(full=True):
            self.assertLessEqual(set(scenario.targets), set(TARGETS), scenario.name)


class Figures(unittest.TestCase):
    def test_cpu_is_shared_by_requests_and_frames(self):
        figures = figures_of(parse_streams(json.dumps(STREAMS)), {"cpu": 0.0103, "redis_cpu": 0.001})
        self.assertEqual((figures["cpu_us"], figures["frame_cpu_us"], figures["redis_cpu_us"]), (1030.0, 10.0, 100.0))

    def test_medians_are_of_valid_passes_alone(self):
        rows = [row("bare", turn, cpu_us=cost) for turn, cost in enumerate((10.0, 30.0, 20.0), 1)]
        rows.append(row("bare", 4, cpu_us=999.0) | {"invalid": "3 answers without success"})
        medians = Medians(rows)
        figure = medians.get("cpu_us", "converse-1k", "bare")
        self.assertEqual((figure.median, figure.least, figure.most), (20.0, 10.0, 30.0))
        self.assertEqual(medians.wrong("converse-1k", "bare"), "3 answers without success")

    def test_what_is_added_is_to_direct_of_the_same_pass(self):
        rows = [row("direct", 1, p50_us=100), row("direct", 2, p50_us=200), row("bare", 1, p50_us=150),
                row("bare", 2, p50_us=210)]
        figure = Medians(rows).get("added_p50_us", "converse-1k", "bare")
        self.assertEqual((figure.least, figure.most), (10, 50))


class Verdicts(unittest.TestCase):
    def verdict(self, begins, rows):
        return next(goal for goal in goals.GOALS if goal.text.startswith(begins)).verdict(Medians(rows))

    def test_a_goal_is_reached_missed_or_not_measured(self):
        text = "`dheera` takes at most 1.4"
        bare = row("bare", 1, cpu_us=20.0)
        self.assertEqual(self.verdict(text, [bare, row("dheera", 1, cpu_us=28.0)]).state, "reached")
        missed = self.verdict(text, [bare, row("dheera", 1, cpu_us=29.0)])
        self.assertEqual((missed.state, missed.measured), ("missed", "29.0 µs, bare 20.0 µs: 1.45 ×"))
        self.assertEqual(self.verdict(text, [bare]).state, "not measured")

    def test_a_curve_that_was_not_followed_to_its_end_is_not_reached(self):
        text = "1,000,000 keys"
        flat = [row("dheera", 1, "growth-keys", point, cpu_us=10.0) for point in (10, 100_000)]
        self.assertEqual(self.verdict(text, flat).state, "not measured")
        steep = [flat[0], row("dheera", 1, "growth-keys", 100_000, cpu_us=12.0)]
        self.assertEqual(self.verdict(text, steep).state, "missed")
        whole = [*flat, row("dheera", 1, "growth-keys", 1_000_000, cpu_us=11.0)]
        self.assertEqual(self.verdict(text, whole).state, "reached")

    def test_memory_that_grows_is_noticed(self):
        text = "the memory of `dheera`"
        flat = row("dheera", 1, "soak", rss_samples_kb=[10, 100, 100, 101, 100, 100, 101, 100])
        self.assertEqual(self.verdict(text, [flat]).state, "reached")
        grows = row("dheera", 1, "soak", rss_samples_kb=[10, 100, 110, 120, 130, 140, 150, 160])
        self.assertEqual(self.verdict(text, [grows]).state, "missed")

    def test_what_did_not_run_is_in_the_report(self):
        rows = [row("bare", 1, cpu_us=20.0) | {"rss": 1},
                {"scenario": "converse-1k", "point": None, "target": "nginx", "pass": 1, "not_run": "nginx is not there"}]
        text = report.section(Medians(rows), "converse-1k", "Converse")
        self.assertIn("- nginx: nginx is not there", text)
        self.assertIn("| bare | 20.0 (20.0..20.0) |", text)


class Bodies(unittest.TestCase):
    def test_bodies_have_their_size_and_are_json(self):
        for make, size in ((bodies.converse, 1000), (bodies.converse, 16_000), (bodies.document, 1_000_000)):
            body = make(size)
            json.loads(body)
            self.assertAlmostEqual(len(body), size, delta=4)

    def test_a_turn_of_an_agent_is_about_as_long_as_asked(self):
        body = bodies.claude_turn(200_000)
        self.assertAlmostEqual(len(body), 200_000, delta=2000)
        self.assertEqual(json.loads(body)["messages"][-1]["role"], "user")


class Processes(unittest.TestCase):
    def test_one_that_ends_says_why(self):
        with tempfile.TemporaryDirectory() as directory:
            process = Process("short", ["sh", "-c", "echo no such thing >&2; exit 3"], Path(directory), 0)
            with self.assertRaisesRegex(Failed, "short ended with 3: no such thing"):
                process.said("LISTENING on (.*)")
            process.stop()

    def test_children_end_with_it(self):
        with tempfile.TemporaryDirectory() as directory:
            process = Process("parent", ["sh", "-c", "sleep 600 & echo CHILD $!; wait"], Path(directory), 0)
            child = int(process.said(r"CHILD (\d+)"))
            self.assertIn(child, measure.tree([process.pid], measure.stats()))
            process.stop()
            # It has its signal, and may still be about to go.
            until(lambda: not self.lives(child), "the child to end")
            self.assertGreater(free_port(), 0)

    def lives(self, pid):
        try:
            return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False


if __name__ == "__main__":
    unittest.main()
