"""Runs the jobs of a study on all cores, and keeps what is done: an interrupted study continues where it stopped."""

import concurrent.futures
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import threading
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.config import Config
from experiments.environment import environment
from experiments.evidence.measure import Job, measure, settings
from experiments.running.compiled import keep_compiled

CACHE = Path("runs") / "compiled"
"""Where compiled steps are kept from one process to the next."""


def run(jobs: list[Job], path: Path, console: Console, workers: int) -> dict[str, Any]:
    """Runs the jobs that the file does not hold yet, and returns its content.

    A job is done if the file holds a run with its label, seed and settings. Rows that no job names any more are
    dropped. The file is replaced after every job, so that nothing is lost when the study is stopped.

    Args:
      jobs: the jobs; those of one label share all settings but the seed.
      path: the JSON file.
      console: receives one line per job.
      workers: processes; each keeps to one core.
    """
    old = read(path)["rows"] if path.exists() else {}
    rows = _rows(jobs, old)
    todo = [job for job in jobs if job.config.seed not in {done["seed"] for done in rows[job.label]["runs"]}]
    console.print(f"{path}: {len(jobs) - len(todo)} of {len(jobs)} runs are done", highlight=False)
    if todo:
        context = multiprocessing.get_context("spawn")
        cores = context.Queue()
        known = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
        for core in itertools.islice(itertools.cycle(known), workers):
            cores.put(core)
        with concurrent.futures.ProcessPoolExecutor(workers, context, _settle, (cores,)) as pool:
            futures = {pool.submit(measure, job): job for job in todo}
            for future in concurrent.futures.as_completed(futures):
                job, result = futures[future], future.result()
                rows[job.label]["runs"].append(result)
                rows[job.label]["runs"].sort(key=lambda done: done["seed"])
                _write(path, rows)
                console.print(
                    f"{job.config.dataset}: {job.label}, seed {job.config.seed}: validation "
                    f"{result['validation'][-1][1]:.2%}, test {result['test']:.2%}, {result['seconds']:.0f} s",
                    highlight=False,
                    soft_wrap=True,
                )
    elif rows != old:
        _write(path, rows)  # not otherwise: command and versions are those of the process that ran the jobs
    return read(path)


def read(path: Path) -> dict[str, Any]:
    """Returns a study's file.

    Raises:
      FileNotFoundError: the study has not been run.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: this study has not been run yet; run `python -m experiments.evidence`.")
    return json.loads(path.read_text())


def _rows(jobs: list[Job], old: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of the jobs, with the old runs that have the same settings."""
    rows: dict[str, dict[str, Any]] = {}
    for job in jobs:
        wanted = settings(job.config)
        known = old.get(job.label, {})
        # A setting that a run does not know came later: it was made with the default.
        same = {**settings(Config(dataset="")), **known.get("settings", {})} == wanted
        runs = known["runs"] if same else []
        rows.setdefault(job.label, {"settings": wanted, "runs": list(runs)})
    return rows


def _write(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    content = {**environment(), "rows": rows}
    partial.write_text(_compact(content) + "\n")
    partial.replace(path)


def _compact(content: dict[str, Any]) -> str:
    """JSON with one line per run: readable, and with small differences between versions."""
    head = {key: value for key, value in content.items() if key != "rows"}
    rows = []
    for label, row in content["rows"].items():
        runs = ",\n    ".join(json.dumps(run) for run in row["runs"])
        settings = json.dumps(row["settings"])
        rows.append(f'  {json.dumps(label)}: {{\n   "settings": {settings},\n   "runs": [\n    {runs}\n   ]\n  }}')
    return json.dumps(head, indent=1)[:-2] + ',\n "rows": {\n' + ",\n".join(rows) + "\n }\n}"


def _settle(cores: Any) -> None:
    """Pins a worker to its own core, lets it use what others have compiled, and ends it when its study dies."""
    core = cores.get()
    if core is not None:  # some systems leave it to themselves
        os.sched_setaffinity(0, {core})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_compiled(CACHE)


def _end_with_parent() -> None:
    # A pool's worker outlives a parent that was killed, and would continue with the jobs that it had received.
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
