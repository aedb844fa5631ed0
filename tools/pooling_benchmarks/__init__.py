"""Small generated benchmarks of pooling, one idea a file; run by `tools/bench_pooling.py`."""
