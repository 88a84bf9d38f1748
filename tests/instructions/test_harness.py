"""The harness itself, which has to notice every growth it looks for."""

import argparse
import contextlib
import dataclasses
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))

import measure
import run
from baseline import Baseline, Comparison, Maker, features
from counts import Profile, function

ANNOTATED = """\
--------------------------------------------------------------------------------
Profile data file 'piece.out' (creator: callgrind-3.19.0)
--------------------------------------------------------------------------------
Ir
--------------------------------------------------------------------------------
2,000 (100.0%)  PROGRAM TOTALS

--------------------------------------------------------------------------------
Ir                  file:function
--------------------------------------------------------------------------------
1,200 (60.00%)  /src/aws/route/path.rs:dheera_ai::aws::route::path::check [/target/instructions]
  300 (15.00%)  /lib/core/src/str/mod.rs:dheera_ai::aws::route::path::check::h0123456789abcdef
  400 (20.00%)  ???:__memcpy_avx_unaligned_erms [/lib/libc.so.6]
  100 ( 5.00%)  /lib/alloc.rs:<alloc::vec::Vec<T> as core::fmt::Debug>::fmt'2
"""
MAKER = Maker(rustc="rustc 1.95.0", valgrind="valgrind-3.19.0", libc="glibc 2.36", cpu="x86_64: avx2")


def profile(total, **functions):
    return Profile(total, functions)


class Counting(unittest.TestCase):
    def test_lines_of_a_function_are_added(self):
        read = Profile.of(ANNOTATED)
        self.assertEqual(read.instructions, 2_000)
        self.assertEqual(read.largest(2), {"dheera_ai::aws::route::path::check": 1_500, "__memcpy_avx_unaligned_erms": 400})
        self.assertEqual(read.each(100).instructions, 20)

    def test_names_are_those_of_the_source(self):
        for what, name in {
            "???:read'2": "read",
            "a.rs:x::y::h0123456789abcdef [/bin/x]": "x::y",
            "a.rs:<a::B as c::D>::e": "<a::B as c::D>::e",
            "a.rs:f::{{closure}}.llvm.123": "f::{{closure}}",
        }.items():
            self.assertEqual(function(what), name)

    def test_an_answer_without_a_total_is_refused(self):
        self.assertRaises(ValueError, Profile.of, "callgrind_annotate: no such file")

    def test_what_two_runs_have_in_common_cancels_out(self):
        few, many = profile(1_300, start=1_000, serve=300), profile(1_900, start=1_000, serve=900)
        self.assertEqual(many.beyond(few).each(2), Profile(300, {"start": 0, "serve": 300}))

    def test_the_thread_that_serves_is_told_from_the_others(self):
        with tempfile.TemporaryDirectory(prefix="instructions-harness-") as made:
            directory = Path(made)
            # The unnumbered one is empty: callgrind has it for what no thread did.
            for name, text in ("", ""), ("-01", "fn=(1) main\n"), ("-10", f"fn=(7) pingora_proxy{measure.SERVING}x\n"):
                (directory / f"callgrind.out{name}").write_text(text)
            self.assertEqual(measure.worker(directory).name, "callgrind.out-10")
            (directory / "callgrind.out-10").unlink()
            self.assertRaises(SystemExit, measure.worker, directory)


class Comparing(unittest.TestCase):
    def compare(self, now):
        return Comparison("case", profile(1_000, a=600, b=400), now, 0.05)

    def test_growth_and_its_functions_are_told(self):
        found = self.compare(profile(1_060, a=590, b=410, new=60))
        self.assertTrue(found.grew and not found.shrank)
        self.assertIn("+6.00%  TOO MANY", found.told())
        self.assertEqual(found.growth(), [("new", 0, 60), ("b", 400, 410)])

    def test_five_percent_are_tolerated_both_ways(self):
        for total in (950, 1_000, 1_050):
            found = self.compare(profile(total))
            self.assertFalse(found.grew or found.shrank, total)

    def test_fewer_are_told(self):
        self.assertTrue(self.compare(profile(940)).shrank)


