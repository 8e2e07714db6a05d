# Runs before an upgrade to fewer nodes, and fails unless the removed nodes are decommissioned. STAY contains the
# addresses of the remaining nodes.
if ! status=$(ropewalk cluster status -o jsonl --timeout 30s); then
  echo "refused: the cluster status is not available, so a scale-in may lose data; start the nodes and try again" >&2
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
  echo "refused: the upgrade would stop nodes that are still in the cluster. Run this first, in the pod of a remaining node:" >&2
  printf '%s\n' "$left" >&2
  exit 1
fi
echo "all removed nodes are decommissioned"
