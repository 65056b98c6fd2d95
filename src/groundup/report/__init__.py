"""The report room: what a run left behind, as one HTML page, one JSON file and one line in a list.

It reads run folders and nothing else: no tensor, no model, no tokenizer enters here, and torch is never
imported, so that a report can be made of any run on any machine, a crashed or a foreign one included.

    write_report(folder)            # report.json and report.html
    summarize(collect(folder))      # the content of report.json
    find_runs(folder), compare(a, b)
"""

from groundup.report.collect import RunRecord, collect, is_run
from groundup.report.page import render
from groundup.report.runs import Comparison, compare, find_runs, require_run, run_line, stages_of
from groundup.report.summary import summarize
from groundup.report.write import write_report

__all__ = [
    "Comparison",
    "RunRecord",
    "collect",
    "compare",
    "find_runs",
    "is_run",
    "render",
    "require_run",
    "run_line",
    "stages_of",
    "summarize",
    "write_report",
]
