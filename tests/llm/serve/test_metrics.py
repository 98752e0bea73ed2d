from __future__ import annotations

import re

from mindset.calls.call import Usage
from mindset.llm.serve.metrics import Metrics

LINE = re.compile(
    r'(# (HELP|TYPE) \w+ .+|\w+(\{\w+="([^"\\\n]|\\["\\n])*"(,\w+="([^"\\\n]|\\["\\n])*")*\})? [\d.e+-]+)'
)


def test_every_line_is_one_that_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.answered("/v1/x", "200", 0.02)
    metrics.answered("/v1/x", "200", 1000.0)
    metrics.answered('/odd"\\\n', "404", 0.0)
    metrics.first_piece("/v1/x", 0.3)
    metrics.used(Usage(3, 4))
    lines = metrics.text('a "model"\\', taken=2, draining=True).splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    for line in (
        'mindset_requests_total{way="/v1/x",status="200"} 2',
        'mindset_request_seconds_bucket{way="/v1/x",le="0.01"} 0',
        'mindset_request_seconds_bucket{way="/v1/x",le="0.025"} 1',
        'mindset_request_seconds_bucket{way="/v1/x",le="300"} 1',
        'mindset_request_seconds_bucket{way="/v1/x",le="+Inf"} 2',
        'mindset_request_seconds_count{way="/v1/x"} 2',
        'mindset_request_seconds_sum{way="/v1/x"} 1000.020000',
        'mindset_tokens_total{kind="completion"} 4',
        "mindset_places_taken 2",
        "mindset_draining 1",
    ):
        assert line in lines
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
