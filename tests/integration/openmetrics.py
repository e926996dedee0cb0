"""Reads metrics from stdin by the parser of Prometheus's own client, which refuses what the format does not
allow; writes them to stdout as JSON."""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

families = [
    {
        "name": family.name,
        "type": family.type,
        "unit": family.unit,
        "help": family.documentation,
        "samples": [[s.name, s.labels, s.value] for s in family.samples],
    }
    for family in text_string_to_metric_families(sys.stdin.read())
]
# Infinities are no JSON; no value of ours is one.
json.dump(families, sys.stdout, allow_nan=False)