class Making(unittest.TestCase):
    def test_every_difference_of_the_maker_is_named(self):
        self.assertEqual(MAKER.differences(MAKER), [])
        other = dataclasses.replace(MAKER, rustc="rustc 1.96.0", cpu="x86_64: avx")
        self.assertEqual(MAKER.differences(other), [
            "rustc: rustc 1.95.0 in the baseline, rustc 1.96.0 here",
            "cpu: x86_64: avx2 in the baseline, x86_64: avx here",
        ])

    def test_of_the_processor_only_what_changes_code_counts(self):
        self.assertEqual(features("flags\t\t: fpu sse4_2 avx2 md_clear\nbugs: x\n"), "avx2 sse4_2")

    def test_programs_are_found_in_what_cargo_tells(self):
        messages = [
            {"reason": "compiler-artifact", "target": {"name": "dheera_ai"}, "executable": None},
            {"reason": "compiler-artifact", "target": {"name": "dheera_ai"}, "executable": "/t/dheera_ai"},
            {"reason": "build-finished", "success": True},
        ]
        self.assertEqual(measure.executables("\n".join(map(json.dumps, messages))), {"dheera_ai": Path("/t/dheera_ai")})


class Running(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="instructions-harness-")
        self.addCleanup(directory.cleanup)
        self.file = Path(directory.name) / "baseline.json"
        self.options = argparse.Namespace(only=None, file=self.file, directory=Path(directory.name))
        self.enterContext(mock.patch.object(Maker, "here", return_value=MAKER))

    def work(self, action, *figures):
        """Status and text of an action that sees these figures, one after the other."""
        seen = (profile(figure, f=figure) for figure in figures)
        one = [("a/case", run.SPREAD_OF_PIECE, lambda: next(seen))]
        out = io.StringIO()
        with (
            mock.patch.object(run, "measures", return_value=one),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
        ):
            status = action(self.options)
        return status, out.getvalue()

    def make(self, *figures):
        return self.work(lambda options: run.make(None, options), *figures)

    def check(self, *figures):
        return self.work(lambda options: run.check(None, Baseline.load(self.file), options), *figures)

    def test_what_was_stored_is_compared_with(self):
        self.assertEqual(self.make(1_000, 1_001)[0], run.GOOD)
        self.assertEqual(Baseline.load(self.file).cases, {"a/case": profile(1_000, f=1_000)})
        self.assertEqual(self.check(1_040)[0], run.GOOD)
        status, text = self.check(1_060)
        self.assertEqual(status, run.GREW)
        self.assertIn("1,000 ->        1,060  f", text)
        status, text = self.check(900)
        self.assertEqual(status, run.GOOD)
        self.assertIn("lower the baseline: make bench-baseline", text)

    def test_figures_that_are_not_repeatable_are_not_stored(self):
        status, text = self.make(1_000, 1_010)
        self.assertEqual((status, self.file.exists()), (run.GREW, False))
        self.assertIn("not repeatable, nothing stored: a/case", text)

    def test_one_case_alone_leaves_the_others(self):
        Baseline("2026-11-23", MAKER, {"a/case": profile(9), "b/case": profile(7)}).store(self.file)
        self.options.only = ["a/"]
        self.assertEqual(self.make(10, 10)[0], run.GOOD)
        self.assertEqual({name: case.instructions for name, case in Baseline.load(self.file).cases.items()},
                         {"a/case": 10, "b/case": 7})

    def test_a_case_that_nobody_has_measured_before_fails(self):
        Baseline("2026-11-23", MAKER, {"gone": profile(9)}).store(self.file)
        status, text = self.check(1)
        self.assertEqual(status, run.GREW)
        self.assertIn("a/case                           is not in the baseline", text)
        self.assertIn("not measured any more: gone", text)

    def main(self):
        """Status and errors of a check that must not come as far as building anything."""
        err = io.StringIO()
        with (
            mock.patch.object(sys, "argv", ["run.py", "check", "--file", str(self.file)]),
            mock.patch.object(measure, "build", side_effect=AssertionError("built")),
            contextlib.redirect_stderr(err),
        ):
            return run.main(), err.getvalue()

    def test_a_baseline_that_is_not_there_is_asked_for(self):
        status, text = self.main()
        self.assertEqual(status, run.NOT_COMPARABLE)
        self.assertIn("make bench-baseline", text)

    def test_another_compiler_is_said_before_anything_is_built(self):
        Baseline("2026-11-23", dataclasses.replace(MAKER, rustc="rustc 1.0"), {}).store(self.file)
        status, text = self.main()
        self.assertEqual(status, run.NOT_COMPARABLE)
        self.assertIn("rustc: rustc 1.0 in the baseline, rustc 1.95.0 here", text)
        self.assertIn("make bench-baseline", text)


if __name__ == "__main__":
    unittest.main()
