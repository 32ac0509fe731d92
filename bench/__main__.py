"""`python -m bench [NAME …]`: run all benchmarks, or those named."""

import importlib
import sys

#: Name → what it measures. A benchmark is a module `bench/NAME.py` with `main()`.
BENCHMARKS = {
    "startup": "`slapos --help` against a bare interpreter",
    "promises": "promises through the launcher against bare fork and exec",
    "warm": "a buildout in a fork of the warm process, and in a Python of its own",
    "slapproxy_peer": "our local master beside the real slapproxy",
    "isolation": "limits and firewall: by program, by idle pass, by change",
    "supervise": "1,000 processes under supervision, beside bare ones and plain supervisord",
    "journal": "writing a report down, beside one fsync",
    "feed_waiters": "6,000 nodes that wait for a change",
    "certified_waiters": "6,100 nodes that wait with certificates, over TLS and without",
    "full_view": "what nodes ask a full master over TLS, and report, beside an empty Flask view",
    "helloworld": "request to healthy, the release already built",
    "monitor": "a sample of what 1,000 processes use, beside psutil",
    "change": "a change at the master to the process that runs with it, also through a bad link",
    "memory": "agent, supervisord, watchdog, warm process with 10 and 1,000 partitions",
    "converge": "passes over 10, 100 and 1,000 partitions, beside slapos.core's node",
    "storm": "1,000 times `kill -9` in runs of orders: nothing lost, doubled or restarted",
    "orders": "orders allocated, beside bare INSERTs; over HTTP, beside an empty view",
    "lists": "REST lists over 200,000 instances, as three kinds of readers",
    "demo": "`make demo` from zero to healthy, by phase",
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"there is no benchmark {', '.join(unknown)}; there are:", file=sys.stderr)
        for name, what in BENCHMARKS.items():
            print(f"  {name:<18}{what}", file=sys.stderr)
        return 2
    for name in names or BENCHMARKS:
        print(f"== {name}: {BENCHMARKS[name]}", flush=True)
        importlib.import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
