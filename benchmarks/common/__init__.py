"""What the benchmarks share: machine facts, interleaved runs, tables, a server to talk to, two ways to draw."""
