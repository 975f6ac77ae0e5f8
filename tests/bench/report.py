# SPDX-License-Identifier: MIT
"""Writes what was measured: table.md with its plots, and the README's section."""
import pathlib
import shutil

import plots
from plots import median

FIGURES = [("rate", "/s", "{:,.0f}"), ("p50_us", "p50 us", "{:,.0f}"), ("p99_us", "p99 us", "{:,.0f}"),
           ("p999_us", "p99.9 us", "{:,.0f}"), ("cpu_us", "CPU us", "{:.2f}"), ("switches", "switches", "{:.2f}"),
           ("rss_kib", "RSS MiB", "{:.1f}")]


def bound(claim, value):
    return "–" if value is None else f"{'<=' if claim['at_most'] else '>='} {value:g}"


def ratio_text(claim):
    return f"{claim['ratio']:.2f} ({claim['low']:.2f}–{claim['high']:.2f})" if "ratio" in claim else "–"


def claim_line(claim):
    return (f"{claim['text']} : {claim['reference']}  {ratio_text(claim)}  reach {bound(claim, claim['reach'])}  "
            f"{claim['pairs']}/{claim['rounds']} pairs  {claim['verdict']}")


def table_of(claims):
    yield "| what | reference | reach | then aim at | measured (median, range) | pairs | verdict |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for claim in claims:
        yield (f"| {claim['text']} | {claim['reference']} | {bound(claim, claim['reach'])} | "
               f"{bound(claim, claim['aim'])} | {ratio_text(claim)} | {claim['pairs']} of {claim['rounds']} | "
               f"{claim['verdict']} |")


def table_of_figures(experiments):
    yield "| load | variant | " + " | ".join(title for _, title, _ in FIGURES) + " |"
    yield "| --- | --- |" + " ---: |" * len(FIGURES)
    for experiment in experiments:
        rounds = experiment["rounds"]
        for variant in rounds[0]["variants"] if rounds else ():
            values = []
            for figure, _, form in FIGURES:
                value = median(rounds, variant, figure)
                is_known = value > 0 and not (variant == "direct" and figure in ("cpu_us", "switches", "rss_kib"))
                values.append(form.format(value / 1024 if figure == "rss_kib" else value) if is_known else "–")
            yield f"| {experiment['title']} | {variant} | " + " | ".join(values) + " |"


def scale_lines(found):
    yield f"\n## {found['title']}\n"
    yield from found["lines"]
    yield f"\nOther processes took {found['foreign']:.0%} of the machine meanwhile."


def claims_of(results):
    return [claim for experiment in results["experiments"] for claim in experiment["claims"]]


def markdown(results):
    yield "# proxyd beside its references, and at scale\n"
    for name, value in results["machine"]:
        yield f"- {name}: {value}"
    yield f"- command: `{results['command']}`"
    yield f"- load average before: {results['load_before']:.2f}"
    yield (f"- {results['pairs']} rounds of {results['slice_s']:g} s slices, variants in turn; medians of the rounds' "
           "ratios. Client, proxy and server share the machine. A round does not count when other processes or the "
           "hypervisor took more than 5 % of the machine; fewer than 7 that count claim nothing.\n")
    yield "## Ratios (proxyd : reference)\n"
    yield from table_of(claims_of(results))
    yield "\n## Figures\n"
    yield "Medians over all rounds. CPU and context switches are the proxy's, per message, over all its threads.\n"
    yield from table_of_figures(results["experiments"])
    for found in results["scale"]:
        yield from scale_lines(found)
    yield ""


def write(results, out):
    (out / "table.md").write_text("\n".join(markdown(results)))
    plots.draw_all(results["experiments"], out)
    print(f"{out}/table.md and the plots beside it")


# ---- the README ----

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURE = "etc/performance.svg"
BEGIN, END = "<!-- make bench-publish writes from here -->\n", "<!-- to here -->\n"


def command_of(options):
    """How a user would ask for the same."""
    if options.names or options.slice or options.pairs != 7:
        return "tests/bench/run build …"
    return "make bench-quick" if options.quick else "make bench-scale" if options.scale else "make bench"


def readme_section(results):
    facts = dict(results["machine"])
    yield (f"Measured on {facts['date']} by `{results['command']}` on {facts['machine']}, {facts['kernel']}, libzmq "
           f"{facts['libzmq']}: medians of {results['pairs']} interleaved pairs, client, proxy and server on the same "
           "machine. A ratio is proxyd's figure to the reference's.\n")
    yield f"![each ratio with its range, and what is to be reached]({PICTURE})\n"
    yield "| what | reference | to reach | measured | |"
    yield "| --- | --- | ---: | ---: | --- |"
    for claim in claims_of(results):
        yield (f"| {claim['text']} | {claim['reference']} | {bound(claim, claim['reach'])} | "
               + (f"{claim['ratio']:.2f}" if "ratio" in claim else "–") + f" | {claim['verdict'].split(':')[0]} |")
    for claim in (claim for found in results["scale"] for claim in found["claims"]):
        yield (f"| {claim['text']} | | <= {claim['reach']:g} {claim['unit']} | {claim['value']:.2f} {claim['unit']} | "
               f"{claim['verdict'].split(':')[0]} |")


def publish(results, out):
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(before + BEGIN + "\n" + "\n".join(readme_section(results)) + "\n\n" + END + after)
    shutil.copyfile(out / "ratios.svg", ROOT / PICTURE)
    print(f"README.md and {PICTURE}, from {out}/results.json")
