# SPDX-License-Identifier: MIT
"""Runs experiments round by round and judges their claims. A round is one slice of every variant, in turn, so that
whatever drifts, drifts for all of them."""
import contextlib
import os
import pathlib
import shlex
import statistics
import sys

import machine
import report
from experiments import EXPERIMENTS
from peers import Failed, NotAvailable, Stage

PAIRS_MIN = 7
FOREIGN_MAX = 0.05  # of all cores, in any slice of a round
SLICE_S, QUICK_SLICE_S = 1.0, 0.25


def measure_round(variants, seconds):
    """One slice of every variant; also the greatest foreign share of the machine in any of them."""
    results, foreign = {}, 0
    for name, variant in variants.items():
        watch = machine.Watch()
        results[name] = variant.measure(seconds)
        foreign = max(foreign, watch.share())
    return {"foreign": foreign, "variants": results}


def is_sound(result):
    return all(slice["count"] > 0 and not slice["errors"] and not slice["lost"]
               for slice in result["variants"].values())


def measure(variants, pairs, seconds):
    """Rounds until `pairs` are undisturbed, but at most twice as many."""
    rounds = []
    while len(rounds) < 2 * pairs and sum(each["foreign"] <= FOREIGN_MAX for each in rounds) < pairs:
        rounds.append(measure_round(variants, seconds))
    return rounds


def judge(claim, rounds):
    """The claim's ratio over the rounds that count, and whether it may be claimed."""
    broken = sum(not is_sound(each) for each in rounds)
    clean = [each for each in rounds if each["foreign"] <= FOREIGN_MAX]
    ratios = sorted(each["variants"]["proxyd"][claim.figure] / each["variants"][claim.reference][claim.figure]
                    for each in (clean or rounds) if is_sound(each))
    verdict = {"text": claim.text, "reference": claim.reference, "reach": claim.reach, "aim": claim.aim,
               "at_most": claim.at_most, "pairs": len(clean), "rounds": len(rounds)}
    if ratios:
        verdict |= {"ratio": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}
    if broken:
        return verdict | {"verdict": f"not claimed: wrong or lost messages in {broken} of {len(rounds)} rounds"}
    if len(clean) < PAIRS_MIN:
        why = "foreign load" if len(rounds) > len(clean) else "too few"
        return verdict | {"verdict": f"not claimed: {len(clean)} undisturbed pairs of {len(rounds)} ({why})"}
    ratio = verdict["ratio"]
    is_reached = ratio <= claim.reach if claim.at_most else ratio >= claim.reach
    return verdict | {"verdict": "reached" if is_reached else "missed"}


def run_experiment(experiment, scratch, pairs, seconds):
    folder = pathlib.Path(scratch) / experiment.name
    folder.mkdir()
    result = {"name": experiment.name, "title": experiment.title, "rounds": []}
    try:
        with Stage(folder) as stage:
            result["rounds"] = measure(experiment.set_up(stage), pairs, seconds)
        result["claims"] = [judge(claim, result["rounds"]) for claim in experiment.claims]
    except (NotAvailable, Failed) as error:
        word = "not available" if isinstance(error, NotAvailable) else "failed"
        result["claims"] = [{"text": claim.text, "reference": claim.reference, "reach": claim.reach, "aim": claim.aim,
                             "at_most": claim.at_most, "pairs": 0, "rounds": 0, "verdict": f"{word}: {error}"}
                            for claim in experiment.claims]
    return result


def chosen(options):
    for experiment in EXPERIMENTS:
        if options.names:
            if any(experiment.name.startswith(name) for name in options.names):
                yield experiment
        elif experiment.quick or not options.quick:
            yield experiment


def run_all(scratch, options):
    seconds = options.slice or (QUICK_SLICE_S if options.quick else SLICE_S)
    results = {"machine": machine.describe(), "command": shlex.join(["tests/bench/run", *sys.argv[1:]]),
               "pairs": options.pairs, "slice_s": seconds, "load_before": machine.load_average(), "experiments": []}
    for experiment in chosen(options):
        result = run_experiment(experiment, scratch, options.pairs, seconds)
        results["experiments"].append(result)
        for claim in result["claims"]:
            print(report.claim_line(claim), flush=True)
    results["load_after"] = machine.load_average()
    return results
