# SPDX-License-Identifier: MIT
"""Draws by gnuplot, as SVG and PNG, each plot from a data file that stays beside it."""
import statistics
import subprocess

BARS = {"reached": 0x2a9d55, "missed": 0xc0392b}
UNCLAIMED = 0xaaaaaa


def median(rounds, variant, figure):
    return statistics.median(each["variants"][variant][figure] for each in rounds)


def plot(out, name, data, script, size="900,600"):
    """Draws BUILD/bench/NAME.svg and .png from `data` (lines) by the gnuplot commands `script`."""
    (out / f"{name}.dat").write_text("\n".join(data) + "\n")
    for terminal, ending in (f"svg size {size} dynamic background 'white' font 'sans,13'", "svg"), \
                            (f"pngcairo size {size} font 'sans,10'", "png"):
        commands = f"set terminal {terminal}\nset output '{out}/{name}.{ending}'\ndata = '{out}/{name}.dat'\n{script}"
        subprocess.run(["gnuplot"], input=commands, text=True, check=True)


def plot_ratios(experiments, out):
    claims = [claim for experiment in experiments for claim in experiment["claims"] if "ratio" in claim]
    if not claims:
        return
    data = [f'"{claim["text"]} : {claim["reference"]}{" (less is better)" * claim["at_most"]}"\t{len(claims) - i}\t{claim["ratio"]}\t{claim["low"]}\t'
            f'{claim["high"]}\t{claim["reach"]}\t{BARS.get(claim["verdict"], UNCLAIMED)}'
            for i, claim in enumerate(claims)]
    plot(out, "ratios", data, f"""
set title "proxyd : reference" noenhanced
set logscale x 2
set xlabel "ratio (x: to be reached; green: reached, red: missed, grey: not claimed)"
set format x "%g"
set yrange [0.3:{len(claims)}.7]
set grid x
set tics nomirror
set ytics noenhanced
set style fill solid
unset key
set lmargin at screen 0.48
plot data using (1):2:(1):3:($2-0.32):($2+0.32):7:ytic(stringcolumn(1)) with boxxyerror lc rgb variable, \\
     data using 3:2:4:5 with xerrorbars lc rgb "black" pt 0, \\
     data using 6:2 with points pt 2 ps 1.2 lw 2 lc rgb "#1f3a93"
""", f"1100,{140 + 26 * len(claims)}")


def by_callers(experiments, prefix):
    """{callers: rounds} of the experiments PREFIX-N."""
    found = {}
    for experiment in experiments:
        start, _, number = experiment["name"].rpartition("-")
        if start == prefix and number.isdigit() and experiment["rounds"]:
            found[int(number)] = experiment["rounds"]
    return dict(sorted(found.items()))


def curves(rounds_by_x, variants, figure):
    """Lines `x y1 y2 …`, a column for each variant, "?" where it was not measured."""
    for x, rounds in rounds_by_x.items():
        values = [str(median(rounds, variant, figure)) if variant in rounds[0]["variants"] else "?"
                  for variant in variants]
        yield " ".join([str(x), *values])


def plot_curves(out, name, rounds_by_x, variants, figure, title, label):
    present = [variant for variant in variants
               if any(variant in rounds[0]["variants"] for rounds in rounds_by_x.values())]
    if len(rounds_by_x) < 2:
        return
    lines = ", ".join(f"data using 1:{column} with linespoints lw 2 pt 7 title '{variant}' noenhanced"
                      for column, variant in enumerate(present, 2))
    plot(out, name, curves(rounds_by_x, present, figure), f"""
set title "{title}"
set logscale x 2
set logscale y
set format y "%.0s%c"
set xlabel "callers"
set ylabel "{label}"
set datafile missing "?"
set grid
set key left top
plot {lines}
""")


def plot_latency(experiments, out):
    callers = by_callers(experiments, "calls")
    if not callers:
        return
    data = [" ".join([f'"{count} caller{"s" * (count > 1)}"',
                      *(str(median(rounds, variant, figure)) for figure in ("p50_us", "p99_us", "p999_us")
                        for variant in ("proxyd", "zmq_proxy"))]) for count, rounds in callers.items()]
    bars = ", ".join(f"data using {column}:xtic(1) title '{variant} {name}' noenhanced lc rgb '{colour}'"
                     for column, variant, name, colour in (
                         (2, "proxyd", "p50", "#1f77b4"), (3, "zmq_proxy", "p50", "#ffbb78"),
                         (4, "proxyd", "p99", "#2c5f8a"), (5, "zmq_proxy", "p99", "#ff9933"),
                         (6, "proxyd", "p99.9", "#14324a"), (7, "zmq_proxy", "p99.9", "#b35900")))
    plot(out, "latency", data, f"""
set title "Round trip of a call, 32 B"
set style data histograms
set style histogram clustered gap 1
set style fill solid
set logscale y
set ylabel "microseconds"
set grid y
set key left top
plot {bars}
""")


def draw_all(experiments, out):
    plot_ratios(experiments, out)
    plot_curves(out, "callers", by_callers(experiments, "calls"), ["direct", "zmq_proxy", "proxyd", "pyzmqrpc3"],
                "rate", "Calls per second, 32 B", "calls/s")
    plot_curves(out, "buffered", by_callers(experiments, "buffered"), ["proxyd", "disk"], "rate",
                "Durable acks per second, and what the disk can sync", "acks/s")
    plot_latency(experiments, out)
