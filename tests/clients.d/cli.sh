#!/usr/bin/env bash
# The aws command against the endpoint given as the first argument; started by tests/clients.
set -euo pipefail
endpoint=$1
client=aws-cli bus=Orders
run=$(printf '%04x%04x' $RANDOM $RANDOM)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# Retries stay on: an answer of 500 shows in the text, as "reached max retries".
printf '[default]\nparameter_validation = false\n' > "$dir/config"
export AWS_CONFIG_FILE=$dir/config

made=0 calls=0 ids=() event_ids=()

fail() { printf '%s: %s\n' "$client" "$*" >&2; exit 1; }

same() { # WHAT GOT WANT
    [ "$2" = "$3" ] || fail "$1: got '$2', want '$3'"
}

# Sets `entry`: a good one with an id of its own, the members given as arguments added or replaced, `NAME=` left out.
# Values are JSON.
entry() {
    made=$((made + 1))
    id=$client-$run-$made
    local -A member=([EventBusName]="\"$bus\"" [Source]='"com.example.clients"' [DetailType]='"ClientTest"'
        [Detail]="\"{\\\"id\\\":\\\"$id\\\",\\\"client\\\":\\\"$client\\\"}\"")
    local change name
    for change; do member[${change%%=*}]=${change#*=}; done
    entry=
    for name in "${!member[@]}"; do
        [ -z "${member[$name]}" ] || entry+=${entry:+,}\"$name\":${member[$name]}
    done
    entry={$entry}
}

# Calls `aws events ...`; sets `out` and, where it failed, `err`.
events() {
    calls=$((calls + 1))
    err=
    out=$("$SLUICE_CLIENTS/venv/bin/aws" --endpoint-url "$endpoint" --output text events "$@" 2> "$dir/err") ||
        err=$(cat "$dir/err")
}

# Sends the entries of the JSON list; sets `lines`: FailedEntryCount, then EventId, ErrorCode and ErrorMessage of each.
put_events() { # WHAT LIST COUNT
    events put-events --entries "$2" --query '[[[FailedEntryCount]], Entries[].[EventId, ErrorCode, ErrorMessage]][]'
    [ -z "$err" ] || fail "$1: $err"
    mapfile -t lines <<< "$out"
    same "$1: number of answers" $((${#lines[@]} - 1)) "$3"
}

# taken WHAT ID LINE: the entry with the id was accepted on the bus.
taken() {
    local event=${3%%$'\t'*}
    same "$1: errors" "${3#*$'\t'}" $'None\tNone'
    [[ $event =~ ^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$ ]] || fail "$1: EventId '$event' is no UUID"
    [ -n "$2" ] || return 0
    ids+=("$2")
    event_ids+=("$event")
}

# put WHAT: sends the one good `entry`.
put() {
    put_events "$1" "[$entry]" 1
    same "$1: FailedEntryCount" "${lines[0]}" 0
    [[ $entry =~ \"EventBusName\":\"([^\"]*/)?$bus\" ]] || id=
    taken "$1" "$id" "${lines[1]}"
}

# refused WHAT CODE OPERATION MESSAGE: the last call failed so; MESSAGE is a regular expression for the whole text.
refused() {
    [ -n "$err" ] || fail "$1: want $2, got '$out'"
    local text="An error occurred \($2\) when calling the $3 operation: $4"$'\n?$'
    [[ $err =~ $text ]] || fail "$1: got '$err', want $2: $4"
}

entry; put "one good entry"

entries=() good=
for change in '' Source= DetailType= Detail= 'Detail="not json"' 'Detail="[1]"' 'Source="aws.ec2"'; do
    entry ${change:+"$change"}
    good=${good:-$id}
    entries+=("$entry")
done
put_events "mixed" "$(IFS=,; echo "[${entries[*]}]")" 7
same "mixed: FailedEntryCount" "${lines[0]}" 6
taken "mixed: the good entry" "$good" "${lines[1]}"
number=1
for name in Source DetailType Detail; do
    number=$((number + 1))
    same "mixed: no $name" "${lines[$number]}" \
        $'None\tInvalidArgument\tParameter '"$name is not valid. Reason: $name is a required argument."
done
same "mixed: detail no JSON" "${lines[5]}" $'None\tMalformedDetail\tDetail is malformed.'
same "mixed: detail a list" "${lines[6]}" $'None\tMalformedDetail\tDetail is malformed.'
same "mixed: source aws.ec2" "${lines[7]}" $'None\tNotAuthorizedForSourceException\tNot authorized for the source.'

entries=()
for _ in {1..11}; do entry; entries+=("$entry"); done
events put-events --entries "$(IFS=,; echo "[${entries[*]}]")"
refused "eleven entries" ValidationException PutEvents "1 validation error detected: Value '\[PutEventsRequestEntry\(.*\)\]' at \
'entries' failed to satisfy constraint: Member must have length less than or equal to 10"

events put-events --entries '[]'
refused "no entries" ValidationException PutEvents '.+'

entry 'Detail="{\"pad\":\"'"$(head -c 262144 /dev/zero | tr '\0' x)"'\"}"'
echo "[$entry]" > "$dir/large.json"
events put-events --entries "file://$dir/large.json"
refused "too large" ValidationException PutEvents 'Total size of the entries in the request is over the limit\.'

entry "EventBusName=\"nowhere-$run\""; put "a bus that does not exist"
entry EventBusName=; put "the default bus"
entry "EventBusName=\"arn:aws:events:eu-west-1:000000000000:event-bus/$bus\""; put "the bus by its ARN"
entry 'Time="2024-01-31T09:00:00.500Z"' 'Resources=["arn:aws:s3:::shop","x"]' \
    'TraceHeader="Root=1-65ba0d50-000000000000000000000001;Parent=0000000000000001;Sampled=1"'
put "every member"

event() { # ID TOTAL
    printf '{"version":"0",%s"detail-type":"OrderPlaced","source":"com.example.shop","account":"000000000000",' "$1"
    printf '"time":"2024-01-31T09:00:00Z","region":"eu-west-1","resources":[],"detail":{"total":%s}}' "$2"
}
pattern='{"source":["com.example.shop"],"detail":{"total":[{"numeric":[">=",500]}]}}'
events test-event-pattern --event-pattern "$pattern" --event "$(event '"id":"e-1",' 900)" --query Result
same "a pattern that matches" "$out$err" True
events test-event-pattern --event-pattern "$pattern" --event "$(event '"id":"e-1",' 499.99)" --query Result
same "a pattern that does not" "$out$err" False
events test-event-pattern --event-pattern '{"source":[]}' --event "$(event '"id":"e-1",' 900)"
refused "a bad pattern" InvalidEventPatternException TestEventPattern \
    'Event pattern is not valid\. Reason: Empty arrays are not allowed.*'
for bad in '[]' 'not json' "$(event '' 900)"; do
    events test-event-pattern --event-pattern "$pattern" --event "$bad"
    refused "event $bad" ValidationException TestEventPattern 'Parameter Event is not valid\.'
done

version=$("$SLUICE_CLIENTS/venv/bin/aws" --version)
version=${version#aws-cli/}
quoted() { local text; text=$(printf ',"%s"' "$@"); printf '[%s]' "${text:1}"; }
printf '{"client":"%s","version":"%s","calls":%s,"events_ok":%s,"ids":%s,"event_ids":%s}\n' \
    "$client" "${version%% *}" "$calls" "${#ids[@]}" "$(quoted "${ids[@]}")" "$(quoted "${event_ids[@]}")"
