# Runs before an upgrade to fewer nodes: those that go must be out of the cluster by then. NODES is how
# many stay, PREFIX what the names of their pods begin with.
if ! status=$(ropewalk cluster status -o jsonl --timeout 30s); then
  echo "refused: the cluster does not say who is in it, so nobody knows what a smaller one would lose" >&2
  exit 1
fi
left=$(printf '%s\n' "$status" |
  sed -n "s/.*\"node_id\":\([0-9]*\),\"address\":\"$PREFIX-\([0-9]*\)\..*/\1 \2/p" |
  while read -r node ordinal; do
    [ "$ordinal" -lt "$NODES" ] || printf ' %s' "$node"
  done)
if [ -n "$left" ]; then
  echo "refused: replicas: $NODES would stop nodes that are still in the cluster. First, for each of$left:" >&2
  echo "  kubectl exec $PREFIX-0 -- ropewalk cluster decommission NODE --wait" >&2
  exit 1
fi
echo "the nodes that go are out of the cluster"
