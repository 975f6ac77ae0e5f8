# SPDX-License-Identifier: MIT
"""Reads Prometheus' text format 0.0.4, and takes nothing for granted: what a scraper might let pass fails here."""
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")
TYPES = ("counter", "gauge", "histogram")


class Metrics:
    """`families`: name -> (type, help). `samples`: (name, frozenset of labels) -> value."""

    def __init__(self, text):
        self.families, self.samples = {}, {}
        assert text.endswith("\n")
        family = None
        lines = iter(text[:-1].split("\n"))
        for line in lines:
            if line.startswith("#"):
                family = self._begin(line, next(lines))
            else:
                self._add(family, line)
        for name, (kind, _) in self.families.items():
            if kind == "histogram":
                self._check_histogram(name)

    def _begin(self, help_line, type_line):
        name, text = re.fullmatch(rf"# HELP ({NAME}) (\S.*)", help_line).groups()
        assert name not in self.families, f"{name} comes twice, or is torn apart"
        kind = type_line.removeprefix(f"# TYPE {name} ")
        assert kind in TYPES, type_line
        assert (kind == "counter") == name.endswith("_total"), type_line
        self.families[name] = (kind, text)
        return name

    def _add(self, family, line):
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, labels = match[1], re.findall(LABEL, match[2] or "")
        suffixes = ("_bucket", "_sum", "_count") if self.families[family][0] == "histogram" else ("",)
        assert name in [family + suffix for suffix in suffixes], f"{line} in family {family}"
        values = {key: re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), value)
                  for key, value in labels}
        assert len(values) == len(labels), f"a label comes twice: {line}"
        series = (name, frozenset(values.items()))
        assert series not in self.samples, f"a series comes twice: {line}"
        self.samples[series] = float(match[match.lastindex])
        assert self.samples[series] >= 0, line

    def _check_histogram(self, name):
        for (sample, labels), count in self.samples.items():
            if sample != f"{name}_count":
                continue
            buckets = [(float(dict(each)["le"]), value) for (bucket, each), value in self.samples.items()
                       if bucket == f"{name}_bucket" and each - {("le", dict(each)["le"])} == labels]
            bounds, counts = zip(*buckets)
            assert list(bounds) == sorted(set(bounds)) and list(counts) == sorted(counts)
            assert bounds[-1] == float("inf") and counts[-1] == count
            assert (f"{name}_sum", labels) in self.samples

    def value(self, name, **labels):
        return self.samples[name, frozenset(labels.items())]

    def sum(self, name, **labels):
        return sum(value for (each, found), value in self.samples.items()
                   if each == name and labels.items() <= dict(found).items())

    def balance(self, chain):
        """What the ledger of a chain is off by."""
        names = ("delivered_total", "failed_total", "expired_total", "dropped_total", "dead", "queued", "inflight")
        return self.value("proxyd_accepted_total", chain=chain) - sum(self.sum(f"proxyd_{name}", chain=chain)
                                                                      for name in names)
