# Runs before an upgrade to fewer nodes: those that go must be out of the cluster by then. STAY has the
# addresses of those that stay.
if ! status=$(ropewalk cluster status -o jsonl --timeout 30s); then
  echo "refused: the cluster does not say who is in it, so nobody knows what a smaller one would lose" >&2
  exit 1
fi
left=$(printf '%s\n' "$status" | sed -n 's/.*"node_id":\([0-9]*\),"address":"\([^"]*\)".*/\1 \2/p' |
  while read -r node address; do
    case " $STAY " in
      *" $address "*) ;;
      *) printf '  ropewalk cluster decommission %s --wait    # %s\n' "$node" "$address" ;;
    esac
  done)
if [ -n "$left" ]; then
  echo "refused: this would stop nodes that are still in the cluster. First, in the pod of one that stays:" >&2
  printf '%s\n' "$left" >&2
  exit 1
fi
echo "the nodes that go are out of the cluster"
