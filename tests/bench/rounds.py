# SPDX-License-Identifier: MIT
"""Runs experiments round by round and judges their claims. A round is one slice of every variant, in turn, so that
whatever drifts, drifts for all of them."""
import hashlib
import json
import pathlib
import statistics

import machine
import report
import scale
from experiments import EXPERIMENTS
from peers import Failed, NotAvailable, Stage

PAIRS_MIN = 7
SLICE_S, QUICK_SLICE_S = 1.0, 0.25
QUICK_REPEATS = 2  # of disturbed rounds; otherwise as many as there are pairs
ATTEMPTS = 2


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


def measure(variants, pairs, most, seconds):
    """Rounds until `pairs` are undisturbed, but at most `most`."""
    rounds = []
    while len(rounds) < most and sum(each["foreign"] <= machine.FOREIGN_MAX for each in rounds) < pairs:
        rounds.append(measure_round(variants, seconds))
    return rounds


def judge(claim, rounds):
    """The claim's ratio over the rounds that count, and whether it may be claimed."""
    broken = sum(not is_sound(each) for each in rounds)
    clean = [each for each in rounds if each["foreign"] <= machine.FOREIGN_MAX]
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


def try_experiment(experiment, folder, options):
    most = options.pairs + QUICK_REPEATS if options.quick else 2 * options.pairs
    with Stage(folder) as stage:
        return measure(experiment.set_up(stage), options.pairs, most, slice_s(options))


def run_experiment(experiment, scratch, options):
    """Once more when it failed: a port that was free may be taken the moment after."""
    result = {"name": experiment.name, "title": experiment.title, "rounds": []}
    for attempt in range(ATTEMPTS):
        folder = pathlib.Path(scratch) / f"{experiment.name}.{attempt}"
        folder.mkdir()
        try:
            result["rounds"] = try_experiment(experiment, folder, options)
            result["claims"] = [judge(claim, result["rounds"]) for claim in experiment.claims]
            return result
        except NotAvailable as error:
            verdict = f"not available: {error}"
            break
        except (Failed, AssertionError, OSError) as error:
            verdict = f"failed: {error}"
    result["claims"] = [{"text": claim.text, "reference": claim.reference, "reach": claim.reach, "aim": claim.aim,
                         "at_most": claim.at_most, "pairs": 0, "rounds": 0, "verdict": verdict}
                        for claim in experiment.claims]
    return result


def is_wanted(name, options):
    return not options.names or any(name.startswith(wanted) for wanted in options.names)


def is_due(experiment, options):
    """Named ones are run whatever they are; of the others those that belong to the run."""
    return is_wanted(experiment.name, options) and (
        bool(options.names) or (not experiment.by_name and (experiment.quick or not options.quick)))


def slice_s(options):
    return options.slice or (QUICK_SLICE_S if options.quick else SLICE_S)


def begin(options, out):
    """Results without any yet; with --again those of the last run that claimed something, if it was of this daemon."""
    results = {"machine": machine.describe(), "command": report.command_of(options),
               "daemon": hashlib.sha256((options.build / "proxyd").read_bytes()).hexdigest(),
               "pairs": options.pairs, "slice_s": slice_s(options), "load_before": machine.load_average(),
               "experiments": [], "scale": []}
    last = out / "results.json"
    last = json.loads(last.read_text()) if options.again and last.exists() else {}
    if any(last.get(same) != results[same] for same in ("daemon", "pairs", "slice_s")):
        return results
    results |= {"machine": machine.describe(since=last["machine"]), "command": "make bench bench-again"}
    for part in ("experiments", "scale"):
        results[part] = [each for each in last[part] if is_settled(each)]
    return results


def is_settled(result):
    """Whether measuring once more could claim no more."""
    claims = result["claims"]
    return all(claim["verdict"] in ("reached", "missed") for claim in claims) and (
        bool(claims) or result["foreign"] <= machine.FOREIGN_MAX)


def run_all(scratch, options, out, results):
    for experiment in () if options.scale else EXPERIMENTS:
        if is_due(experiment, options) and is_missing(experiment.name, results["experiments"]):
            results["experiments"].append(run_experiment(experiment, scratch, options))
            for claim in results["experiments"][-1]["claims"]:
                print(report.claim_line(claim), flush=True)
    for name, each in () if options.quick else scale.RUNS.items():
        if is_wanted(name, options) and is_missing(name, results["scale"]):
            results["scale"].append(scale.run(name, each, scratch, out))
            print("\n".join(report.scale_lines(results["scale"][-1])), flush=True)


def is_missing(name, results):
    return all(result["name"] != name for result in results)


def finish(results):
    """In the order in which they would have been measured in one run."""
    for part, names in ("experiments", [each.name for each in EXPERIMENTS]), ("scale", list(scale.RUNS)):
        results[part].sort(key=lambda result: names.index(result["name"]))
