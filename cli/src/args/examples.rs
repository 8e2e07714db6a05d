//! Two examples for every command, for its `--help`. A test parses each.

/// An example: its purpose, and the command line.
pub type Example = (&'static str, &'static str);

/// Examples of each command. Those of the program are under the empty name.
pub const EXAMPLES: &[(&str, [Example; 2])] = &[
    (
        "",
        [
            (
                "A cluster to try things on, in this terminal",
                "ropewalk dev",
            ),
            ("In another terminal: its topics", "ropewalk topic list"),
        ],
    ),
    (
        "dev",
        [
            (
                "Three nodes on this machine, with data that stays",
                "ropewalk dev",
            ),
            (
                "One node on other ports, without what earlier runs left",
                "ropewalk dev --nodes 1 --base-port 8100 --fresh",
            ),
        ],
    ),
    (
        "node",
        [
            (
                "The first node of a cluster of one",
                "ropewalk node --data-dir /var/lib/ropewalk --listen 10.0.0.1:7101",
            ),
            (
                "Settings from a file",
                "ropewalk node --config /etc/ropewalk.toml",
            ),
        ],
    ),
    (
        "topic",
        [
            ("Create a topic", "ropewalk topic create flights"),
            ("All topics", "ropewalk topic ls"),
        ],
    ),
    (
        "topic create",
        [
            (
                "Twelve partitions on three nodes each, kept for a week",
                "ropewalk topic create flights",
            ),
            (
                "The last record of each key, on one node",
                "ropewalk topic create gates --replicas 1 --set cleanup=compact",
            ),
        ],
    ),
    (
        "topic list",
        [
            ("All topics", "ropewalk topic list"),
            (
                "What comes in, measured over ten seconds",
                "ropewalk topic list --rates 10s",
            ),
        ],
    ),
    (
        "topic describe",
        [
            ("Settings and partitions", "ropewalk topic describe flights"),
            ("For a program", "ropewalk topic describe flights -o json"),
        ],
    ),
    (
        "topic set",
        [
            (
                "Keep records for a day",
                "ropewalk topic set flights retention=1d",
            ),
            (
                "Two settings at once",
                "ropewalk topic set flights retention_size=10GiB segment_bytes=16MiB",
            ),
        ],
    ),
    (
        "topic grow",
        [
            (
                "Twenty-four partitions in all",
                "ropewalk topic grow flights --partitions 24",
            ),
            (
                "Wait longer for the old partitions",
                "ropewalk topic grow flights --partitions 24 --timeout 2m",
            ),
        ],
    ),
    (
        "topic delete",
        [
            (
                "Delete a topic; on a terminal it asks",
                "ropewalk topic delete flights",
            ),
            ("Without being asked", "ropewalk topic delete flights --yes"),
        ],
    ),
    (
        "produce",
        [
            (
                "Lines of a file, with the key before a colon",
                "ropewalk produce flights --key-separator : < flights.txt",
            ),
            (
                "Copy a topic, each record to the partition it was in",
                "ropewalk consume flights -o jsonl | ropewalk produce copies -i jsonl --keep-partitions",
            ),
        ],
    ),
    (
        "consume",
        [
            (
                "All that is there, for a program",
                "ropewalk consume flights -o jsonl",
            ),
            (
                "Keys and values as they come, from now on",
                "ropewalk consume flights --from end --follow --format '%k %v\\n'",
            ),
        ],
    ),
    (
        "group",
        [
            ("All groups", "ropewalk group ls"),
            ("How far one is behind", "ropewalk group lag billing"),
        ],
    ),
    (
        "group list",
        [
            ("All groups", "ropewalk group list"),
            ("For a program", "ropewalk group list -o jsonl"),
        ],
    ),
    (
        "group describe",
        [
            (
                "Members, and who reads what",
                "ropewalk group describe billing",
            ),
            ("For a program", "ropewalk group describe billing -o json"),
        ],
    ),
    (
        "group lag",
        [
            (
                "Lag in records and in seconds",
                "ropewalk group lag billing",
            ),
            (
                "For a program, a line a partition",
                "ropewalk group lag billing -o jsonl",
            ),
        ],
    ),
    (
        "group seek",
        [
            (
                "Read everything once more",
                "ropewalk group seek billing flights --to beginning",
            ),
            (
                "Show where an hour ago is in each partition, and move nothing",
                "ropewalk group seek billing flights --to -1h --dry-run",
            ),
        ],
    ),
    (
        "group delete",
        [
            ("Forget a group", "ropewalk group delete billing"),
            ("For a program", "ropewalk group delete billing -o json"),
        ],
    ),
    (
        "trace",
        [
            ("All that belongs to an order", "ropewalk trace order-4711"),
            (
                "In two topics, of the last day",
                "ropewalk trace order-4711 --topic orders --topic payments --from -1d",
            ),
        ],
    ),
    (
        "partition",
        [
            (
                "Leaders, replicas and offsets",
                "ropewalk partition list flights",
            ),
            (
                "Another leader",
                "ropewalk partition transfer flights/3 --to 2",
            ),
        ],
    ),
    (
        "partition list",
        [
            ("Of all topics", "ropewalk partition list"),
            (
                "Of one topic, for a program",
                "ropewalk partition list flights -o jsonl",
            ),
        ],
    ),
    (
        "partition transfer",
        [
            (
                "Let node 2 lead",
                "ropewalk partition transfer flights/3 --to 2",
            ),
            (
                "Give up after five seconds",
                "ropewalk partition transfer flights/3 --to 2 --timeout 5s",
            ),
        ],
    ),
    (
        "partition move",
        [
            (
                "To nodes 2, 3 and 4; 2 is preferred as leader",
                "ropewalk partition move flights/3 --replicas 2,3,4",
            ),
            (
                "To one more node",
                "ropewalk partition move flights/3 --replicas 1,2,3,4",
            ),
        ],
    ),
    (
        "cluster",
        [
            ("The nodes", "ropewalk cluster status"),
            (
                "Wait until all is well",
                "ropewalk cluster health --wait 60s",
            ),
        ],
    ),
    (
        "cluster status",
        [
            ("One line a node", "ropewalk cluster status"),
            (
                "Through another node, for a program",
                "ropewalk cluster status --bootstrap 10.0.0.2:7101 -o jsonl",
            ),
        ],
    ),
    (
        "cluster health",
        [
            ("Is all well now?", "ropewalk cluster health"),
            (
                "Wait for it in a script",
                "ropewalk cluster health --wait 60s && ropewalk cluster health -o json",
            ),
        ],
    ),
    (
        "cluster drain",
        [
            ("Move leaders off node 2", "ropewalk cluster drain 2"),
            ("For a program", "ropewalk cluster drain 2 -o json"),
        ],
    ),
    (
        "cluster decommission",
        [
            ("Take node 2 out", "ropewalk cluster decommission 2"),
            (
                "Return once it is out",
                "ropewalk cluster decommission 2 --wait",
            ),
        ],
    ),
    (
        "cluster recommission",
        [
            ("Node 2 serves as before", "ropewalk cluster recommission 2"),
            ("For a program", "ropewalk cluster recommission 2 -o json"),
        ],
    ),
    (
        "bench",
        [
            ("As fast as it goes", "ropewalk bench produce --topic bench"),
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
                "As fast as acknowledgements come",
                "ropewalk bench produce --topic bench --duration 30s",
            ),
            (
                "Small records with keys, at a rate",
                "ropewalk bench produce --topic bench --record-size 100B --keys 1000 --rate 20000/s",
            ),
        ],
    ),
    (
        "bench consume",
        [
            (
                "Read what the topic holds",
                "ropewalk bench consume --topic bench",
            ),
            (
                "As ten groups at once",
                "ropewalk bench consume --topic bench --groups 10",
            ),
        ],
    ),
    (
        "bench latency",
        [
            (
                "At 500 records a second",
                "ropewalk bench latency --topic bench",
            ),
            (
                "At 5,000, for a minute",
                "ropewalk bench latency --topic bench --rate 5000/s --duration 1m",
            ),
        ],
    ),
    (
        "completions",
        [
            ("For this bash", "source <(ropewalk completions bash)"),
            (
                "For every fish to come",
                "ropewalk completions fish > ~/.config/fish/completions/ropewalk.fish",
            ),
        ],
    ),
    (
        "version",
        [
            ("The version", "ropewalk version"),
            ("For a program", "ropewalk version -o json"),
        ],
    ),
];
