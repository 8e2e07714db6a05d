//! Two examples for every command, for its `--help`. A test parses each.

/// An example: its purpose, and the command line.
pub type Example = (&'static str, &'static str);

/// Examples of each command. Those of the program are under the empty name.
pub const EXAMPLES: &[(&str, [Example; 2])] = &[
    (
        "",
        [
            ("Start a local cluster in this terminal", "ropewalk dev"),
            (
                "List its topics, in another terminal",
                "ropewalk topic list",
            ),
        ],
    ),
    (
        "dev",
        [
            ("Start three nodes; their data is kept", "ropewalk dev"),
            (
                "Start one node on other ports, without earlier data",
                "ropewalk dev --nodes 1 --base-port 8100 --fresh",
            ),
        ],
    ),
    (
        "node",
        [
            (
                "Start a cluster of one node",
                "ropewalk node --data-dir /var/lib/ropewalk --listen 10.0.0.1:7101",
            ),
            (
                "Read the settings from a file",
                "ropewalk node --config /etc/ropewalk.toml",
            ),
        ],
    ),
    (
        "topic",
        [
            ("Create a topic", "ropewalk topic create flights"),
            ("List topics", "ropewalk topic ls"),
        ],
    ),
    (
        "topic create",
        [
            (
                "Twelve partitions, three replicas, a week of retention",
                "ropewalk topic create flights",
            ),
            (
                "A compacted topic with one replica",
                "ropewalk topic create gates --replicas 1 --set cleanup=compact",
            ),
        ],
    ),
    (
        "topic list",
        [
            ("List topics", "ropewalk topic list"),
            (
                "Measure incoming rates over ten seconds",
                "ropewalk topic list --rates 10s",
            ),
        ],
    ),
    (
        "topic describe",
        [
            (
                "Show settings and partitions",
                "ropewalk topic describe flights",
            ),
            ("Print JSON", "ropewalk topic describe flights -o json"),
        ],
    ),
    (
        "topic set",
        [
            (
                "Set the retention time to one day",
                "ropewalk topic set flights retention=1d",
            ),
            (
                "Change two settings together",
                "ropewalk topic set flights retention_size=10GiB segment_bytes=16MiB",
            ),
        ],
    ),
    (
        "topic grow",
        [
            (
                "Grow to 24 partitions",
                "ropewalk topic grow flights --partitions 24",
            ),
            (
                "Allow more time",
                "ropewalk topic grow flights --partitions 24 --timeout 2m",
            ),
        ],
    ),
    (
        "topic delete",
        [
            (
                "Delete a topic, with confirmation on a terminal",
                "ropewalk topic delete flights",
            ),
            (
                "Delete a topic without confirmation",
                "ropewalk topic delete flights --yes",
            ),
        ],
    ),
    (
        "produce",
        [
            (
                "Publish the lines of a file, each with a key before a colon",
                "ropewalk produce flights --key-separator : < flights.txt",
            ),
            (
                "Copy a topic, partition by partition",
                "ropewalk consume flights -o jsonl | ropewalk produce copies -i jsonl --keep-partitions",
            ),
        ],
    ),
    (
        "consume",
        [
            (
                "Print all records as JSON",
                "ropewalk consume flights -o jsonl",
            ),
            (
                "Follow new records, and print keys and values",
                "ropewalk consume flights --from end --follow --format '%k %v\\n'",
            ),
        ],
    ),
    (
        "group",
        [
            ("List groups", "ropewalk group ls"),
            ("Show the lag of a group", "ropewalk group lag billing"),
        ],
    ),
    (
        "group list",
        [
            ("List groups", "ropewalk group list"),
            ("Print JSON", "ropewalk group list -o jsonl"),
        ],
    ),
    (
        "group describe",
        [
            (
                "Show members and their partitions",
                "ropewalk group describe billing",
            ),
            ("Print JSON", "ropewalk group describe billing -o json"),
        ],
    ),
    (
        "group lag",
        [
            (
                "Show the lag in records and in seconds",
                "ropewalk group lag billing",
            ),
            (
                "One JSON line per partition",
                "ropewalk group lag billing -o jsonl",
            ),
        ],
    ),
    (
        "group seek",
        [
            (
                "Read everything again",
                "ropewalk group seek billing flights --to beginning",
            ),
            (
                "Show the offsets of an hour ago, without a change",
                "ropewalk group seek billing flights --to -1h --dry-run",
            ),
        ],
    ),
    (
        "group delete",
        [
            ("Delete a group", "ropewalk group delete billing"),
            ("Print JSON", "ropewalk group delete billing -o json"),
        ],
    ),
    (
        "trace",
        [
            ("Show all events of an order", "ropewalk trace order-4711"),
            (
                "Search the last day of two topics",
                "ropewalk trace order-4711 --topic orders --topic payments --from -1d",
            ),
        ],
    ),
    (
        "partition",
        [
            (
                "Show leaders, replicas and offsets",
                "ropewalk partition list flights",
            ),
            (
                "Change the leader",
                "ropewalk partition transfer flights/3 --to 2",
            ),
        ],
    ),
    (
        "partition list",
        [
            (
                "Show the partitions of all topics",
                "ropewalk partition list",
            ),
            (
                "Print the partitions of one topic as JSON",
                "ropewalk partition list flights -o jsonl",
            ),
        ],
    ),
    (
        "partition transfer",
        [
            (
                "Make node 2 the leader",
                "ropewalk partition transfer flights/3 --to 2",
            ),
            (
                "Time out after five seconds",
                "ropewalk partition transfer flights/3 --to 2 --timeout 5s",
            ),
        ],
    ),
    (
        "partition move",
        [
            (
                "Move to nodes 2, 3 and 4; node 2 is the preferred leader",
                "ropewalk partition move flights/3 --replicas 2,3,4",
            ),
            (
                "Print JSON",
                "ropewalk partition move flights/3 --replicas 2,3,4 -o json",
            ),
        ],
    ),
    (
        "cluster",
        [
            ("List the nodes", "ropewalk cluster status"),
            (
                "Wait until the cluster is healthy",
                "ropewalk cluster health --wait 60s",
            ),
        ],
    ),
    (
        "cluster status",
        [
            ("List the nodes", "ropewalk cluster status"),
            (
                "Ask another node, and print JSON",
                "ropewalk cluster status --bootstrap 10.0.0.2:7101 -o jsonl",
            ),
        ],
    ),
    (
        "cluster health",
        [
            ("Check the cluster now", "ropewalk cluster health"),
            (
                "Wait in a script",
                "ropewalk cluster health --wait 60s && ropewalk cluster health -o json",
            ),
        ],
    ),
    (
        "cluster drain",
        [
            ("Move all leaders off node 2", "ropewalk cluster drain 2"),
            ("Print JSON", "ropewalk cluster drain 2 -o json"),
        ],
    ),
    (
        "cluster decommission",
        [
            ("Decommission node 2", "ropewalk cluster decommission 2"),
            (
                "Wait until node 2 is removed",
                "ropewalk cluster decommission 2 --wait",
            ),
        ],
    ),
    (
        "cluster recommission",
        [
            (
                "Return node 2 to service",
                "ropewalk cluster recommission 2",
            ),
            ("Print JSON", "ropewalk cluster recommission 2 -o json"),
        ],
    ),
    (
        "bench",
        [
            (
                "Maximum publish throughput",
                "ropewalk bench produce --topic bench",
            ),
            (
                "Latency at a steady rate",
                "ropewalk bench latency --topic bench --rate 500/s",
            ),
        ],
    ),
    (
        "bench produce",
        [
            (
                "Maximum throughput",
                "ropewalk bench produce --topic bench --duration 30s",
            ),
            (
                "Small records with keys, at a fixed rate",
                "ropewalk bench produce --topic bench --record-size 100B --keys 1000 --rate 20000/s",
            ),
        ],
    ),
    (
        "bench consume",
        [
            (
                "Read the whole topic",
                "ropewalk bench consume --topic bench",
            ),
            (
                "Read with ten groups in parallel",
                "ropewalk bench consume --topic bench --groups 10",
            ),
        ],
    ),
    (
        "bench latency",
        [
            (
                "500 records per second",
                "ropewalk bench latency --topic bench",
            ),
            (
                "5,000 records per second, for a minute",
                "ropewalk bench latency --topic bench --rate 5000/s --duration 1m",
            ),
        ],
    ),
    (
        "completions",
        [
            (
                "Load in the current bash",
                "source <(ropewalk completions bash)",
            ),
            (
                "Install for fish",
                "ropewalk completions fish > ~/.config/fish/completions/ropewalk.fish",
            ),
        ],
    ),
    (
        "version",
        [
            ("Print the version", "ropewalk version"),
            ("Print JSON", "ropewalk version -o json"),
        ],
    ),
];
