# Runs in the test pod. ROPEWALK_BOOTSTRAP is the address of the cluster, REPLICAS the number of replicas of the
# test topic.
topic="helm-test-$(date +%s)"
keys=10
each=50
total=$((keys * each))
trap 'ropewalk topic delete "$topic" >/dev/null || true; ropewalk group delete "$topic" >/dev/null || true' EXIT

ropewalk cluster health --wait 60s
ropewalk topic create "$topic" --partitions 3 --replicas "$REPLICAS"

echo "publishing $total records of $keys keys"
awk -v keys="$keys" -v each="$each" 'BEGIN {
  for (n = 1; n <= each; n++) for (key = 1; key <= keys; key++) print "key-" key ":" n
}' | ropewalk produce "$topic" --key-separator : >/dev/null

echo "reading them as a consumer group"
ropewalk consume "$topic" --group "$topic" --from beginning --count "$total" -o jsonl |
  sed -n 's/.*"key":"\([^"]*\)","value":"\([^"]*\)".*/\1 \2/p' |
  awk -v total="$total" '
    $2 != last[$1] + 1 { print $1 ": record " $2 " follows record " last[$1] + 0; bad = 1 }
    { last[$1] = $2; count++ }
    END {
      if (count != total) { print "read " count + 0 " of " total " records"; bad = 1 }
      if (!bad) print "read all " count " records, each key in order"
      exit bad
    }'
